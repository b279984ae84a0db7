//! Events as stored messages: CloudEvents 1.0 attributes in headers (binary mode), JSON payload.
//!
//! Header names, event types and payload field names are a contract with every reader of the log; golden samples under
//! `spec/samples/events` pin them. A reader guesses at nothing: an unknown event folds to nothing, or closes the conversation for
//! writing where its writer marked it as critical.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::{
    Digest,
    event::{Event, Unreadable, UnreadableCause, kind},
};

pub const CE_ID: &str = "ce-id";
pub const CE_TYPE: &str = "ce-type";
pub const CE_SOURCE: &str = "ce-source";
pub const CE_TIME: &str = "ce-time";
pub const CE_SUBJECT: &str = "ce-subject";
pub const CE_SPECVERSION: &str = "ce-specversion";
/// Version of the payload's schema.
pub const CE_SCHEMAVERSION: &str = "ce-schemaversion";
/// Stream sequence of the conversation's previous event; 0 for its first.
pub const CE_PREV: &str = "ce-prev";
pub const CONTENT_TYPE: &str = "content-type";
/// Digest of the conversation's previous event, 64 zeros for its first: the hash chain that a change would break.
pub const CE_PREVDIGEST: &str = "ce-prevdigest";
/// JetStream's deduplication header; equals `ce-id`.
pub const MSG_ID: &str = "Nats-Msg-Id";

/// Prefix of `ce-type`: the rest is the event's stored name.
pub const TYPE_PREFIX: &str = "turnstream.";
pub const SCHEMA_VERSION: &str = "1";
/// Suffix of a schema version that marks its event as critical: a reader that does not know the version or the type must not add
/// to the conversation.
const CRITICAL: char = '!';

/// The envelope of an event, as its writer made it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventEnvelope {
    pub id: String,
    pub source: String,
    pub time: DateTime<Utc>,
    pub conversation: Uuid,
    pub prev: u64,
    /// Absent in events that were written before there were digests.
    pub prev_digest: Option<Digest>,
}

impl EventEnvelope {
    /// Returns the digest of an event in this envelope on a subject, stored in the clear.
    pub fn digest(&self, subject: &str, event: &Event) -> Digest {
        let (headers, payload) = encode(self, event);
        digest(subject, header_of(&headers), &payload)
    }
}

/// Returns a lookup in headers that were just made.
pub fn header_of<'a>(headers: &'a [(&'static str, String)]) -> impl Fn(&str) -> Option<&'a str> {
    |wanted| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str())
}

/// Returns the digest of a stored message.
///
/// SHA-256 over its subject, the values of these headers, one a line, an empty line, and the payload. A missing header counts as
/// an empty line.
pub fn digest<'a>(subject: &str, header: impl Fn(&str) -> Option<&'a str>, payload: &[u8]) -> Digest {
    const COVERED: [&str; 8] =
        [CE_ID, CE_TYPE, CE_SOURCE, CE_TIME, CE_SUBJECT, CE_SCHEMAVERSION, CE_PREV, CE_PREVDIGEST];
    let mut hash = Sha256::new();
    hash.update(subject);
    hash.update("\n");
    for name in COVERED {
        hash.update(header(name).unwrap_or_default());
        hash.update("\n");
    }
    hash.update("\n");
    hash.update(payload);
    Digest(hash.finalize().into())
}

/// The reason why a stored message can't be read as an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("header {0} is missing or malformed")]
    Header(&'static str),
    #[error("schema version {0} is newer than this program")]
    Version(String),
    #[error("event type {0} is unknown to this program")]
    Type(String),
    #[error("payload: {0}")]
    Payload(#[from] serde_json::Error),
    #[error("the event is on the subject of another event")]
    Place,
}

/// Encodes an event as the headers and the payload of a stored message.
pub fn encode(envelope: &EventEnvelope, event: &Event) -> (Vec<(&'static str, String)>, Bytes) {
    let mut headers = vec![
        (MSG_ID, envelope.id.clone()),
        (CE_SPECVERSION, "1.0".into()),
        (CE_ID, envelope.id.clone()),
        (CE_TYPE, format!("{TYPE_PREFIX}{}", event.kind())),
        (CE_SOURCE, envelope.source.clone()),
        (CE_TIME, envelope.time.to_rfc3339_opts(SecondsFormat::Micros, true)),
        (CE_SUBJECT, envelope.conversation.to_string()),
        (CE_SCHEMAVERSION, SCHEMA_VERSION.into()),
        (CE_PREV, envelope.prev.to_string()),
        (CONTENT_TYPE, "application/json".into()),
    ];
    headers.extend(envelope.prev_digest.map(|digest| (CE_PREVDIGEST, digest.to_string())));
    (headers, encode_payload(event))
}

/// Decodes a stored message, given a lookup of its headers.
pub fn decode<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    payload: &[u8],
) -> Result<(EventEnvelope, Event), DecodeError> {
    let (envelope, name) = decode_headers(header)?;
    Ok((envelope, decode_payload(name, payload)?))
}

/// Decodes the envelope of a stored message and its event's stored name, which this program may not know.
pub fn decode_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Result<(EventEnvelope, &'a str), DecodeError> {
    let required = |name: &'static str| header(name).ok_or(DecodeError::Header(name));
    let version = required(CE_SCHEMAVERSION)?;
    if version.strip_suffix(CRITICAL).unwrap_or(version) != SCHEMA_VERSION {
        return Err(DecodeError::Version(version.to_string()));
    }
    let time = DateTime::parse_from_rfc3339(required(CE_TIME)?).map_err(|_| DecodeError::Header(CE_TIME))?;
    let envelope = EventEnvelope {
        id: required(CE_ID)?.to_string(),
        source: required(CE_SOURCE)?.to_string(),
        time: time.with_timezone(&Utc),
        conversation: required(CE_SUBJECT)?.parse().map_err(|_| DecodeError::Header(CE_SUBJECT))?,
        prev: required(CE_PREV)?.parse().map_err(|_| DecodeError::Header(CE_PREV))?,
        prev_digest: match header(CE_PREVDIGEST) {
            Some(text) => Some(Digest::parse(text).ok_or(DecodeError::Header(CE_PREVDIGEST))?),
            None => None,
        },
    };
    let event_type = required(CE_TYPE)?;
    let name = event_type.strip_prefix(TYPE_PREFIX).ok_or_else(|| DecodeError::Type(event_type.to_string()))?;
    Ok((envelope, name))
}

/// Returns an event's link to the one before, which is all that following the chain needs; `None` if the event has no link.
pub fn link<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<(u64, Option<Digest>)> {
    let prev = header(CE_PREV)?.parse().ok()?;
    match header(CE_PREVDIGEST) {
        Some(text) => Some((prev, Some(Digest::parse(text)?))),
        None => Some((prev, None)),
    }
}

/// Describes a stored message that can't be read as an event, by its error.
pub fn unreadable<'a>(header: impl Fn(&str) -> Option<&'a str>, error: &DecodeError) -> Unreadable {
    let name = header(CE_TYPE).unwrap_or_default();
    let is_critical = header(CE_SCHEMAVERSION).is_some_and(|version| version.ends_with(CRITICAL));
    let cause = match error {
        DecodeError::Version(_) | DecodeError::Type(_) if is_critical => UnreadableCause::Critical,
        DecodeError::Version(_) | DecodeError::Type(_) => UnreadableCause::Unknown,
        DecodeError::Header(_) | DecodeError::Payload(_) | DecodeError::Place => UnreadableCause::Malformed,
    };
    Unreadable { name: name.strip_prefix(TYPE_PREFIX).unwrap_or(name).to_string(), cause, detail: error.to_string() }
}

/// Encodes the JSON payload of an event.
pub fn encode_payload(event: &Event) -> Bytes {
    fn json(payload: &impl Serialize) -> Bytes {
        Bytes::from(serde_json::to_vec(payload).expect("event payloads are maps with string keys"))
    }
    match event {
        Event::SessionOpened(e) => json(e),
        Event::SessionIdentified(e) => json(e),
        Event::ConversationRenamed(e) => json(e),
        Event::TurnRequested(e) => json(e),
        Event::TurnStarted(e) => json(e),
        Event::TurnReleased(e) => json(e),
        Event::TurnModelReplied(e) => json(e),
        Event::TurnToolCalled(e) => json(e),
        Event::TurnToolReturned(e) => json(e),
        Event::TurnParked(e) => json(e),
        Event::TurnResumed(e) => json(e),
        Event::TurnCompleted(e) => json(e),
        Event::TurnFailed(e) => json(e),
        Event::TurnCancelled(e) => json(e),
        Event::Erased(_) | Event::Unreadable(_) => Bytes::from_static(b"{}"),
    }
}

/// Returns the event of a stored name after its payload was erased.
pub fn erased(name: &str) -> Result<Event, DecodeError> {
    let known = kind::ALL.iter().find(|kind| **kind == name);
    known.map(|kind| Event::Erased(kind)).ok_or_else(|| DecodeError::Type(name.to_string()))
}

/// Decodes the event with this stored name and payload.
pub fn decode_payload(name: &str, payload: &[u8]) -> Result<Event, DecodeError> {
    fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
        Ok(serde_json::from_slice(payload)?)
    }
    Ok(match name {
        kind::SESSION_OPENED => Event::SessionOpened(json(payload)?),
        kind::SESSION_IDENTIFIED => Event::SessionIdentified(json(payload)?),
        kind::CONVERSATION_RENAMED => Event::ConversationRenamed(json(payload)?),
        kind::TURN_REQUESTED => Event::TurnRequested(json(payload)?),
        kind::TURN_STARTED => Event::TurnStarted(json(payload)?),
        kind::TURN_RELEASED => Event::TurnReleased(json(payload)?),
        kind::TURN_MODEL_REPLIED => Event::TurnModelReplied(json(payload)?),
        kind::TURN_TOOL_CALLED => Event::TurnToolCalled(json(payload)?),
        kind::TURN_TOOL_RETURNED => Event::TurnToolReturned(json(payload)?),
        kind::TURN_PARKED => Event::TurnParked(json(payload)?),
        kind::TURN_RESUMED => Event::TurnResumed(json(payload)?),
        kind::TURN_COMPLETED => Event::TurnCompleted(json(payload)?),
        kind::TURN_FAILED => Event::TurnFailed(json(payload)?),
        kind::TURN_CANCELLED => Event::TurnCancelled(json(payload)?),
        other => return Err(DecodeError::Type(other.to_string())),
    })
}

/// The session record: proves a session and names its conversation, owner and participants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRecord {
    pub session: Uuid,
    pub org: String,
    pub conversation: Uuid,
    pub agent_id: String,
    /// The conversation's owner when the session was opened, see [`Conversation::owner`](crate::domain::Conversation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The address that was proved when the session was opened, in the form of owners: the session has the rights of that owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<String>,
    pub user: crate::domain::event::Participant,
    pub agent: crate::domain::event::Participant,
    pub created_at: DateTime<Utc>,
}
