//! Stored events as auditors are shown them: opened where they are sealed, and without what an operator has redacted.

use std::sync::{Arc, Mutex};

use moka::sync::Cache;

use super::redact::{Hidden, Redaction};
use crate::{
    log::{
        ReadError, Stored,
        nats::{NatsLog, RawMessage},
    },
    subjects::ConversationKey,
    wire::stored,
};

/// Conversations whose hidden values one reader remembers at once.
const CONVERSATIONS: u64 = 10_000;

/// Opens events.
#[derive(Clone)]
pub struct Opener {
    log: NatsLog,
    redaction: Redaction,
    /// What was hidden in each conversation so far, as its events come in their order.
    hidden: Cache<ConversationKey, Arc<Mutex<Hidden>>>,
}

/// An event, and the message that holds it, its payload in the clear. What was erased is as it is stored.
pub struct Opened {
    pub stored: Stored,
    pub message: RawMessage,
}

impl Opener {
    pub fn new(log: NatsLog, redaction: Redaction) -> Self {
        Self { log, redaction, hidden: Cache::new(CONVERSATIONS) }
    }

    pub async fn open(&self, message: RawMessage) -> Result<Opened, ReadError> {
        let mut stored = self.log.decode(message.clone()).await?;
        let mut opened = self.log.opened(message.clone()).await?.unwrap_or(message);
        if let Some(key) = ConversationKey::parse_event(&opened.subject).filter(|_| !self.redaction.is_empty()) {
            let hidden = self.hidden.get_with(key, Arc::default);
            let mut hidden = hidden.lock().expect("no panic happens under this lock");
            let shown = self.redaction.event(stored.recorded.event.clone(), &mut hidden);
            if shown != stored.recorded.event {
                opened.payload = stored::encode_payload(&shown);
                stored.recorded.event = shown;
            }
        }
        Ok(Opened { stored, message: opened })
    }
}
