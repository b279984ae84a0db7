//! Stored messages with what auditors may see of them, whatever they hold.

use super::open::Opener;
use crate::{
    domain::{Digest, Event},
    log::{ReadError, Stored, nats::RawMessage},
    wire::stored,
};

/// A stored message as it is shown.
pub struct Seen {
    /// With its payload in the clear where it can be, and without what is redacted.
    pub raw: RawMessage,
    /// Of the message as it is stored.
    pub digest: Digest,
    /// The event in it, or why it is none. A record that holds something unreadable is still shown.
    pub event: Result<Stored, String>,
}

impl Seen {
    /// The payload's key was destroyed, and the payload is as it is stored.
    pub fn is_erased(&self) -> bool {
        self.event.as_ref().is_ok_and(|stored| matches!(stored.recorded.event, Event::Erased(_)))
    }
}

/// What may be seen of some messages.
pub async fn see(opener: &Opener, messages: Vec<RawMessage>) -> Result<Vec<Seen>, ReadError> {
    let mut seen = Vec::with_capacity(messages.len());
    for message in messages {
        let digest = digest_of(&message);
        seen.push(match opener.open(message.clone()).await {
            Ok(opened) => match &opened.stored.recorded.event {
                Event::Unreadable(e) => Seen { raw: opened.message, digest, event: Err(e.detail.clone()) },
                _ => Seen { raw: opened.message, digest, event: Ok(opened.stored) },
            },
            Err(error) => return Err(error),
        });
    }
    Ok(seen)
}

/// The digest of a message as it is stored.
pub fn digest_of(message: &RawMessage) -> Digest {
    stored::digest(&message.subject, |name| message.headers.get(name).map(String::as_str), &message.payload)
}
