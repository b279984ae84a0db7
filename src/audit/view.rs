//! Events and states as the viewer and other programs read them.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    changes::{Change, changes},
    lanes::{Lane, lane_of},
    replay,
    seen::{Seen, digest_of},
    timeline,
    verify::Verifier,
};
use crate::{domain::Conversation, log::nats::RawMessage, wire::stored};

/// An event with all that is known of it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    pub seq: u64,
    /// When its writer made it; when the log took it, if it does not say.
    pub time: DateTime<Utc>,
    pub stored_at: DateTime<Utc>,
    pub kind: String,
    pub lane: Lane,
    /// What happened, in one line.
    pub words: String,
    /// Who wrote it: what of which region, and its id.
    pub source: String,
    pub turn: Option<Uuid>,
    /// SHA-256 of the event as it is stored, which the next one of the conversation carries.
    pub digest: String,
    pub subject: String,
    /// Those that its writer set.
    pub headers: Map<String, Value>,
    pub payload: Value,
    /// Its content was erased, and the payload is as it is stored: sealed.
    pub is_erased: bool,
    /// Why it is no event, if it is none.
    pub problem: Option<String>,
}

impl From<&Seen> for EventView {
    fn from(seen: &Seen) -> Self {
        let Seen { raw, digest, event } = seen;
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
        let mut form = replay::raw(raw);
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

/// A state, and what each event after it changed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct States {
    /// The state before the first of these events.
    #[schemars(with = "Map<String, Value>")]
    pub base: Value,
    pub steps: Vec<StateStep>,
}

/// What one event changed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateStep {
    pub seq: u64,
    /// A JSON Patch that makes the state before the event the one after it, with what was there before.
    pub changes: Vec<Change>,
}

/// The states along the events from a sequence on; `events` are all of the conversation up to the last of them.
pub fn states(events: &[Seen], from: u64) -> States {
    let mut state = Conversation::default();
    let (mut before, mut steps, mut base) = (json!(state), Vec::new(), None);
    for seen in events {
        // What is no event changes nothing.
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
    States { base: base.unwrap_or(json!(state)), steps }
}

/// The result of following a conversation's chain of digests.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chain {
    /// Every event follows from the one before it.
    pub is_intact: bool,
    pub events: u64,
    /// Events from before there were digests; only their order is held to.
    pub without_digest: u64,
    /// How many events do not follow, and the first of them.
    pub broken: u64,
    pub first_broken: Option<u64>,
    pub problem: Option<String>,
    pub last_seq: u64,
    /// Of the last event: whoever keeps it can tell later that nothing up to there was changed.
    pub last_digest: String,
}

/// Follows the chain of a whole conversation.
pub fn follow(messages: &[RawMessage]) -> Chain {
    let mut verifier = Verifier::default();
    messages.iter().for_each(|message| verifier.take(message));
    let report = verifier.report;
    Chain {
        is_intact: report.broken == 0,
        events: report.events,
        without_digest: report.without_digest,
        broken: report.broken,
        first_broken: report.first.as_ref().map(|first| first.seq),
        problem: report.first.map(|first| first.problem),
        last_seq: messages.last().map_or(0, |last| last.seq),
        last_digest: messages.last().map(digest_of).unwrap_or_default().to_string(),
    }
}
