//! Reads the stream of knowledge from any sequence on, in batches, by direct get: no consumer that could be lost.

use crate::nats::{
    core::Client,
    direct_get::BatchBounds,
    jetstream::{JetStream, RawMessage},
};

/// The bounds of one request.
const BOUNDS: BatchBounds = BatchBounds { messages: 1_000, bytes: Some(4 * 1024 * 1024) };

/// The reason why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeReadError {
    #[error("the knowledge can't be read: {0}")]
    Unavailable(String),
}

/// Some messages in the order of the stream.
pub struct KnowledgeBatch {
    pub messages: Vec<RawMessage>,
    /// The stream has no more messages now.
    pub is_last: bool,
}

/// A position in the stream.
pub struct KnowledgeCursor {
    jetstream: JetStream,
    filter: String,
    from: u64,
}

impl KnowledgeCursor {
    /// Creates a reading from the beginning, of the subjects that match `filter`.
    pub fn new(client: Client, filter: String) -> Self {
        Self { jetstream: JetStream::new(client), filter, from: 1 }
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
        let mut messages = Vec::new();
        let take = |message| messages.push(message);
        let more = self.jetstream.each_next(KNOWLEDGE, (&self.filter, self.from), BOUNDS, take).await;
        let more = more.map_err(|error| KnowledgeReadError::Unavailable(error.to_string()))?;
        Ok(KnowledgeBatch { messages, is_last: !more })
    }
}

/// The name of the stream that holds knowledge.
pub const KNOWLEDGE: &str = "KNOWLEDGE";
