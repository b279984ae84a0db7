//! The events of a region or of one conversation, in the stream's order.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::{
    log::{
        ReadError,
        nats::{CHAT, NatsLog, RawMessage},
    },
    subjects::{self, ConversationKey},
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
        let stream = subjects::stream_name(CHAT, region);
        Self { log, stream, filter: subjects::events_of(region, conversation), from: 1, read: VecDeque::new() }
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
        Ok(self.log.get(&self.stream, &query, crate::log::Via::Leader).await?.map_or(0, |message| message.seq))
    }
}
