//! The conversations that a client has reached by a session, and the check that it may still watch them.

use std::sync::Arc;

use chrono::Utc;
use uuid::Uuid;

use super::Connection;
use crate::{
    auth, limits,
    log::conversations::Freshness,
    subjects::PushTo,
    wire::{
        frames::{self, ErrorCode},
        stored::SessionRecord,
    },
};

impl Connection {
    /// Records a session that the client has named and may use.
    pub fn reaches(&mut self, record: &Arc<SessionRecord>) {
        self.has_session = true;
        self.reached.retain(|known| known.conversation != record.conversation);
        self.reached.push_back(record.clone());
        if self.reached.len() > limits::REACHED_MAX {
            self.reached.pop_front();
        }
    }

    /// Returns the session of this conversation that the client has named.
    pub fn reached_by(&self, conversation: Uuid) -> Option<&Arc<SessionRecord>> {
        self.reached.iter().find(|record| record.conversation == conversation)
    }

    pub fn has_reached(&self, conversation: Uuid) -> bool {
        self.reached_by(conversation).is_some()
    }

    /// Checks again whether the client may watch a conversation, and stops if not: an owner has come since.
    ///
    /// A client that waits for an answer there is told that its session is gone.
    pub(in crate::edge) async fn look_again(&mut self, conversation: Uuid) -> bool {
        let Some(key) = self.delivery.key(conversation).cloned() else { return false };
        if !self.edge.auth.is_on() {
            return true;
        }
        let state = match self.edge.conversations.load(&key, Freshness::AtLeast(0)).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, %conversation, "a conversation's owner can't be read; its frames are held back");
                return false;
            }
        };
        let principal = self.principal_in(&key.org);
        let may = match self.reached_by(conversation) {
            Some(record) => self.edge.is_within(&state, record, principal),
            None => auth::may_reach(principal, &key.org, state.owner.as_deref(), None),
        };
        if may {
            return true;
        }
        self.edge.hub.unwatch(conversation, &self.listener);
        self.let_go(conversation);
        for (turn, request_id) in self.delivery.forget(conversation) {
            if request_id.is_empty() {
                continue;
            }
            let message = "this conversation belongs to somebody else now";
            let frame = frames::error(Some(&request_id), ErrorCode::SessionNotFound, message, Utc::now());
            self.push_end(turn, frame);
        }
        false
    }

    /// Forgets the session of a conversation, also as a name for hosts to reach the connection by.
    fn let_go(&mut self, conversation: Uuid) {
        for record in self.reached.iter().filter(|record| record.conversation == conversation) {
            self.registration.no_longer_called(PushTo::Session, &record.org, &record.session.to_string());
        }
        self.reached.retain(|record| record.conversation != conversation);
    }
}
