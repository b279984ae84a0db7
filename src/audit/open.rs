//! Stored events as auditors are shown them: opened where they are sealed, and without what an operator has redacted.

use serde_json::Value;

use super::redact::Redaction;
use crate::log::{
    ReadError, Stored,
    nats::{NatsLog, RawMessage},
};

/// Opens events.
#[derive(Clone)]
pub struct Opener {
    log: NatsLog,
    redaction: Redaction,
}

/// An event, and the message that holds it, its payload in the clear. What was erased is as it is stored.
pub struct Opened {
    pub stored: Stored,
    pub message: RawMessage,
}

impl Opener {
    pub fn new(log: NatsLog, redaction: Redaction) -> Self {
        Self { log, redaction }
    }

    pub async fn open(&self, message: RawMessage) -> Result<Opened, ReadError> {
        let mut stored = self.log.decode(message.clone()).await?;
        let mut opened = self.log.opened(message.clone()).await?.unwrap_or(message);
        let kind = stored.recorded.event.kind();
        stored.recorded.event = self.redaction.event(stored.recorded.event);
        if let Ok(payload) = serde_json::from_slice::<Value>(&opened.payload) {
            opened.payload = self.redaction.payload(kind, payload).to_string().into();
        }
        Ok(Opened { stored, message: opened })
    }
}
