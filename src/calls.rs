//! Calls of external services: signed, to literal subjects of one kind, over a connection with no other permissions.
//!
//! A provider chooses the subject on which this process publishes with its own rights, so the subject is checked here at
//! each call, and the connection's user may publish to subjects of that kind only. The signature proves to a provider that
//! a call comes from a process with the key: permissions can't, since any answer of the JetStream API can be sent to any
//! subject.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::{
    limits,
    nats::core::{self, Client, HeaderMap, Message, RequestError},
    signing::{PublicKey, SigningKey},
    subjects,
};

/// Prefix of the headers that a signature covers.
const OWN: &str = "Turnstream-";
/// Header with the time until which the call may be carried out.
pub const EXPIRES: &str = "Turnstream-Expires";
/// Header with the id of the signing key: SHA-256 of the public key.
pub const KEY: &str = "Turnstream-Key";
/// Header with the signature: Ed25519 over [`statement`], in base64.
pub const SIGNATURE: &str = "Turnstream-Signature";

/// Calls services of one kind. Clones share the connection.
#[derive(Clone)]
pub struct ServiceCaller {
    client: Client,
    signer: Option<Arc<SigningKey>>,
    beginning: &'static str,
}

/// A call before signing.
pub struct ServiceCall {
    pub subject: String,
    /// Headers of the call; their names begin with `Turnstream-`.
    pub headers: Vec<(&'static str, String)>,
    pub payload: Bytes,
    pub timeout: Duration,
}

/// The reason why a call has no answer.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CallError {
    #[error("the subject is not a literal one below `{0}`")]
    Subject(&'static str),
    #[error("the value of the header `{0}` can't be sent")]
    Header(&'static str),
    #[error("no service listens on the subject")]
    NoService,
    /// The call may have been carried out.
    #[error("{0}")]
    NoAnswer(String),
}

impl CallError {
    /// Returns whether the call surely reached no service.
    pub fn is_not_sent(&self) -> bool {
        !matches!(self, Self::NoAnswer(_))
    }
}

impl ServiceCaller {
    /// Returns a caller of subjects below `beginning`. Without a key, calls are not signed.
    pub fn new(client: Client, signer: Option<Arc<SigningKey>>, beginning: &'static str) -> Self {
        Self { client, signer, beginning }
    }

    /// Returns the connection for the calls.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a call and waits for its answer, at most for the call's timeout and a short grace.
    pub async fn call(&self, call: ServiceCall) -> Result<Message, CallError> {
        if !subjects::is_call(self.beginning, &call.subject) {
            return Err(CallError::Subject(self.beginning));
        }
        let expires = Utc::now() + call.timeout;
        let headers = self.headers(&call, expires)?;
        let wait = (call.timeout, Duration::from_millis(limits::CALL_GRACE_MS));
        match core::request(&self.client, call.subject, headers, call.payload, wait).await {
            Ok(reply) => Ok(reply),
            Err(RequestError::NoResponders) => Err(CallError::NoService),
            Err(RequestError::NoAnswer(cause)) => Err(CallError::NoAnswer(cause)),
        }
    }

    fn headers(&self, call: &ServiceCall, expires: DateTime<Utc>) -> Result<HeaderMap, CallError> {
        let mut pairs = call.headers.clone();
        pairs.push((EXPIRES, expires.to_rfc3339_opts(SecondsFormat::Millis, true)));
        if let Some(signer) = &self.signer {
            pairs.push((KEY, signer.public().id().to_string()));
        }
        if let Some((name, _)) = pairs.iter().find(|(name, value)| !is_sendable(value) || !name.starts_with(OWN)) {
            return Err(CallError::Header(name));
        }
        if let Some(signer) = &self.signer {
            let signature = signer.sign(&statement(&call.subject, &pairs, &call.payload));
            pairs.push((SIGNATURE, signature));
        }
        Ok(core::headers(pairs.iter().map(|(name, value)| (*name, value.as_str()))))
    }
}

/// Returns the text that is signed.
///
/// Its lines, each ended by a line feed: a first line with the version, the subject, `name:value` of each header of this
/// program in the order of their names, the payload's SHA-256.
fn statement(subject: &str, headers: &[(&'static str, String)], payload: &[u8]) -> String {
    let mut headers: Vec<_> = headers.iter().collect();
    headers.sort();
    let mut text = format!("turnstream call 1\n{subject}\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}:{value}\n"));
    }
    HEXLOWER.encode_append(&Sha256::digest(payload), &mut text);
    text.push('\n');
    text
}

/// Returns whether every client library transmits a header unchanged: printable ASCII without white space at its ends.
fn is_sendable(value: &str) -> bool {
    value.bytes().all(|b| (b' '..=b'~').contains(&b)) && value.trim() == value
}

/// Returns any text in a form for a header's value: unchanged if short and plain, else a hash of it, which begins with `=`.
pub fn plain(text: &str) -> String {
    let is_plain = (1..=limits::CALL_ID_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic())
        && !text.starts_with('=');
    match is_plain {
        true => text.into(),
        false => {
            let hash = Sha256::digest(text.as_bytes());
            format!("={}", HEXLOWER.encode(&hash[..16]))
        }
    }
}

/// Returns whether a message is an unexpired call signed with the key.
pub fn is_signed(message: &Message, key: &PublicKey, now: DateTime<Utc>) -> bool {
    let Some(headers) = &message.headers else { return false };
    let one = |name: &str| headers.get_all(name).map(|value| value.as_str()).collect::<Vec<_>>();
    let [signature] = one(SIGNATURE)[..] else { return false };
    let mut lines: Vec<(String, String)> = Vec::new();
    for (name, values) in headers.iter().map(|(name, values)| (name.to_string(), values)) {
        if name == SIGNATURE || !name.to_ascii_lowercase().starts_with("turnstream-") {
            continue;
        }
        let [value] = &values[..] else { return false };
        lines.push((name, value.as_str().to_string()));
    }
    lines.sort();
    let head: String = lines.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let payload = HEXLOWER.encode(&Sha256::digest(&message.payload));
    let text = format!("turnstream call 1\n{}\n{head}{payload}\n", message.subject);
    let expires = one(EXPIRES).first().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    key.signed(&text, signature) && expires.is_some_and(|expires| expires > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_text_matches_the_specification() {
        let headers = [("Turnstream-Org", "acme".to_string()), ("Turnstream-Call-Id", "a-1".into())];
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let expected = format!("turnstream call 1\ntool.a\nTurnstream-Call-Id:a-1\nTurnstream-Org:acme\n{hash}\n");
        assert_eq!(statement("tool.a", &headers, b"{}"), expected);
    }

    #[test]
    fn a_value_with_a_line_break_is_not_sent_in_a_header() {
        for value in ["a\r\nX: y", "a\n", "a\u{0}", "ü", " a", "a\t"] {
            assert!(!is_sendable(value), "{value:?}");
        }
        assert!(is_sendable("{\"a\": \"b c\"}") && is_sendable(""));
    }

    #[test]
    fn any_id_becomes_a_distinct_plain_id() {
        assert_eq!(plain("call_1:functions.x"), "call_1:functions.x");
        let odd = ["a\r\nb", "a\nb", "", "=1", "ü", &"a".repeat(limits::CALL_ID_MAX_BYTES + 1)].map(plain);
        let apart: std::collections::HashSet<_> = odd.iter().collect();
        assert_eq!(apart.len(), odd.len());
        assert!(odd.iter().all(|id| is_sendable(id) && id.len() == 33), "{odd:?}");
    }
}
