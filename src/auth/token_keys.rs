//! The keys that verify tokens: configured ones, or the published keys of an issuer.
//!
//! Published keys are cached for some minutes. A token that names an unknown key has them read again, at most every few
//! seconds, so a key that was rotated in is known at once and made-up ones cost the issuer nothing. While the issuer does not
//! answer, the cached keys count; a token of a cached key does not wait for the issuer, unless the keys are stale.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use reqwest::Client;
use tokio::sync::watch;

use crate::{
    config::{AuthConfig, without_secrets},
    limits,
};

/// A key, and the only algorithm that it may be used with.
#[derive(Clone)]
pub struct TokenKey {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// The reason why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    #[error("AUTH_JWT_RS256_PUBLIC_KEY is not an RSA public key in PEM form")]
    Pem,
    #[error("the HTTP client for the issuer's keys can't be built: {0}")]
    Client(String),
    #[error("the issuer has not published this key")]
    Unknown,
    #[error("the issuer's keys can't be read: {0}")]
    Unavailable(String),
}

/// The source of keys.
pub enum TokenKeys {
    None,
    Fixed(TokenKey),
    Published(IssuerKeys),
}

/// The keys of an issuer.
#[derive(Clone)]
pub struct IssuerKeys(Arc<Inner>);

struct Inner {
    url: String,
    client: Client,
    known: Mutex<Known>,
    /// Counts the readings that have ended: a caller that waits for keys waits for the next one.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    keys: Vec<(Option<String>, TokenKey)>,
    read_at: Option<Instant>,
    tried_at: Option<Instant>,
    /// True while a reading is under way.
    reading: bool,
    /// The reason why the last reading failed.
    failure: Option<String>,
}

impl TokenKeys {
    /// Makes the source that a configuration names. A public key wins over a secret.
    pub fn new(config: &AuthConfig) -> Result<Self, TokenKeyError> {
        if let Some(pem) = &config.rs256_public_key {
            // An environment variable holds the PEM in one line.
            let pem = pem.replace("\\n", "\n");
            let key = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| TokenKeyError::Pem)?;
            return Ok(Self::Fixed(TokenKey { algorithm: Algorithm::RS256, key }));
        }
        if let Some(secret) = config.hs256_secret.as_deref().filter(|_| config.jwks_url.is_none()) {
            let key = DecodingKey::from_secret(secret.as_bytes());
            return Ok(Self::Fixed(TokenKey { algorithm: Algorithm::HS256, key }));
        }
        let published = config.jwks_url.clone().or_else(|| {
            let issuer = config.issuer.as_deref()?.trim_end_matches('/');
            Some(format!("{issuer}/.well-known/jwks.json"))
        });
        let Some(url) = published else { return Ok(Self::None) };
        let client = Client::builder()
            .timeout(Duration::from_millis(limits::JWKS_TIMEOUT_MS))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| TokenKeyError::Client(error.to_string()))?;
        let inner = Inner { url, client, known: Mutex::default(), ended: watch::Sender::new(0) };
        Ok(Self::Published(IssuerKeys(Arc::new(inner))))
    }

    #[cfg(test)]
    pub fn forget_when_read(&self) {
        if let Self::Published(published) = self {
            published.0.lock().tried_at = None;
        }
    }

    /// Returns the key that a token names, or the only one.
    pub async fn find(&self, id: Option<&str>) -> Result<TokenKey, TokenKeyError> {
        match self {
            Self::None => Err(TokenKeyError::Unknown),
            Self::Fixed(key) => Ok(key.clone()),
            Self::Published(published) => published.find(id).await,
        }
    }
}

impl IssuerKeys {
    /// Returns a cached key at once if it is fresh, or while the keys are read again.
    ///
    /// All callers that lack a key wait for one reading together.
    async fn find(&self, id: Option<&str>) -> Result<TokenKey, TokenKeyError> {
        let mut ended = self.0.ended.subscribe();
        let reading = {
            let mut known = self.0.lock();
            let fresh = known.read_at.is_some_and(|at| at.elapsed() < Duration::from_secs(limits::JWKS_FRESH_SECS));
            let found = known.find(id);
            let wanted = found.is_none() || !fresh;
            let tried = known.tried_at.is_some_and(|at| at.elapsed() < Duration::from_millis(limits::JWKS_RETRY_MS));
            if wanted && !known.reading && !tried {
                known.reading = true;
                known.tried_at = Some(Instant::now());
                // A task of its own, since the client that asked may leave.
                tokio::spawn(self.clone().read_again());
            }
            // Keys that no token has named in a long time may have been revoked since.
            let stale = known.read_at.is_none_or(|at| at.elapsed() > Duration::from_secs(limits::JWKS_STALE_SECS));
            match found {
                Some(key) if !stale || !known.reading => return Ok(key),
                _ => known.reading,
            }
        };
        if reading {
            // The sender lives as long as this value.
            let _ = ended.changed().await;
        }
        let known = self.0.lock();
        let missing = || known.failure.clone().map_or(TokenKeyError::Unknown, TokenKeyError::Unavailable);
        known.find(id).ok_or_else(missing)
    }

    async fn read_again(self) {
        let read = self.0.read().await;
        let mut known = self.0.lock();
        known.reading = false;
        match read {
            Ok(keys) => (known.keys, known.read_at, known.failure) = (keys, Some(Instant::now()), None),
            Err(error) => {
                let url = without_secrets(&self.0.url);
                tracing::warn!(%error, url, "the issuer's keys can't be read; the known ones stay valid");
                known.failure = Some(error.to_string());
            }
        }
        drop(known);
        self.0.ended.send_modify(|count| *count += 1);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic happens under this lock")
    }

    async fn read(&self) -> Result<Vec<(Option<String>, TokenKey)>, TokenKeyError> {
        let unavailable = |error: reqwest::Error| TokenKeyError::Unavailable(error.without_url().to_string());
        let mut response = self.client.get(&self.url).send().await.map_err(unavailable)?;
        response.error_for_status_ref().map_err(unavailable)?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unavailable)? {
            body.extend_from_slice(&part);
            if body.len() > limits::JWKS_MAX_BYTES {
                return Err(TokenKeyError::Unavailable("the answer is too large".into()));
            }
        }
        let set: JwkSet = serde_json::from_slice(&body)
            .map_err(|_| TokenKeyError::Unavailable("the answer is not a key set".into()))?;
        Ok(set.keys.iter().filter_map(|jwk| Some((jwk.common.key_id.clone(), key(jwk)?))).collect())
    }
}

impl TokenKeyError {
    /// Returns true if the same token may be accepted later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Known {
    fn find(&self, id: Option<&str>) -> Option<TokenKey> {
        let mut fitting = self.keys.iter().filter(|(key_id, _)| id.is_none() || key_id.as_deref() == id);
        let first = fitting.next().map(|(_, key)| key.clone());
        // A token without a key id is accepted only where the issuer has a single key.
        first.filter(|_| id.is_some() || fitting.next().is_none())
    }
}

/// Converts a published key that tokens may be signed with. A shared secret is never published.
fn key(jwk: &Jwk) -> Option<TokenKey> {
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    Some(TokenKey { algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
}
