//! Reads the events of a region or of some of its conversations, or its checkpoints, in the stream's order.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::{
    limits,
    log::jetstream_log::NatsLog,
    nats::{ReadError, ReadFrom, backoff::Backoff, jetstream::RawMessage, streams::CHAT},
    subjects::{self, ConversationKey},
    wire::stored::SessionRecord,
};

/// Base name of the stream of checkpoints, holds and erasures.
pub const AUDIT: &str = "AUDIT";

type Batch = Result<(Vec<RawMessage>, bool), ReadError>;

/// A position in the log of a region.
pub struct StreamReader {
    log: NatsLog,
    stream: String,
    filter: String,
    /// The filter of the requests to the server.
    ///
    /// For all events of a region this is the whole stream, session records included: with many subjects a filtered read costs
    /// the server four times as much.
    asked: String,
    from: u64,
    read: VecDeque<RawMessage>,
    /// The next batch, prefetched while this one is processed.
    ahead: Option<AbortOnDropHandle<Batch>>,
}

impl StreamReader {
    /// Scans one conversation, or all, from the first event on.
    pub fn new(log: NatsLog, region: &str, conversation: Option<Uuid>) -> Self {
        let stream_reader =
            Self::over(log, subjects::stream_name(CHAT, region), subjects::events_of(region, conversation));
        match conversation {
            Some(_) => stream_reader,
            None => Self { asked: subjects::EVERYTHING.into(), ..stream_reader },
        }
    }

    /// Scans the events of an organisation.
    pub fn of_org(log: NatsLog, region: &str, org: &str) -> Self {
        Self::over(log, subjects::stream_name(CHAT, region), subjects::events_of_org(region, org))
    }

    /// Scans the messages of a region's checkpoints.
    pub fn checkpoints(log: NatsLog, region: &str) -> Self {
        Self::over(log, subjects::stream_name(AUDIT, region), subjects::audit_checkpoint(region))
    }

    fn over(log: NatsLog, stream: String, filter: String) -> Self {
        Self { log, stream, asked: filter.clone(), filter, from: 1, read: VecDeque::new(), ahead: None }
    }

    /// Moves to a sequence.
    pub fn begin_at(&mut self, seq: u64) {
        self.from = seq;
        self.read.clear();
        self.ahead = None;
    }

    /// Moves to the first event stored at this time or later.
    ///
    /// If there is none yet, the scan begins after the last event, so an event that is stored meanwhile is not missed.
    pub async fn begin_at_time(&mut self, time: DateTime<Utc>) -> Result<(), ReadError> {
        let last = self.last().await?;
        let first = self.log.first_since(&self.stream, &self.filter, time).await?;
        self.begin_at(first.map_or(last + 1, |message| message.seq));
        Ok(())
    }

    /// Scans one conversation of an organisation.
    pub fn of(log: NatsLog, key: &ConversationKey) -> Self {
        Self::over(log, subjects::stream_name(CHAT, &key.region), key.all_events())
    }

    /// Returns the next event. `None` = there are no more for now.
    pub async fn next(&mut self) -> Result<Option<RawMessage>, ReadError> {
        while self.read.is_empty() {
            let batch = match self.ahead.take() {
                Some(ahead) => ahead.await.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string()))),
                None => self.fetch().await,
            };
            let (mut messages, more) = batch?;
            let Some(last) = messages.last() else { return Ok(None) };
            self.from = last.seq + 1;
            if more {
                self.ahead = Some(AbortOnDropHandle::new(tokio::spawn(self.fetch())));
            }
            if self.asked != self.filter {
                messages.retain(|message| subjects::is_event(&message.subject));
            }
            self.read = messages.into();
        }
        Ok(self.read.pop_front())
    }

    /// Returns the next event up to `end`, which is the sequence of an event. `None` = `end` was the previous one.
    pub async fn next_until(&mut self, end: u64) -> Result<Option<RawMessage>, ReadError> {
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        loop {
            if self.read.is_empty() && self.from > end {
                return Ok(None);
            }
            match self.next().await? {
                Some(message) if message.seq > end => return Ok(None),
                Some(message) => return Ok(Some(message)),
                // The replica that answers may lag behind the leader, which knows the end.
                None if backoff.pause().await => {}
                None => return Err(ReadError::Unavailable(format!("event {end} is not readable yet"))),
            }
        }
    }

    /// Returns the sequence of the last event, asked of the leader.
    pub async fn last(&self) -> Result<u64, ReadError> {
        let query = json!({ "last_by_subj": self.filter });
        Ok(self.log.get(&self.stream, &query, ReadFrom::Leader).await?.map_or(0, |message| message.seq))
    }

    /// Reads a batch, with retries while the server does not answer.
    fn fetch(&self) -> impl Future<Output = Batch> + Send + 'static {
        let (log, stream, asked, from) = (self.log.clone(), self.stream.clone(), self.asked.clone(), self.from);
        async move {
            let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
            loop {
                match log.next_of(&stream, &asked, from).await {
                    Err(_) if backoff.pause().await => {}
                    batch => return batch,
                }
            }
        }
    }
}

/// Returns the conversation of a session. `None` = the session does not exist, or was erased.
pub async fn conversation_of(log: &NatsLog, region: &str, session: Uuid) -> Result<Option<Uuid>, ReadError> {
    let query = json!({ "last_by_subj": subjects::session(region, session) });
    let Some(message) = log.get(&subjects::stream_name(CHAT, region), &query, ReadFrom::Leader).await? else {
        return Ok(None);
    };
    let Some(message) = log.decrypted(message).await? else { return Ok(None) };
    // A malformed record proves no session.
    Ok(serde_json::from_slice(&message.payload).ok().map(|record: SessionRecord| record.conversation))
}
