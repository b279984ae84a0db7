//! Stored messages as auditors may see them, readable or not.

use super::event_reader::EventReader;
use crate::{
    domain::{Digest, Event},
    log::StoredEvent,
    nats::{ReadError, jetstream::RawMessage},
    wire::stored,
};

pub struct MessageView {
    /// The message, with its payload decrypted where the key still exists, and redacted.
    pub raw: RawMessage,
    /// Digest of the message as stored.
    pub digest: Digest,
    /// The event, or the reason why the message holds none. Unreadable records are still shown.
    pub event: Result<StoredEvent, String>,
}

impl MessageView {
    /// Returns true if the payload's key was destroyed; the payload is as stored.
    pub fn is_erased(&self) -> bool {
        self.event.as_ref().is_ok_and(|stored| matches!(stored.recorded.event, Event::Erased(_)))
    }
}

/// Decrypts and redacts messages.
pub async fn view_messages(
    event_reader: &EventReader,
    messages: Vec<RawMessage>,
) -> Result<Vec<MessageView>, ReadError> {
    let mut seen = Vec::with_capacity(messages.len());
    for message in messages {
        let digest = digest_of(&message);
        seen.push(match event_reader.read(message.clone()).await {
            Ok(opened) => match &opened.stored.recorded.event {
                Event::Unreadable(e) => MessageView { raw: opened.message, digest, event: Err(e.detail.clone()) },
                _ => MessageView { raw: opened.message, digest, event: Ok(opened.stored) },
            },
            Err(error) => return Err(error),
        });
    }
    Ok(seen)
}

/// Returns the digest of a message as stored.
pub fn digest_of(message: &RawMessage) -> Digest {
    stored::digest(&message.subject, |name| message.headers.get(name).map(String::as_str), &message.payload)
}
