//! Stored events for auditors: decrypted where the key still exists, and redacted.

use std::sync::{Arc, Mutex};

use moka::sync::Cache;

use super::redact::{HiddenValues, Redaction};
use crate::{
    log::{StoredEvent, jetstream_log::NatsLog},
    nats::{ReadError, jetstream::RawMessage},
    subjects::ConversationKey,
    wire::stored,
};

/// Conversations for which one reader remembers hidden values at once.
const CONVERSATIONS: u64 = 10_000;

/// Decrypts and redacts events.
#[derive(Clone)]
pub struct EventReader {
    log: NatsLog,
    redaction: Redaction,
    /// Values hidden in each conversation so far. Events must come in their order.
    hidden: Cache<ConversationKey, Arc<Mutex<HiddenValues>>>,
}

/// An event and its message with a clear payload. An erased payload stays as it is stored.
pub struct ReadableEvent {
    pub stored: StoredEvent,
    pub message: RawMessage,
}

impl EventReader {
    pub fn new(log: NatsLog, redaction: Redaction) -> Self {
        Self { log, redaction, hidden: Cache::new(CONVERSATIONS) }
    }

    pub async fn read(&self, message: RawMessage) -> Result<ReadableEvent, ReadError> {
        let mut stored = self.log.decode(message.clone()).await?;
        let mut opened = self.log.decrypted(message.clone()).await?.unwrap_or(message);
        if let Some(key) = ConversationKey::parse_event(&opened.subject).filter(|_| !self.redaction.is_empty()) {
            let hidden = self.hidden.get_with(key, Arc::default);
            let mut hidden = hidden.lock().expect("no panic happens under this lock");
            let shown = self.redaction.event(stored.recorded.event.clone(), &mut hidden);
            if shown != stored.recorded.event {
                opened.payload = stored::encode_payload(&shown);
                stored.recorded.event = shown;
            }
        }
        Ok(ReadableEvent { stored, message: opened })
    }
}
