//! Reads the stream of knowledge from any sequence on, in batches, by direct get: no consumer that could be lost.

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Duration, timeout};

use super::store::KNOWLEDGE;
use crate::{limits, nats::connection::soon, subjects};

/// The messages of one request, and their bytes.
const BATCH: usize = 1_000;
const BATCH_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The reason why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeReadError {
    #[error("the knowledge can't be read: {0}")]
    Unavailable(String),
}

/// A message of the stream.
pub struct KnowledgeMessage {
    pub seq: u64,
    pub subject: String,
    pub payload: Bytes,
}

/// Some messages in the order of the stream.
pub struct KnowledgeBatch {
    pub messages: Vec<KnowledgeMessage>,
    /// The stream has no more messages now.
    pub is_last: bool,
}

/// A position in the stream.
pub struct KnowledgeCursor {
    client: Client,
    filter: String,
    from: u64,
}

impl KnowledgeCursor {
    /// Creates a reading from the beginning, of the subjects that match `filter`.
    pub fn new(client: Client, filter: String) -> Self {
        Self { client, filter, from: 1 }
    }

    /// Goes back to the beginning.
    pub fn restart(&mut self) {
        self.from = 1;
    }

    /// Returns the sequence up to which everything was read.
    pub fn read_to(&self) -> u64 {
        self.from - 1
    }

    /// Returns the next messages. An incomplete batch is read again.
    pub async fn next(&mut self) -> Result<KnowledgeBatch, KnowledgeReadError> {
        let batch = self.read().await?;
        if let Some(last) = batch.messages.last() {
            self.from = last.seq + 1;
        }
        Ok(batch)
    }

    async fn read(&self) -> Result<KnowledgeBatch, KnowledgeReadError> {
        let unavailable = |cause: &dyn std::fmt::Display| KnowledgeReadError::Unavailable(cause.to_string());
        let inbox = self.client.new_inbox();
        let mut answers = soon(self.client.subscribe(inbox.clone())).await.map_err(|error| unavailable(&error))?;
        let query =
            json!({ "batch": BATCH, "max_bytes": BATCH_MAX_BYTES, "seq": self.from, "next_by_subj": self.filter });
        let (subject, query) = (subjects::direct_get(KNOWLEDGE), query.to_string());
        let asked = soon(self.client.publish_with_reply(subject, inbox, query.into())).await;
        asked.map_err(|error| unavailable(&error))?;
        let mut messages: Vec<KnowledgeMessage> = Vec::new();
        // A server that dies loses its answers, so each of them has a short timeout.
        let each = Duration::from_millis(limits::READ_TRY_MS);
        while let Some(message) = timeout(each, answers.next()).await.map_err(|_| unavailable(&"no answer in time"))? {
            let header = |name: &str| message.headers.as_ref().and_then(|h| h.get(name)).map(|value| value.as_str());
            match message.status.map(|status| status.as_u16()) {
                // The end of the batch, with the number of messages left.
                Some(204) => {
                    let is_last = header("Nats-Num-Pending").is_some_and(|pending| pending == "0");
                    return Ok(KnowledgeBatch { messages, is_last });
                }
                Some(404) => return Ok(KnowledgeBatch { messages, is_last: true }),
                Some(status) => return Err(unavailable(&format!("status {status}"))),
                None => {}
            }
            let seq = header("Nats-Sequence").and_then(|seq| seq.parse().ok());
            let subject = header("Nats-Subject").map(str::to_string);
            let (Some(seq), Some(subject)) = (seq, subject) else {
                return Err(unavailable(&"the answer is malformed"));
            };
            messages.push(KnowledgeMessage { seq, subject, payload: message.payload });
        }
        Err(unavailable(&"the connection ended"))
    }
}
