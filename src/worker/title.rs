//! Names a conversation: a model is asked for a title while the first turn is answered.
//!
//! The title is recorded after the turn has ended, unless the conversation was named meanwhile. It is optional: it delays
//! and fails nothing, its tokens are not counted as the visitor's, and a stopping worker drops it.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Worker, profile::TurnProfile, side_calls};
use crate::{
    domain::{Command, Conversation, TurnOutcome, title},
    ids, limits,
    log::conversations::{EventAuthor, ExecuteError, Freshness},
    model::{ChatMessage, ChatRequest},
    subjects::ConversationKey,
};

const INSTRUCTION: &str = "Name the conversation that begins with the user's message. Answer with the name alone: at most \
    six words, in the language of the message, without quotes and without a full stop. Do not answer the message itself.";

/// A pending request for a title. Dropping it aborts the request.
pub(super) struct TitleTask(Option<AbortOnDropHandle<Option<String>>>);

impl TitleTask {
    /// Requests a title if the active turn is the first one of an unnamed conversation.
    pub fn begin(profile: &TurnProfile, state: &Conversation) -> Self {
        let turn = state.turn.as_ref().filter(|_| state.message_count == 1 && state.title.is_none());
        let asked = turn.zip(profile.title_model().cloned()).zip(profile.gateway.clone());
        Self(asked.map(|((turn, model), gateway)| {
            let message: String = turn.request.message.chars().take(limits::TITLE_MESSAGE_CHARS).collect();
            let request = ChatRequest {
                model,
                messages: vec![ChatMessage::System(INSTRUCTION.into()), ChatMessage::User(message)],
                tools: vec![],
                max_tokens: limits::TITLE_MAX_TOKENS,
                metadata: profile.gateway_metadata(),
            };
            let asked = async move {
                let answer =
                    timeout(Duration::from_millis(limits::TITLE_TIMEOUT_MS), side_calls::ask(&gateway, &request)).await;
                match answer {
                    Ok(Ok(said)) => title::clean(&said.text),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a conversation was not named");
                        None
                    }
                    Err(_) => None,
                }
            };
            AbortOnDropHandle::new(tokio::spawn(asked))
        }))
    }

    /// Records the title once it has arrived, if the turn was answered.
    pub fn end(self, worker: &Arc<Worker>, key: &ConversationKey, state: &Conversation, turn: Uuid) {
        let answered = state.finished_turn(turn).is_some_and(|finished| finished.outcome == TurnOutcome::Completed);
        let Some(asked) = self.0.filter(|_| answered) else { return };
        let (worker, key) = (worker.clone(), key.clone());
        tokio::spawn(async move {
            let Ok(Some(title)) = asked.await else { return };
            let author =
                EventAuthor { source: worker.source(), event_id: ids::event_id(ids::new_random(), 0), not_after: None };
            let named = match worker.conversations.load(&key, Freshness::AtLeast(0)).await {
                Ok(state) => {
                    worker.conversations.execute(&key, state, &Command::SetTitle { title }, &author).await.map(drop)
                }
                Err(error) => Err(error.into()),
            };
            match named {
                Ok(()) | Err(ExecuteError::Refused(_)) => {}
                Err(error) => tracing::debug!(%error, conversation = %key.conversation, "a title was not recorded"),
            }
        });
    }
}
