//! Documents on the stream KNOWLEDGE: writing, deleting, and what is there.
//!
//! A document's chunks and head are one atomic batch, the head last. One that is too large for a batch is written chunk by
//! chunk before its head; the versions in both let readers show a document as a whole or not at all.

use std::collections::HashMap;

use async_nats::{
    Client, HeaderMap,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, pull},
        stream::Stream,
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::document::{Chunk, Document};
use crate::{limits, subjects};

const STREAM: &str = "KNOWLEDGE";

/// Why documents could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the stream of documents: {0}")]
pub struct StoreError(String);

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

/// What a publish is answered with.
#[derive(Deserialize)]
struct Ack {
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    description: String,
}

/// The documents of all organisations.
#[derive(Clone)]
pub struct Store {
    client: Client,
    stream: Stream,
}

impl Store {
    /// The store on a connection.
    pub async fn open(client: Client) -> Result<Self, StoreError> {
        let stream = jetstream::new(client.clone())
            .get_stream(STREAM)
            .await
            .map_err(|error| failed(format!("{error}; run `turnstream streams apply`")))?;
        Ok(Self { client, stream })
    }

    /// Writes a document in the place of its older version.
    pub async fn put(&self, document: &Document, chunks: &[Chunk]) -> Result<(), StoreError> {
        let token = document.token();
        let json = |value: serde_json::Result<Vec<u8>>| value.map(Bytes::from).map_err(failed);
        let mut messages = Vec::with_capacity(chunks.len() + 1);
        for chunk in chunks {
            let subject = subjects::document_chunk(&document.org, &token, chunk.index);
            messages.push((subject, json(serde_json::to_vec(chunk))?));
        }
        let head = (subjects::document_head(&document.org, &token), json(serde_json::to_vec(document))?);
        if messages.len() < limits::BATCH_MESSAGES {
            messages.push(head);
            return self.batch(messages).await;
        }
        let publishes = messages.into_iter().map(|(subject, payload)| self.publish(subject, payload, HeaderMap::new()));
        stream::iter(publishes).buffer_unordered(limits::STORE_PUBLISHES).try_collect::<Vec<_>>().await?;
        self.publish(head.0, head.1, HeaderMap::new()).await
    }

    /// Deletes a document: its head says so from now on.
    pub async fn delete(&self, document: &Document) -> Result<(), StoreError> {
        let gone = Document { deleted: true, chunks: 0, ..document.clone() };
        self.put(&gone, &[]).await
    }

    /// The heads of an organisation's documents by id, those of deleted ones included.
    pub async fn heads(&self, org: &str) -> Result<HashMap<String, Document>, StoreError> {
        let config = pull::Config {
            filter_subject: subjects::document_heads(org),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            memory_storage: true,
            ..Default::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(failed)?;
        let mut left = consumer.cached_info().num_pending;
        let mut heads = HashMap::new();
        while left > 0 {
            let mut messages = consumer.fetch().max_messages(limits::PULL_HEADS).messages().await.map_err(failed)?;
            let before = left;
            while let Some(message) = messages.next().await {
                let message = message.map_err(failed)?;
                left = message.info().map_err(failed)?.pending;
                let head: Document = serde_json::from_slice(&message.payload).map_err(failed)?;
                heads.insert(head.id.clone(), head);
            }
            if left == before {
                return Err(failed("the documents' heads do not come"));
            }
        }
        // Who has read them all needs the consumer no longer; the server would forget it by itself.
        let _ = self.stream.delete_consumer(&consumer.cached_info().name).await;
        Ok(heads)
    }

    /// Removes the chunks that no version needs any more of the documents whose heads are given.
    pub async fn sweep(&self, org: &str, heads: &HashMap<String, Document>) -> Result<usize, StoreError> {
        let known: HashMap<String, usize> = heads.values().map(|head| (head.token(), head.chunks)).collect();
        let mut there = self.stream.info_with_subjects(subjects::documents(org)).await.map_err(failed)?;
        let mut surplus = Vec::new();
        while let Some((subject, _)) = there.try_next().await.map_err(failed)? {
            let chunk = subjects::parse_document_chunk(&subject);
            if chunk.is_some_and(|(token, index)| known.get(token).is_some_and(|chunks| index >= *chunks)) {
                surplus.push(subject);
            }
        }
        for subject in &surplus {
            self.stream.purge().filter(subject).await.map_err(failed)?;
        }
        Ok(surplus.len())
    }

    /// Records something about a run of ingest.
    pub async fn record_run(&self, org: &str, source: &str, event: &serde_json::Value) -> Result<(), StoreError> {
        self.publish(subjects::ingest_run(org, source), event.to_string().into(), HeaderMap::new()).await
    }

    /// All or nothing. The messages before the last one are answered only when they are refused.
    async fn batch(&self, messages: Vec<(String, Bytes)>) -> Result<(), StoreError> {
        let id = uuid::Uuid::new_v4().to_string();
        let last = messages.len();
        for (number, (subject, payload)) in (1..).zip(messages) {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", number.to_string());
            if number == last {
                headers.insert("Nats-Batch-Commit", "1");
                return self.publish(subject, payload, headers).await;
            }
            self.client.publish_with_headers(subject, headers, payload).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn publish(&self, subject: String, payload: Bytes, headers: HeaderMap) -> Result<(), StoreError> {
        let reply = self.client.request_with_headers(subject, headers, payload).await.map_err(failed)?;
        let ack: Ack = serde_json::from_slice(&reply.payload).map_err(failed)?;
        ack.error.map_or(Ok(()), |refusal| Err(failed(refusal.description)))
    }
}
