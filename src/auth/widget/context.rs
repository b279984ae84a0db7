//! A host's signed assertion about its user: `{userId, signature, timestamp}`.
//!
//! The signature is the hex form of HMAC-SHA256 over `{userId}:{timestamp}`, keyed with the policy's key.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::limits;

/// The host's proof of its user's identity.
#[derive(Debug, PartialEq)]
pub struct HostProof {
    pub user: String,
    /// The id of the signature, in every spelling of it: marks the signature as used.
    pub id: String,
}

/// Verifies a context. All faults get the same answer.
pub fn verify(context: &Value, key: Option<&str>, now: i64) -> Option<HostProof> {
    let user = context.get("userId")?.as_str().filter(|user| !user.trim().is_empty())?;
    let signature = bytes(context.get("signature")?.as_str()?)?;
    let timestamp = context.get("timestamp")?.as_i64()?;
    let age = now.checked_sub(timestamp)?;
    if age.unsigned_abs() > limits::CONTEXT_AGE_MAX_SECS {
        return None;
    }
    let key = key.filter(|key| !key.is_empty())?;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(format!("{user}:{timestamp}").as_bytes());
    // Constant-time comparison.
    mac.verify_slice(&signature).ok()?;
    let id = HEXLOWER.encode(&Sha256::digest(&signature));
    Some(HostProof { user: user.to_string(), id })
}

/// Decodes 32 bytes of hexadecimal text.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok().filter(|bytes| bytes.len() == 32)
}
