//! Documents on the stream KNOWLEDGE: written all or nothing, read by their heads.
//!
//! A document and its chunks are one atomic batch, with the head last; so a reader finds all of it or none. A document
//! with more messages than a batch may hold is published message by message, and again the head comes last: readers
//! show a document only when all chunks of its head's version are there. Left-overs of older versions are purged
//! afterwards.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::{
    cursor::{KNOWLEDGE, KnowledgeCursor, KnowledgeReadError},
    document::{Chunk, Document, NewChunk, NewDocument, Vector},
};
use crate::{
    limits,
    nats::{
        connection::soon,
        core::{self, Client, HeaderMap},
        jetstream::{Ack, ApiError, JetStream},
    },
    subjects,
};

/// The most messages of one atomic batch, by the server's default.
const BATCH_MAX: usize = 1_000;
/// The server's error code when too many batches are open.
const TOO_MANY_BATCHES: u64 = 10210;

/// The reason why a document was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeStoreError {
    #[error("document {id} has {bytes} bytes in one chunk, more than {max}")]
    TooLarge { id: String, bytes: usize, max: usize },
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("the server does not answer: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Read(#[from] KnowledgeReadError),
}

/// The knowledge of all organisations.
#[derive(Clone)]
pub struct KnowledgeStore {
    jetstream: JetStream,
}

impl From<ApiError> for KnowledgeStoreError {
    /// Maps a missing leader and too many open batches to `Unavailable`: the same message may be accepted a moment
    /// later.
    fn from(error: ApiError) -> Self {
        match error.code == 503 || error.err_code == TOO_MANY_BATCHES {
            true => Self::Unavailable(error.description),
            false => Self::Refused(error.description),
        }
    }
}

impl KnowledgeStore {
    pub fn new(client: Client) -> Self {
        Self { jetstream: JetStream::new(client) }
    }

    /// Writes a document in place of the earlier version under its id.
    pub async fn put(
        &self,
        org: &str,
        document: NewDocument,
        chunks: Vec<NewChunk>,
    ) -> Result<(), KnowledgeStoreError> {
        let version = Uuid::new_v4();
        let head = Document {
            id: document.id,
            title: document.title,
            url: document.url,
            set: document.set,
            source: document.source,
            acl: document.acl,
            hash: document.hash,
            version,
            chunks: chunks.len() as u32,
            embedding_model: document.embedding_model,
            updated_at: Utc::now(),
            deleted: false,
        };
        let chunks = chunks.into_iter().map(|chunk| Chunk {
            version,
            headings: chunk.headings,
            text: chunk.text,
            vector: chunk.vector.map(Vector),
        });
        self.write(org, head, chunks.collect()).await
    }

    /// Deletes a document. Its tombstone stays in the stream, for readers that are behind.
    pub async fn delete(&self, org: &str, document: Document) -> Result<(), KnowledgeStoreError> {
        let gone = Document {
            version: Uuid::new_v4(),
            chunks: 0,
            hash: String::new(),
            updated_at: Utc::now(),
            deleted: true,
            ..document
        };
        self.write(org, gone, vec![]).await
    }

    /// Returns the documents of an organisation, by id, without deleted ones.
    pub async fn heads(&self, org: &str) -> Result<HashMap<String, Document>, KnowledgeStoreError> {
        let mut reading = KnowledgeCursor::new(self.jetstream.client(), subjects::knowledge_heads(org));
        let mut heads = HashMap::new();
        loop {
            let batch = reading.next().await?;
            for message in &batch.messages {
                match serde_json::from_slice::<Document>(&message.payload) {
                    Ok(head) if head.deleted => {
                        heads.remove(&head.id);
                    }
                    Ok(head) => {
                        heads.insert(head.id.clone(), head);
                    }
                    Err(error) => tracing::error!(%error, subject = message.subject, "a document's head is malformed"),
                }
            }
            if batch.is_last {
                return Ok(heads);
            }
        }
    }

    async fn write(&self, org: &str, head: Document, chunks: Vec<Chunk>) -> Result<(), KnowledgeStoreError> {
        let document = subjects::knowledge_document(&head.id);
        let subject = |chunk: Option<usize>| subjects::knowledge(org, &document, chunk);
        let mut messages = Vec::new();
        for (n, chunk) in chunks.iter().enumerate() {
            messages.push((subject(Some(n)), json_bytes(chunk)));
        }
        messages.push((subject(None), json_bytes(&head)));
        if let Some((_, payload)) = messages.iter().find(|(_, p)| p.len() > limits::KNOWLEDGE_MESSAGE_MAX_BYTES) {
            let max = limits::KNOWLEDGE_MESSAGE_MAX_BYTES;
            return Err(KnowledgeStoreError::TooLarge { id: head.id, bytes: payload.len(), max });
        }
        let mut tries = 0;
        let first = loop {
            let written = match messages.len() <= BATCH_MAX {
                true => self.write_batch(&messages).await,
                false => self.write_singly(&messages).await,
            };
            tries += 1;
            match written {
                Err(KnowledgeStoreError::Unavailable(cause)) if tries < limits::KNOWLEDGE_WRITE_TRIES => {
                    tracing::debug!(cause, document = head.id, "a document was not written; trying again");
                    tokio::time::sleep(Duration::from_millis(limits::RETRY_FIRST_MS << tries)).await;
                }
                written => break written?,
            }
        };
        // The document is written; left-overs of older versions are ignored by readers, and purged the next time.
        if let Err(error) = self.purge_older(&subjects::knowledge_all_of(org, &document), first).await {
            tracing::warn!(%error, document = head.id, "an older version's chunks were not purged");
        }
        Ok(())
    }

    /// Writes all messages or none. Returns the sequence of the first one.
    async fn write_batch(&self, messages: &[(String, Bytes)]) -> Result<u64, KnowledgeStoreError> {
        let batch = Uuid::new_v4().simple().to_string();
        let (last, others) = messages.split_last().expect("a document has a head");
        let headers = |n: usize| {
            core::headers([("Nats-Batch-Id", batch.as_str()), ("Nats-Batch-Sequence", n.to_string().as_str())])
        };
        for (n, (subject, payload)) in others.iter().enumerate() {
            // The first message of a batch is answered, with an error or an empty ack: a refused batch ends there.
            if n == 0 {
                self.ask(subject, headers(1), payload.clone()).await?;
            } else {
                let (subject, payload) = (subject.clone(), payload.clone());
                let sent = soon(self.jetstream.client.publish_with_headers(subject, headers(n + 1), payload)).await;
                sent.map_err(KnowledgeStoreError::Unavailable)?;
            }
        }
        let mut commit = headers(messages.len());
        commit.insert("Nats-Batch-Commit", "1");
        // A batch is stored contiguously.
        let seq = self.ask(&last.0, commit, last.1.clone()).await?;
        Ok(seq + 1 - messages.len() as u64)
    }

    /// Writes one message after the other. Returns the sequence of the first one.
    ///
    /// The sequence does not follow from the last one's: messages of other writers may lie between.
    async fn write_singly(&self, messages: &[(String, Bytes)]) -> Result<u64, KnowledgeStoreError> {
        let mut first = None;
        for (subject, payload) in messages {
            let seq = self.ask(subject, HeaderMap::new(), payload.clone()).await?;
            first.get_or_insert(seq);
        }
        Ok(first.expect("a document has a head"))
    }

    async fn ask(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<u64, KnowledgeStoreError> {
        let unavailable = |cause: String| KnowledgeStoreError::Unavailable(cause);
        let answer = self.jetstream.ask(subject.to_string(), headers, payload, limits::APPEND_TRY_MS).await;
        let answer = answer.map_err(unavailable)?;
        // The ack of a message of an open batch is empty.
        if answer.is_empty() {
            return Ok(0);
        }
        let ack = Ack::parse(&answer).map_err(unavailable)?;
        ack.error.map_or(Ok(ack.seq), |error| Err(error.into()))
    }

    /// Purges the left-overs of older versions.
    async fn purge_older(&self, filter: &str, before: u64) -> Result<(), KnowledgeStoreError> {
        let query = json!({ "filter": filter, "seq": before }).to_string();
        let subject = subjects::stream_api("PURGE", KNOWLEDGE);
        self.ask(&subject, HeaderMap::new(), query.into()).await.map(drop)
    }
}

fn json_bytes(value: &impl serde::Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("documents are maps with string keys"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_errors_are_retried_and_refusals_are_not() {
        let error = |code, err_code| KnowledgeStoreError::from(ApiError { code, err_code, description: String::new() });
        assert!(matches!(error(503, 10008), KnowledgeStoreError::Unavailable(_)), "no leader now");
        assert!(matches!(error(400, TOO_MANY_BATCHES), KnowledgeStoreError::Unavailable(_)));
        assert!(matches!(error(400, 10054), KnowledgeStoreError::Refused(_)), "the message is too large");
    }
}
