//! Stored messages with what can be read of them.

use crate::{
    domain::Digest,
    log::{
        ReadError, Stored,
        nats::{NatsLog, RawMessage},
    },
    wire::stored,
};

/// A stored message, opened.
pub struct Opened {
    /// As it is stored, but with its payload in the clear where it can be.
    pub raw: RawMessage,
    /// Of the message as it is stored.
    pub digest: Digest,
    /// The event in it, or why it is none. A record that holds something unreadable is still shown.
    pub event: Result<Stored, String>,
    /// The payload's key was destroyed.
    pub is_erased: bool,
}

/// Opens some messages.
pub async fn open(log: &NatsLog, messages: Vec<RawMessage>) -> Result<Vec<Opened>, ReadError> {
    let mut opened = Vec::with_capacity(messages.len());
    for message in messages {
        let header = |name: &str| message.headers.get(name).map(String::as_str);
        let digest = stored::digest(&message.subject, header, &message.payload);
        let event = match log.decode(message.clone()).await {
            Ok(stored) => Ok(stored),
            Err(ReadError::Malformed { cause, .. }) => Err(cause.to_string()),
            Err(error) => return Err(error),
        };
        let clear = log.opened(message.clone()).await?;
        let is_erased = clear.is_none();
        opened.push(Opened { raw: clear.unwrap_or(message), digest, event, is_erased });
    }
    Ok(opened)
}
