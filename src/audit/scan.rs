//! The events of a region, of an organisation or of one conversation, in the stream's order.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    log::{
        ReadError, Via,
        nats::{CHAT, NatsLog, RawMessage},
    },
    subjects::{self, ConversationKey},
    wire::stored::SessionRecord,
};

/// A place in the log of a region.
pub struct Scan {
    log: NatsLog,
    stream: String,
    filter: String,
    from: u64,
    read: VecDeque<RawMessage>,
}

impl Scan {
    /// From the first event on; of one conversation, or of all.
    pub fn new(log: NatsLog, region: &str, conversation: Option<Uuid>) -> Self {
        Self::over(log, region, subjects::events_of(region, conversation))
    }

    /// From the first event on; of one organisation.
    pub fn of_org(log: NatsLog, region: &str, org: &str) -> Self {
        Self::over(log, region, subjects::events_of_org(region, org))
    }

    fn over(log: NatsLog, region: &str, filter: String) -> Self {
        Self { log, stream: subjects::stream_name(CHAT, region), filter, from: 1, read: VecDeque::new() }
    }

    /// From this sequence on.
    pub fn begin_at(&mut self, seq: u64) {
        self.from = seq;
        self.read.clear();
    }

    /// From the first event on that was stored at this time or later. One that comes only later than this call is not missed.
    pub async fn begin_at_time(&mut self, time: DateTime<Utc>) -> Result<(), ReadError> {
        let last = self.last().await?;
        let first = self.log.first_since(&self.stream, &self.filter, time).await?;
        self.begin_at(first.map_or(last + 1, |message| message.seq));
        Ok(())
    }

    /// Of one conversation of an organisation.
    pub fn of(log: NatsLog, key: &ConversationKey) -> Self {
        Self { filter: key.all_events(), ..Self::new(log, &key.region, None) }
    }

    /// The next event. `None`: there are no more now.
    pub async fn next(&mut self) -> Result<Option<RawMessage>, ReadError> {
        if self.read.is_empty() {
            let (messages, _) = self.log.next_of(&self.stream, &self.filter, self.from).await?;
            self.from = messages.last().map_or(self.from, |last| last.seq + 1);
            self.read = messages.into();
        }
        Ok(self.read.pop_front())
    }

    /// The sequence of the last event there is, for a bar that shows how far this is.
    pub async fn last(&self) -> Result<u64, ReadError> {
        let query = serde_json::json!({ "last_by_subj": self.filter });
        Ok(self.log.get(&self.stream, &query, Via::Leader).await?.map_or(0, |message| message.seq))
    }
}

/// The conversation of a session. `None`: there is no such session, or it was erased.
pub async fn conversation_of(log: &NatsLog, region: &str, session: Uuid) -> Result<Option<Uuid>, ReadError> {
    let query = serde_json::json!({ "last_by_subj": subjects::session(region, session) });
    let Some(message) = log.get(&subjects::stream_name(CHAT, region), &query, Via::Leader).await? else {
        return Ok(None);
    };
    let seq = message.seq;
    let Some(message) = log.opened(message).await? else { return Ok(None) };
    let record: SessionRecord =
        serde_json::from_slice(&message.payload).map_err(|cause| ReadError::Malformed { seq, cause: cause.into() })?;
    Ok(Some(record.conversation))
}
