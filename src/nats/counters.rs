//! Counters shared by all processes: one number per subject of the stream COUNTERS, incremented by the server.

use async_nats::{HeaderMap, header};

use super::{
    AppendError, ReadError,
    backoff::Backoff,
    direct_get::LastMessages,
    jetstream::{JetStream, PublishOutcome, RawMessage},
};
use crate::limits;

/// Name of the stream of counters.
pub const COUNTERS: &str = "COUNTERS";

impl JetStream {
    /// Adds to a counter and returns its new value.
    ///
    /// Additions under the same `id` within two minutes are applied once; the value is then unknown (`None`).
    pub async fn count(&self, subject: &str, add: i64, id: &str) -> Result<Option<i64>, AppendError> {
        let mut backoff = Backoff::new(limits::APPEND_DEADLINE_MS);
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_ID, id);
            headers.insert("Nats-Incr", format!("{add:+}"));
            match self.publish(subject, headers, "".into()).await {
                PublishOutcome::Stored { counter, .. } => return Ok(counter),
                PublishOutcome::Duplicate | PublishOutcome::Conflict => return Ok(None),
                PublishOutcome::Again(_) if backoff.pause().await => {}
                PublishOutcome::Again(cause) => return Err(AppendError::Unavailable(cause)),
            }
        }
    }

    /// Returns the matching counters, each with its subject and value.
    pub async fn counted(&self, subject: &str) -> Result<Vec<(String, i64)>, ReadError> {
        match self.last_of(COUNTERS, &[subject.to_string()]).await? {
            LastMessages::All(messages) => Ok(messages.into_iter().filter_map(value).collect()),
            LastMessages::TooMany => Err(ReadError::Unavailable(format!("too many counters fit {subject}"))),
        }
    }
}

fn value(message: RawMessage) -> Option<(String, i64)> {
    let counter: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
    Some((message.subject, counter["val"].as_str()?.parse().ok()?))
}
