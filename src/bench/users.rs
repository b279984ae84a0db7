//! Users with tokens, where the secret that signs them is known.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

/// The organisation of all users.
const ORGANISATION: &str = "bench";
/// Longer than any run.
const EXPIRES: u64 = 4_102_444_800;

/// The secret of a product that was started for the run.
pub struct Users(pub Option<String>);

impl Users {
    /// The token of a user; none where everybody is a stranger.
    pub fn token(&self, number: usize) -> Option<String> {
        let key = EncodingKey::from_secret(self.0.as_deref()?.as_bytes());
        let (sub, email) = (format!("user-{number}"), format!("user-{number}@bench.example"));
        let claims = json!({"sub": sub, "email": email, "org": ORGANISATION, "role": "basic", "exp": EXPIRES});
        encode(&Header::default(), &claims, &key).ok()
    }
}
