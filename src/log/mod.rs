//! The event log: append with one winner, read what is there.
//!
//! [`EventLog`] is the contract; [`nats::NatsLog`] keeps it over JetStream, [`memory::MemoryLog`] in memory for simulation.
//! [`load::Conversations`] folds a conversation from it, [`objects::Objects`] keeps what is too large
//! for an event, [`keys::Keys`] seals payloads. One contract suite runs against both logs.

pub mod backoff;
pub mod batch;
pub mod bus;
pub mod clock;
pub mod count;
pub mod counters;
pub mod keys;
pub mod load;
pub mod memory;
pub mod nats;
pub mod notes;
pub mod objects;
pub mod presence;
pub mod pull;
pub mod streams;

use std::future::Future;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    domain::{Digest, Event, Recorded},
    subjects::ConversationKey,
    wire::stored::Envelope,
};

/// An event to append: `id` is kept over retries of the same decision.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub id: String,
    pub source: String,
    pub time: DateTime<Utc>,
    /// Of the conversation's last event.
    pub prev_digest: Digest,
    pub event: Event,
}

impl NewEvent {
    /// Where the event is published.
    pub fn subject(&self, key: &ConversationKey) -> String {
        match self.event.pool() {
            Some(pool) => key.work_item(self.event.kind(), pool),
            None => key.event(self.event.kind()),
        }
    }

    /// The envelope of the event after the one with this sequence.
    pub fn envelope(&self, key: &ConversationKey, prev: u64) -> Envelope {
        Envelope {
            id: self.id.clone(),
            source: self.source.clone(),
            time: self.time,
            conversation: key.conversation,
            prev,
            prev_digest: Some(self.prev_digest),
        }
    }
}

/// An event as the log holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub envelope: Envelope,
    /// Whether it says which event is before it. One that does not has 0 there.
    pub is_linked: bool,
    /// Of its payload, as it is stored.
    pub bytes: usize,
    pub recorded: Recorded,
}

/// Where an event was appended, and its digest as it is stored there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub seq: u64,
    pub digest: Digest,
}

/// What of a conversation was erased: what was read before that counts no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub said_erased: bool,
    pub tools_erased: bool,
}

/// Which copy of the log answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Any replica: fast, and may lag behind.
    Replica,
    /// The stream's leader: never stale.
    Leader,
}

/// Why an append did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The conversation has another last event than expected. Nothing was written.
    #[error("the conversation has moved on")]
    Conflict,
    /// The same event id was appended before, perhaps from elsewhere. Nothing was written now.
    #[error("this event was appended before")]
    Duplicate,
    /// The event exceeds the size limit. Nothing was written.
    #[error("the event is larger than {max} bytes")]
    TooLarge { max: usize },
    /// The conversation was erased, and nothing can be added to it. Nothing was written.
    #[error("the conversation was erased")]
    Erased,
    /// The log did not answer in time. The event may be written, or still come.
    #[error("the log did not answer: {0}")]
    Unavailable(String),
}

/// Why a read gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log did not answer: {0}")]
    Unavailable(String),
    /// It is there, and this process can't open it.
    #[error("sealed: {0}")]
    Sealed(String),
    /// The key is not there: it is being destroyed, or it never was.
    #[error("the log did not answer: the key of {0} is not there")]
    NoKey(Uuid),
}

impl ReadError {
    /// Whether the reason lies in the conversation, so that others can be read all the same.
    pub fn is_of_conversation(&self) -> bool {
        matches!(self, Self::Sealed(_) | Self::NoKey(_))
    }
}

/// An append-only log of conversations.
pub trait EventLog: Send + Sync + 'static {
    /// Appends one event; it becomes the conversation's last, if `expected` is the sequence of its last one now (0: none).
    ///
    /// Of several appends with the same `expected`, one wins. An append whose ack was lost is
    /// recognised by its id and counts as won.
    fn append(
        &self,
        key: &ConversationKey,
        expected: u64,
        event: &NewEvent,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// The conversation's last event.
    fn last(&self, key: &ConversationKey, via: Via) -> impl Future<Output = Result<Option<Stored>, ReadError>> + Send;

    /// The conversation's event with this sequence; `None` when the answering copy does not have it.
    fn at(
        &self,
        key: &ConversationKey,
        seq: u64,
        via: Via,
    ) -> impl Future<Output = Result<Option<Stored>, ReadError>> + Send;

    /// The conversation's next events after this sequence, in the order of the log, whatever they say of each other, and whether
    /// there are more. Costs a read of the log from there on, so it is for chains that are broken or very long.
    fn after(
        &self,
        key: &ConversationKey,
        seq: u64,
    ) -> impl Future<Output = Result<(Vec<Stored>, bool), ReadError>> + Send;

    /// What of the conversation was erased.
    fn standing(&self, _key: &ConversationKey) -> impl Future<Output = Result<Standing, ReadError>> + Send {
        std::future::ready(Ok(Standing::default()))
    }

    /// The log's time, which judges what came too late.
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
