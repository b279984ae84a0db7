//! The external formats of events: as stored, and as CloudEvents.

use std::collections::HashSet;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{domain::Event, nats::jetstream::RawMessage, wire::stored};

/// A point in the log at which a replay begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplayPoint {
    Seq(u64),
    Time(DateTime<Utc>),
}

impl std::str::FromStr for ReplayPoint {
    type Err = String;

    /// Parses a sequence or an RFC 3339 time.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(seq));
        }
        let time = DateTime::parse_from_rfc3339(text);
        time.map(|time| Self::Time(time.to_utc())).map_err(|_| "neither a sequence nor a time in RFC 3339".into())
    }
}

impl std::fmt::Display for ReplayPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seq(seq) => write!(f, "{seq}"),
            Self::Time(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}

impl ReplayPoint {
    /// Returns true if the event is at or before the point.
    pub fn ends_with(&self, message: &RawMessage) -> bool {
        match self {
            Self::Seq(seq) => message.seq <= *seq,
            Self::Time(time) => message.stored_at <= *time,
        }
    }

    /// Returns true if the event is at or after the point.
    pub fn begins_with(&self, message: &RawMessage) -> bool {
        match self {
            Self::Seq(seq) => message.seq >= *seq,
            Self::Time(time) => message.stored_at >= *time,
        }
    }
}

/// Selects the events of a session: its own, and those of the turns it requested.
pub struct SessionFilter {
    session: Uuid,
    turns: HashSet<Uuid>,
}

impl SessionFilter {
    pub fn new(session: Uuid) -> Self {
        Self { session, turns: HashSet::new() }
    }

    /// Returns true if the next event belongs to the session.
    pub fn includes(&mut self, event: &Event) -> bool {
        match event {
            Event::SessionOpened(e) => e.session == self.session,
            Event::SessionIdentified(e) => e.session == self.session,
            Event::ConversationRenamed(e) => e.by == Some(self.session),
            Event::TurnRequested(e) if e.session == self.session => self.turns.insert(e.turn),
            event => event.turn().is_some_and(|turn| self.turns.contains(&turn)),
        }
    }
}

/// Serializes a state in its canonical form, the same on every machine.
pub fn canonical(state: &impl Serialize) -> serde_json::Result<String> {
    // A `Value` sorts its keys; a type's keys are in the order of its fields.
    serde_json::to_string_pretty(&serde_json::to_value(state)?)
}

/// Returns a stored message with all its content.
pub fn raw(message: &RawMessage) -> Value {
    let headers: Map<String, Value> =
        message.headers.iter().filter(|(name, _)| is_of_event(name)).map(|(k, v)| (k.clone(), json!(v))).collect();
    json!({
        "seq": message.seq,
        "storedAt": message.stored_at.to_rfc3339_opts(SecondsFormat::Nanos, true),
        "subject": message.subject,
        "headers": headers,
        "payload": payload(message),
    })
}

/// Returns the event as a CloudEvent in structured mode.
pub fn cloud_event(message: &RawMessage) -> Value {
    let mut event = Map::new();
    for (name, value) in &message.headers {
        if let Some(attribute) = name.strip_prefix("ce-") {
            event.insert(attribute.to_string(), json!(value));
        }
    }
    event.insert("datacontenttype".into(), json!("application/json"));
    event.insert("sequence".into(), json!(message.seq.to_string()));
    event.insert("data".into(), payload(message));
    Value::Object(event)
}

fn payload(message: &RawMessage) -> Value {
    serde_json::from_slice(&message.payload).unwrap_or_else(|_| json!(String::from_utf8_lossy(&message.payload)))
}

/// Returns true for headers set by the event's writer; the server adds others on delivery.
fn is_of_event(name: &str) -> bool {
    name.starts_with("ce-") || [stored::MSG_ID, stored::CONTENT_TYPE].contains(&name)
}
