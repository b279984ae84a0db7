//! Ends turns from outside their workers: for their users, for newer messages, for want of a worker.
//!
//! The edge writes the terminal event itself, so a turn ends whether it runs, waits or has no worker at all. A stop hint tells the
//! worker to look at the log; the terminal frame tells the watching clients.

pub mod abandoned;

use std::sync::Arc;

use bytes::Bytes;
use chrono::{TimeDelta, Utc};

use super::Edge;
use crate::{
    domain::{Command, Conversation, Turn},
    live::relay::publish_terminal,
    log::conversations::ExecuteError,
    nats::connection::soon,
    subjects::{self, ConversationKey},
    wire::render::render,
};

/// Ends a turn by a command, if it can still be ended, and tells its watchers. Returns the turn's last frame.
pub(super) async fn end(
    edge: &Edge,
    key: &ConversationKey,
    state: Arc<Conversation>,
    turn: &Turn,
    command: &Command,
) -> Result<Option<Bytes>, ExecuteError> {
    let executed = match edge.conversations.execute(key, state, command, &edge.author()).await {
        Ok(executed) => executed,
        Err(ExecuteError::Refused(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Err(error) = soon(edge.client.publish(subjects::stop(&key.region, key.conversation), "".into())).await {
        tracing::warn!(error, "the stop hint was not sent; the worker notices at its next read of the log");
    }
    edge.quota.end_turn(key, turn.request.turn);
    let frames = render(&turn.request.request_id, false, &executed.recorded.event, Utc::now());
    let Some((_, frame)) = frames.into_iter().next_back() else { return Ok(None) };
    publish_terminal(&edge.client, key, turn.request.session, turn.request.turn, frame.clone()).await;
    Ok(Some(frame))
}

/// Ends a conversation's abandoned turn. Returns the turn's last frame, if it was ended.
///
/// An abandoned turn has stood still for as long as a turn may, and all that time its pool has had no worker.
pub(super) async fn end_if_abandoned(
    edge: &Edge,
    key: &ConversationKey,
    state: &Arc<Conversation>,
) -> Result<Option<Bytes>, ExecuteError> {
    let Some(turn) = state.turn.as_ref().filter(|turn| turn.park.is_none()) else {
        return Ok(None);
    };
    let limit = edge.settings.turn_limit;
    let is_overdue = edge.log.now() > turn.progress_at + TimeDelta::from_std(limit).unwrap_or(TimeDelta::MAX);
    if !is_overdue || !edge.workers.has_had_none(&key.region, &turn.request.pool, limit) {
        return Ok(None);
    }
    tracing::warn!(turn = %turn.request.turn, pool = turn.request.pool, "no worker is available for a turn; the turn is ended");
    let abandon = Command::Abandon { turn: turn.request.turn, since: turn.progress_at };
    end(edge, key, state.clone(), turn, &abandon).await
}
