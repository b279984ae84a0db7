//! Verifies tokens by the configured mode.
//!
//! The algorithm that a token may use follows from the key, never from the token: a public key can't be mistaken for a
//! secret.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::{
    Principal, Role,
    token_keys::{TokenKey, TokenKeyError, TokenKeys},
};
use crate::{
    config::{AuthConfig, AuthMode},
    limits,
};

/// The reason why a token proves nothing. Fit for logs: it holds nothing of the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("tokens are not accepted in this mode")]
    NotAccepted,
    #[error("the token is too large")]
    TooLarge,
    #[error("the token is malformed")]
    Malformed,
    #[error("the token was refused: {0:?}")]
    Refused(jsonwebtoken::errors::ErrorKind),
    #[error("the claim `{0}` is missing, blank, too long or unknown")]
    Claim(&'static str),
    #[error("the token's header has an extension that must be understood and is not")]
    Critical,
    #[error("the token has expired")]
    Expired,
    #[error("{0}")]
    Key(#[from] TokenKeyError),
}

/// The claims of a token. Claims of a wrong type make a malformed token.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    org: Option<String>,
    org_id: Option<String>,
    role: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    email: Option<String>,
    /// OpenID Connect: false if the issuer has not verified that the address is the user's. Some issuers write it as a text.
    email_verified: Option<serde_json::Value>,
    name: Option<String>,
    exp: Option<f64>,
}

impl Claims {
    fn principal(self) -> Result<Principal, TokenError> {
        let there = |claim: Option<String>| claim.filter(|text| !text.trim().is_empty());
        let is_unverified = self.email_verified.is_some_and(|word| word == false || word == "false");
        let at_most = |bytes: usize| move |text: &String| text.len() <= bytes;
        let org = there(self.org).or(there(self.org_id)).filter(at_most(limits::ORG_MAX_BYTES));
        Ok(Principal {
            user: there(self.sub).filter(at_most(limits::USER_MAX_BYTES)).ok_or(TokenError::Claim("sub"))?,
            org: org.ok_or(TokenError::Claim("org"))?,
            role: self.role.as_deref().and_then(Role::parse).ok_or(TokenError::Claim("role"))?,
            groups: self.groups,
            email: there(self.email).filter(|_| !is_unverified),
            name: there(self.name),
            expires_at: self.exp.map(|at| at as i64),
        })
    }
}

pub struct TokenVerifier {
    mode: AuthMode,
    keys: TokenKeys,
    issuer: Option<String>,
    audience: Option<String>,
    strict: bool,
    dev_org: String,
}

impl TokenVerifier {
    /// Makes a verifier for a configuration. Its keys must be readable.
    pub fn new(config: &AuthConfig) -> Result<Self, TokenKeyError> {
        let keys = TokenKeys::new(config)?;
        let (issuer, audience) = (config.issuer.clone(), config.audience.clone());
        Ok(Self { mode: config.mode, keys, issuer, audience, strict: config.strict, dev_org: config.dev_org.clone() })
    }

    #[cfg(test)]
    pub fn forget_when_keys_were_read(&self) {
        self.keys.forget_when_read();
    }

    /// Returns true if connections can prove an identity, so that a conversation is its owner's only.
    pub fn is_on(&self) -> bool {
        matches!(self.mode, AuthMode::Jwt | AuthMode::Smoo | AuthMode::Trusted)
    }

    /// Returns true if a connection without a valid token is refused.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Returns true if only a header may bring a token: the proxy in front writes it, while any client can write a query.
    pub fn trusts_headers_alone(&self) -> bool {
        self.mode == AuthMode::Trusted
    }

    /// Verifies an administrator's token.
    ///
    /// In the mode `none` any token stands for an administrator; where tokens are not configured, none does.
    pub async fn verify_administrator(&self, token: &str) -> Result<Principal, TokenError> {
        match self.mode {
            AuthMode::None => Ok(Principal {
                user: "dev-admin".into(),
                org: self.dev_org.clone(),
                role: Role::Admin,
                groups: vec![],
                email: None,
                name: None,
                expires_at: None,
            }),
            _ => self.verify(token).await,
        }
    }

    /// Verifies a token and returns its principal.
    pub async fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        if token.len() > limits::TOKEN_MAX_BYTES {
            return Err(TokenError::TooLarge);
        }
        match self.mode {
            AuthMode::Off | AuthMode::None => Err(TokenError::NotAccepted),
            AuthMode::Trusted => {
                let claims = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| TokenError::Malformed)?;
                let claims =
                    serde_json::from_slice::<Claims>(&claims).map_err(|_| TokenError::Malformed)?.principal()?;
                let now = chrono::Utc::now().timestamp();
                let is_over = |at: i64| at.saturating_add(limits::CLOCK_SKEW_SECS as i64) < now;
                if claims.expires_at.is_some_and(is_over) { Err(TokenError::Expired) } else { Ok(claims) }
            }
            AuthMode::Jwt | AuthMode::Smoo => self.verify_signed(token).await,
        }
    }

    async fn verify_signed(&self, token: &str) -> Result<Principal, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if has_critical(token) {
            return Err(TokenError::Critical);
        }
        let TokenKey { algorithm, key } = self.keys.find(header.kid.as_deref()).await?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = limits::CLOCK_SKEW_SECS;
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let decoded = decode::<Claims>(token, &key, &validation);
        decoded.map_err(|error| TokenError::Refused(error.into_kind()))?.claims.principal()
    }
}

/// Returns true if a token's header lists extensions that its reader must understand (`crit`, RFC 7515 §4.1.11). None are
/// supported.
fn has_critical(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header =
        header.and_then(|header| serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(&header).ok());
    header.is_none_or(|header| header.contains_key("crit"))
}
