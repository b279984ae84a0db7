//! Frames that a client of the resume extension has missed, rendered from the log.

use chrono::Utc;
use uuid::Uuid;

use super::Connection;
use crate::{
    domain::Event,
    log::conversations::Freshness,
    wire::render::{self, StreamedPart},
};

impl Connection {
    /// Shows a client of the resume extension the frames that it missed. Returns false if the log can't be read now.
    ///
    /// Such a client is owed every byte of the model's text and all tool activity: the missing text of the first `calls`
    /// model calls, as far as they are over, and the missing frames among the first `chunks` of tool activity.
    pub(in crate::edge) async fn say_missed(&mut self, turn: Uuid, calls: u32, chunks: u64) -> bool {
        let Some(view) = self.delivery.get_mut(turn) else { return true };
        view.set_behind(true);
        let key = view.key.clone();
        let state = match self.edge.conversations.load(&key, Freshness::Leader).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, %turn, "a client's missed frames can't be read");
                return false;
            }
        };
        let last = match (state.finished_turn(turn), &state.turn) {
            (Some(finished), _) => finished.terminal_seq,
            (None, Some(active)) if active.request.turn == turn => state.last_seq,
            (None, _) => return true,
        };
        match self.edge.conversations.events_of_turn(&key, turn, last).await {
            Ok(events) => self.say_streamed(turn, &events, calls, chunks),
            Err(error) => {
                tracing::warn!(%error, %turn, "a client's missed frames can't be read");
                return false;
            }
        }
        true
    }

    /// Shows the missed frames; `events` are all events of the turn so far.
    fn say_streamed(&mut self, turn: Uuid, events: &[Event], calls: u32, chunks: u64) {
        let Some(Event::TurnRequested(request)) = events.first() else { return };
        for streamed in render::streamed(&request.request_id, request.stream, events, Utc::now()) {
            match streamed {
                StreamedPart::Text { call, epoch, text } if call < calls => {
                    self.say_text(turn, &request.request_id, (call, epoch), &text);
                }
                StreamedPart::Chunk { n, frame } if n < chunks => {
                    if self.delivery.get_mut(turn).is_some_and(|view| view.take_chunk(n)) {
                        self.push(turn, frame);
                    }
                }
                StreamedPart::Text { .. } | StreamedPart::Chunk { .. } => {}
            }
        }
        if let Some(view) = self.delivery.get_mut(turn) {
            view.set_behind(false);
        }
    }

    /// Shows the missing text of a model call in this epoch.
    fn say_text(&mut self, turn: Uuid, request_id: &str, (call, epoch): (u32, u64), text: &str) {
        let Some(view) = self.delivery.get_mut(turn) else { return };
        if view.void_text(call, epoch) {
            self.push(turn, render::restarted(request_id, Utc::now()));
        }
        let Some(view) = self.delivery.get_mut(turn) else { return };
        let rest = view.take_text(call, epoch, text);
        if !rest.is_empty() {
            self.push(turn, render::token(request_id, rest, Utc::now()));
        }
    }
}
