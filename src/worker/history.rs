//! The conversation's messages, for the tool that searches further back.

use std::sync::Arc;

use chrono::SecondsFormat;

use super::Worker;
use crate::{
    domain::conversation::MessageBody,
    log::conversations::Freshness,
    subjects::ConversationKey,
    tools::{MessageHistory, PastMessage, PastMessages},
};

/// A conversation's history, as read by a worker.
pub(super) struct ConversationHistory {
    pub worker: Arc<Worker>,
    pub key: ConversationKey,
}

impl MessageHistory for ConversationHistory {
    fn page(&self, before: Option<u64>, limit: usize) -> PastMessages<'_> {
        Box::pin(async move {
            let conversations = &self.worker.conversations;
            let state =
                conversations.load(&self.key, Freshness::AtLeast(0)).await.map_err(|error| error.to_string())?;
            let read = conversations.messages(&self.key, &state, before, limit).await;
            let (messages, more) = read.map_err(|error| error.to_string())?;
            let said = messages.into_iter().map(|message| PastMessage {
                seq: message.seq,
                by_user: matches!(message.body, MessageBody::User(_)),
                at: message.at.to_rfc3339_opts(SecondsFormat::Secs, true),
                text: message.text(),
            });
            Ok((said.collect(), more))
        })
    }
}
