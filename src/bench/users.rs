//! Users with tokens, where the signing secret is known.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

/// The organisation of all users.
const ORGANISATION: &str = "bench";
/// Later than any run.
const EXPIRES: u64 = 4_102_444_800;

/// The signing secret of a product started for the run; `None` = all users are anonymous.
pub struct TokenMinter(pub Option<String>);

impl TokenMinter {
    /// Returns the token of a user, if the secret is known.
    pub fn token(&self, number: usize) -> Option<String> {
        let key = EncodingKey::from_secret(self.0.as_deref()?.as_bytes());
        let (sub, email) = (format!("user-{number}"), format!("user-{number}@bench.example"));
        let claims = json!({"sub": sub, "email": email, "org": ORGANISATION, "role": "basic", "exp": EXPIRES});
        encode(&Header::default(), &claims, &key).ok()
    }
}
