//! Events and states in the form that the viewer and other programs read.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    changes::{Change, changes},
    formats,
    message_view::MessageView,
    swim_lanes::{SwimLane, lane_of},
    timeline,
};
use crate::{domain::Conversation, wire::stored};

/// An event with its envelope.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    pub seq: u64,
    /// The writer's time; for an event without one, the time of storing.
    pub time: DateTime<Utc>,
    pub stored_at: DateTime<Utc>,
    pub kind: String,
    pub lane: SwimLane,
    /// A description in one line.
    pub words: String,
    /// The writer: its kind, region and id.
    pub source: String,
    pub turn: Option<Uuid>,
    /// SHA-256 of the event as stored. The next event of the conversation carries it.
    pub digest: String,
    pub subject: String,
    /// Headers set by the writer.
    pub headers: Map<String, Value>,
    pub payload: Value,
    /// The content was erased, and the payload is as stored: encrypted.
    pub is_erased: bool,
    /// The reason why the message is not an event.
    pub problem: Option<String>,
}

impl From<&MessageView> for EventView {
    fn from(seen: &MessageView) -> Self {
        let MessageView { raw, digest, event } = seen;
        let header = |name: &str| raw.headers.get(name).cloned().unwrap_or_default();
        let kind = header(stored::CE_TYPE);
        let kind = kind.strip_prefix(stored::TYPE_PREFIX).unwrap_or(&kind);
        let (words, turn, time) = match event {
            Ok(stored) => {
                let recorded = &stored.recorded;
                (timeline::words(&recorded.event), recorded.event.turn(), recorded.time)
            }
            Err(problem) => (format!("not an event: {problem}"), None, raw.stored_at),
        };
        let mut form = formats::raw(raw);
        let headers = form["headers"].as_object_mut().map(std::mem::take).unwrap_or_default();
        Self {
            seq: raw.seq,
            time,
            stored_at: raw.stored_at,
            kind: kind.into(),
            lane: lane_of(kind),
            words,
            source: header(stored::CE_SOURCE),
            turn,
            digest: digest.to_string(),
            subject: raw.subject.clone(),
            headers,
            payload: form["payload"].take(),
            is_erased: seen.is_erased(),
            problem: event.as_ref().err().cloned(),
        }
    }
}

/// A state and the changes of each event after it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "States")]
pub struct StateHistory {
    /// The state before the first of these events.
    #[schemars(with = "Map<String, Value>")]
    pub base: Value,
    pub steps: Vec<StateStep>,
}

/// The changes of one event.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateStep {
    pub seq: u64,
    /// A JSON Patch from the state before the event to the one after it, with the old values.
    pub changes: Vec<Change>,
}

/// Returns the states from a sequence on.
///
/// `events` are all events of the conversation up to the last one wanted.
pub fn states(events: &[MessageView], from: u64) -> StateHistory {
    let mut state = Conversation::default();
    let (mut before, mut steps, mut base) = (json!(state), Vec::new(), None);
    for seen in events {
        // Messages that are not events change nothing.
        let Ok(stored) = &seen.event else { continue };
        if stored.recorded.seq < from {
            state.evolve(&stored.recorded);
            continue;
        }
        if base.is_none() {
            before = json!(state);
            base = Some(before.clone());
        }
        state.evolve(&stored.recorded);
        let after = json!(state);
        steps.push(StateStep { seq: stored.recorded.seq, changes: changes(&before, &after) });
        before = after;
    }
    StateHistory { base: base.unwrap_or(json!(state)), steps }
}

/// The result of following a conversation's chain of digests.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Chain")]
pub struct ChainVerification {
    /// Every event follows from the one before it.
    pub is_intact: bool,
    pub events: u64,
    /// Events from before there were digests; only their order is checked.
    pub without_digest: u64,
    /// The number of events that do not follow, and the first of them.
    pub broken: u64,
    pub first_broken: Option<u64>,
    pub problem: Option<String>,
    pub last_seq: u64,
    /// Digest of the last event. A reader who keeps it can tell later that nothing up to that event was changed.
    pub last_digest: String,
}
