//! The ground floor: NATS and JetStream, in the forms that the product uses.
//!
//! - [`core`]: requests, publishes, subscriptions.   - [`connection`]: one connection a process, with its state and refusals visible.   - [`clock`]: the server's clock.
//! - [`jetstream`]: publishes with their outcome, reads of single messages.   - [`direct_get`]: many messages in one request.
//! - [`work_queue`]: pulls from durable consumers.   - [`count`]: counts without reading.   - [`counters`]: shared numbers.
//! - [`gauges`]: metrics of streams and consumers.
//! - [`marks`]: streams that can't be rebuilt, and the mark of them.   - [`lost`]: those that a deployment had and has no more.
//! - [`presence`]: advertisements of processes.   - [`streams`]: definitions, applied and compared.   - [`backoff`]: pauses between tries.

pub mod backoff;
pub mod clock;
pub mod connection;
pub mod core;
pub mod count;
pub mod counters;
pub mod direct_get;
mod gauges;
pub mod jetstream;
pub mod lost;
pub mod marks;
pub mod presence;
pub mod streams;
pub mod work_queue;

use uuid::Uuid;

/// Base name of the stream of conversations.
pub const CHAT: &str = "CHAT";

/// The copy of the log that answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Any replica: fast, and may lag behind.
    Replica,
    /// The stream's leader: never stale.
    Leader,
}

/// The reason why an append failed, or may have failed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The conversation has another last event than expected. Nothing was written.
    #[error("the conversation has moved on")]
    Conflict,
    /// An event with this id was appended before, perhaps by another process. Nothing was written now.
    #[error("this event was appended before")]
    Duplicate,
    /// The event exceeds the size limit. Nothing was written.
    #[error("the event is larger than {max} bytes")]
    TooLarge { max: usize },
    /// The conversation was erased and accepts no events. Nothing was written.
    #[error("the conversation was erased")]
    Erased,
    /// The log did not answer in time. The event may be stored, or may still arrive.
    #[error("the log did not answer: {0}")]
    Unavailable(String),
}

/// The reason why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log did not answer: {0}")]
    Unavailable(String),
    /// The payload is encrypted and this process can't decrypt it.
    #[error("encrypted: {0}")]
    Encrypted(String),
    /// The key is missing: it is being destroyed, or was never written.
    #[error("the log did not answer: the key of {0} is missing")]
    NoKey(Uuid),
}

impl ReadError {
    /// Returns whether the cause lies in this conversation, so that others are still readable.
    pub fn is_of_conversation(&self) -> bool {
        matches!(self, Self::Encrypted(_) | Self::NoKey(_))
    }
}
