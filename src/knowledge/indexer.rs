//! Keeps the local index current.
//!
//! Contract of [`run`]: (1) read the stream from its beginning to its end, (2) set `caught_up`, (3) read on every
//! fraction of a second; when the stream was recreated, empty the index and begin again. Reads need no consumer, so
//! none can be lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::sync::watch;

use super::{
    cursor::{KNOWLEDGE, KnowledgeCursor, KnowledgeReadError},
    document_fold::DocumentFold,
    index::KnowledgeIndex,
};
use crate::{
    limits,
    nats::{connection::soon, core::Client},
    subjects,
};

/// Follows the stream until the future is dropped.
///
/// `caught_up` becomes true when everything that the stream held at the start can be found.
pub async fn run(client: Client, index: Arc<KnowledgeIndex>, caught_up: watch::Sender<bool>) {
    let mut indexer = Indexer {
        reading: KnowledgeCursor::new(client.clone(), subjects::KNOWLEDGE_ALL.into()),
        client,
        index,
        fold: DocumentFold::default(),
        stream: None,
        checked_at: None,
    };
    loop {
        let pause = match indexer.advance().await {
            Ok(true) => {
                caught_up.send_replace(true);
                limits::KNOWLEDGE_EVERY_MS
            }
            Ok(false) => 0,
            Err(error) => {
                tracing::warn!(%error, "the index can't catch up; trying again");
                limits::RETRY_MAX_MS
            }
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

struct Indexer {
    reading: KnowledgeCursor,
    client: Client,
    index: Arc<KnowledgeIndex>,
    fold: DocumentFold,
    /// The stream's creation time, and its last sequence at the latest check.
    stream: Option<(String, u64)>,
    checked_at: Option<Instant>,
}

/// The reason why the index could not be brought up to date.
#[derive(Debug, thiserror::Error)]
enum IndexerError {
    #[error("{0}")]
    Read(#[from] KnowledgeReadError),
    #[error("the index: {0}")]
    Index(#[from] tantivy::TantivyError),
    #[error("the index: {0}")]
    Panic(#[from] tokio::task::JoinError),
}

impl Indexer {
    /// Reads a batch. True: everything was read, up to the last sequence of the stream's leader at the latest check.
    async fn advance(&mut self) -> Result<bool, IndexerError> {
        let every = Duration::from_millis(limits::KNOWLEDGE_CHECK_EVERY_MS);
        if self.checked_at.is_none_or(|at| at.elapsed() >= every) {
            self.check_stream().await?;
        }
        let batch = self.reading.next().await?;
        let taken = batch.messages.iter().filter_map(|message| self.fold.take(&message.subject, &message.payload));
        let changes: Vec<_> = taken.collect();
        if !changes.is_empty() {
            let index = self.index.clone();
            // A commit computes for milliseconds: not on a thread that serves tokens.
            let applied = tokio::task::spawn_blocking(move || index.apply(changes)).await;
            if !matches!(applied, Ok(Ok(()))) {
                // The failed batch is read again; putting a document twice changes nothing.
                self.fold = DocumentFold::default();
                self.reading.restart();
            }
            applied??;
        }
        // A replica may be behind the leader; then its end is not the stream's end.
        let last = self.stream.as_ref().map_or(0, |(_, last)| *last);
        Ok(batch.is_last && self.reading.read_to() >= last)
    }

    /// Detects a stream that was deleted and recreated: its sequences begin again.
    async fn check_stream(&mut self) -> Result<(), IndexerError> {
        #[derive(Deserialize)]
        struct Info {
            created: String,
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            messages: u64,
            last_seq: u64,
        }
        let unavailable = |cause: String| KnowledgeReadError::Unavailable(cause);
        let asked = soon(self.client.request(subjects::stream_api("INFO", KNOWLEDGE), "".into())).await;
        let reply = asked.map_err(unavailable)?;
        let info: Info = serde_json::from_slice(&reply.payload).map_err(|error| unavailable(error.to_string()))?;
        let made_anew = self.stream.as_ref().is_some_and(|(created, _)| *created != info.created);
        let emptied = info.state.messages == 0 && self.reading.read_to() > 0;
        if made_anew || emptied {
            tracing::warn!("the knowledge stream was recreated or emptied; rebuilding the index");
            self.index.clear()?;
            self.fold = DocumentFold::default();
            self.reading.restart();
        }
        // The last message is a head, which is never purged: its sequence can be reached.
        let last = if info.state.messages == 0 { 0 } else { info.state.last_seq };
        self.stream = Some((info.created, last));
        self.checked_at = Some(Instant::now());
        Ok(())
    }
}
