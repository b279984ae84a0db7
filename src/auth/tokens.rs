//! Verifies tokens by the configured mode.
//!
//! Which algorithm a token may use follows from the key, never from the token: a public key can't be mistaken for a secret.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::{
    Principal, Role,
    keys::{Key, KeyError, Keys},
};
use crate::{
    config::{Auth, AuthMode},
    limits,
};

/// Why a token proves nothing. For logs: it holds nothing of the token.
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
    #[error("the claim `{0}` is missing, blank or unknown")]
    Claim(&'static str),
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// Claims of a token. Wrong types are a malformed token.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    org: Option<String>,
    org_id: Option<String>,
    role: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    email: Option<String>,
    name: Option<String>,
}

impl Claims {
    fn principal(self) -> Result<Principal, TokenError> {
        let there = |claim: Option<String>| claim.filter(|text| !text.trim().is_empty());
        Ok(Principal {
            user: there(self.sub).ok_or(TokenError::Claim("sub"))?,
            org: there(self.org).or(there(self.org_id)).ok_or(TokenError::Claim("org"))?,
            role: self.role.as_deref().and_then(Role::parse).ok_or(TokenError::Claim("role"))?,
            groups: self.groups,
            email: there(self.email),
            name: there(self.name),
        })
    }
}

/// Verifies tokens.
pub struct Verifier {
    mode: AuthMode,
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    strict: bool,
    dev_org: String,
}

impl Verifier {
    /// A verifier for a configuration, whose keys must be readable.
    pub fn new(config: &Auth) -> Result<Self, KeyError> {
        let keys = Keys::new(config)?;
        let (issuer, audience) = (config.issuer.clone(), config.audience.clone());
        Ok(Self { mode: config.mode, keys, issuer, audience, strict: config.strict, dev_org: config.dev_org.clone() })
    }

    /// Whether a conversation is its owner's only: connections can prove who they are.
    pub fn is_on(&self) -> bool {
        matches!(self.mode, AuthMode::Jwt | AuthMode::Smoo | AuthMode::Trusted)
    }

    /// Whether a connection without a valid token is refused.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Who administrates with this token. Where nothing is verified, any token stands for an administrator; where nothing was
    /// said about tokens, none does.
    pub async fn verify_administrator(&self, token: &str) -> Result<Principal, TokenError> {
        match self.mode {
            AuthMode::None => Ok(Principal {
                user: "dev-admin".into(),
                org: self.dev_org.clone(),
                role: Role::Admin,
                groups: vec![],
                email: None,
                name: None,
            }),
            _ => self.verify(token).await,
        }
    }

    /// Who a token stands for.
    pub async fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        if token.len() > limits::TOKEN_MAX_BYTES {
            return Err(TokenError::TooLarge);
        }
        match self.mode {
            AuthMode::Off | AuthMode::None => Err(TokenError::NotAccepted),
            AuthMode::Trusted => {
                let claims = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| TokenError::Malformed)?;
                serde_json::from_slice::<Claims>(&claims).map_err(|_| TokenError::Malformed)?.principal()
            }
            AuthMode::Jwt | AuthMode::Smoo => self.verify_signed(token).await,
        }
    }

    async fn verify_signed(&self, token: &str) -> Result<Principal, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        let Key { algorithm, key } = self.keys.find(header.kid.as_deref()).await?;
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
