//! The event log in memory, for simulation: the same contract without a server.

use std::sync::Mutex;

use chrono::Utc;

use super::{AppendReceipt, EventLog, NewEvent, StoredEvent};
use crate::{
    domain::RecordedEvent,
    limits,
    nats::{AppendError, ReadError, ReadFrom},
    subjects::ConversationKey,
    wire::stored,
};

/// The events of all conversations in one sequence.
#[derive(Default)]
pub struct MemoryLog {
    events: Mutex<Vec<(ConversationKey, StoredEvent)>>,
}

impl MemoryLog {
    fn find(&self, matches: impl Fn(&(ConversationKey, StoredEvent)) -> bool) -> Option<StoredEvent> {
        let events = self.events.lock().expect("no panic happens under this lock");
        events.iter().rev().find(|entry| matches(entry)).map(|(_, stored)| stored.clone())
    }
}

impl EventLog for MemoryLog {
    async fn append(
        &self,
        key: &ConversationKey,
        expected: u64,
        event: &NewEvent,
    ) -> Result<AppendReceipt, AppendError> {
        let bytes = stored::encode_payload(&event.event).len();
        if bytes > limits::EVENT_MAX_BYTES {
            return Err(AppendError::TooLarge { max: limits::EVENT_MAX_BYTES });
        }
        let mut events = self.events.lock().expect("no panic happens under this lock");
        if events.iter().any(|(_, stored)| stored.envelope.id == event.id) {
            return Err(AppendError::Duplicate);
        }
        let last = events.iter().rev().find(|(k, _)| k == key).map_or(0, |(_, stored)| stored.recorded.seq);
        if last != expected {
            return Err(AppendError::Conflict);
        }
        let seq = events.len() as u64 + 1;
        let envelope = event.envelope(key, expected);
        let digest = envelope.digest(&event.subject(key), &event.event);
        let recorded =
            RecordedEvent { seq, time: event.time, stored_at: Utc::now(), digest, event: event.event.clone() };
        events.push((key.clone(), StoredEvent { envelope, is_linked: true, bytes, recorded }));
        Ok(AppendReceipt { seq, digest })
    }

    async fn last(&self, key: &ConversationKey, _via: ReadFrom) -> Result<Option<StoredEvent>, ReadError> {
        Ok(self.find(|(k, _)| k == key))
    }

    async fn at(&self, key: &ConversationKey, seq: u64, _via: ReadFrom) -> Result<Option<StoredEvent>, ReadError> {
        Ok(self.find(|(k, stored)| k == key && stored.recorded.seq == seq))
    }

    async fn after(&self, key: &ConversationKey, seq: u64) -> Result<(Vec<StoredEvent>, bool), ReadError> {
        let events = self.events.lock().expect("no panic happens under this lock");
        let mut later =
            events.iter().filter(|(k, s)| k == key && s.recorded.seq > seq).map(|(_, stored)| stored.clone());
        let found = later.by_ref().take(limits::READ_BATCH).collect();
        Ok((found, later.next().is_some()))
    }
}
