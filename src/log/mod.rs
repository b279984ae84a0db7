//! The event log: appends with one winner, and reads.
//!
//! [`EventLog`] is the contract; [`jetstream_log::NatsLog`] implements it over JetStream, [`memory::MemoryLog`] in memory for
//! simulation. [`conversations::Conversations`] folds a conversation from it, [`objects::ObjectStore`] stores content that is too large
//! for an event, [`key_store::KeyStore`] encrypts payloads. One contract suite runs against both logs.

pub mod conversations;
pub mod jetstream_log;
pub mod key_store;
pub mod memory;
pub mod notes;
pub mod objects;

use std::future::Future;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{Digest, Event, RecordedEvent},
    nats::{AppendError, ReadError, ReadFrom},
    subjects::ConversationKey,
    wire::stored::EventEnvelope,
};

/// An event to append.
///
/// The `id` is the idempotency key: it is kept over retries of the same decision.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub id: String,
    pub source: String,
    pub time: DateTime<Utc>,
    /// Digest of the conversation's last event.
    pub prev_digest: Digest,
    pub event: Event,
}

impl NewEvent {
    /// Returns the subject on which the event is published.
    pub fn subject(&self, key: &ConversationKey) -> String {
        match self.event.pool() {
            Some(pool) => key.work_item(self.event.kind(), pool),
            None => key.event(self.event.kind()),
        }
    }

    /// Returns the envelope of this event after the event with sequence `prev`.
    pub fn envelope(&self, key: &ConversationKey, prev: u64) -> EventEnvelope {
        EventEnvelope {
            id: self.id.clone(),
            source: self.source.clone(),
            time: self.time,
            conversation: key.conversation,
            prev,
            prev_digest: Some(self.prev_digest),
        }
    }
}

/// A stored event with its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    pub envelope: EventEnvelope,
    /// The message has a link to the event before it; without one, `prev` is 0.
    pub is_linked: bool,
    /// Size of the stored payload.
    pub bytes: usize,
    pub recorded: RecordedEvent,
}

/// Sequence and digest of an appended event, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReceipt {
    pub seq: u64,
    pub digest: Digest,
}

/// The classes of a conversation's content that are erased. A fold made under another standing is no longer valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureState {
    pub said_erased: bool,
    pub tools_erased: bool,
}

/// An append-only log of conversations.
pub trait EventLog: Send + Sync + 'static {
    /// Appends one event as the conversation's last, if `expected` is the sequence of its current last event (0: none).
    ///
    /// Of several appends with the same `expected`, one wins. An append with a lost ack is recognised by its id and counts
    /// as won.
    fn append(
        &self,
        key: &ConversationKey,
        expected: u64,
        event: &NewEvent,
    ) -> impl Future<Output = Result<AppendReceipt, AppendError>> + Send;

    /// Returns the conversation's last event.
    fn last(
        &self,
        key: &ConversationKey,
        via: ReadFrom,
    ) -> impl Future<Output = Result<Option<StoredEvent>, ReadError>> + Send;

    /// Returns the conversation's event with this sequence; `None` if the answering copy lacks it.
    fn at(
        &self,
        key: &ConversationKey,
        seq: u64,
        via: ReadFrom,
    ) -> impl Future<Output = Result<Option<StoredEvent>, ReadError>> + Send;

    /// Returns the conversation's next events after this sequence in stream order, and whether there are more.
    ///
    /// The links between the events are ignored. The cost is a read of the stream from there on, so this is for broken or
    /// very long chains.
    fn after(
        &self,
        key: &ConversationKey,
        seq: u64,
    ) -> impl Future<Output = Result<(Vec<StoredEvent>, bool), ReadError>> + Send;

    /// Returns the erased classes of the conversation.
    fn erasure_state(&self, _key: &ConversationKey) -> impl Future<Output = Result<ErasureState, ReadError>> + Send {
        std::future::ready(Ok(ErasureState::default()))
    }

    /// Returns the server's time, which decides whether an event came too late.
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
