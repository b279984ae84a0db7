//! Pages of a conversation's messages.

use super::Conversations;
use crate::{
    domain::{Conversation, Message},
    log::EventLog,
    nats::ReadError,
    subjects::ConversationKey,
};

impl<L: EventLog> Conversations<L> {
    /// Returns the newest messages before `before` (a sequence; `None` = all), newest first, and whether there are older
    /// ones.
    pub async fn messages(
        &self,
        key: &ConversationKey,
        state: &Conversation,
        before: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<Message>, bool), ReadError> {
        let before = before.unwrap_or(u64::MAX);
        let recent = state.messages.iter().rev().filter(|message| message.seq < before);
        let mut page: Vec<Message> = recent.take(limit).cloned().collect();
        let older: Vec<u64> = state.older.iter().rev().filter(|seq| **seq < before).copied().collect();
        let missing = limit - page.len();
        let reads = older.iter().take(missing).map(|seq| self.message_at(key, *seq));
        for message in futures_util::future::try_join_all(reads).await? {
            page.push(message);
        }
        let oldest = page.last().map_or(before, |message| message.seq);
        let more = state.messages.front().is_some_and(|message| message.seq < oldest)
            || state.older.front().is_some_and(|seq| *seq < oldest);
        Ok((page, more))
    }

    /// Returns the oldest messages after `after` (a sequence), oldest first, and whether there are newer ones.
    pub async fn messages_after(
        &self,
        key: &ConversationKey,
        state: &Conversation,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Message>, bool), ReadError> {
        let older = state.older.iter().copied().filter(|seq| *seq > after);
        let recent = state.messages.iter().filter(|message| message.seq > after);
        let more = older.clone().count() + recent.clone().count() > limit;
        let mut page =
            futures_util::future::try_join_all(older.take(limit).map(|seq| self.message_at(key, seq))).await?;
        page.extend(recent.take(limit - page.len()).cloned());
        Ok((page, more))
    }

    async fn message_at(&self, key: &ConversationKey, seq: u64) -> Result<Message, ReadError> {
        let event = self.event_at(key, seq).await?;
        Message::of(&event).ok_or_else(|| ReadError::Unavailable(format!("event {seq} holds no message")))
    }
}
