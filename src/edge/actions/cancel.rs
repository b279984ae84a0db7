//! `cancel`: stops the active turn of a session's conversation.
//!
//! The edge writes the terminal event itself, so a cancel works whether the turn runs, waits or has no worker at all. The
//! worker is told to look at the log; the clients are told by the same frame. Nothing is answered when nothing runs, or the
//! session is unknown or not the caller's.

use chrono::Utc;

use super::{Connection, session};
use crate::{
    domain::Command,
    live::relay::publish_terminal,
    log::load::{ExecuteError, Freshness},
    subjects,
    wire::{
        actions::{BadFrame, Request},
        render::render,
    },
};

pub(super) async fn serve(connection: &mut Connection, request: &Request) -> Result<(), BadFrame> {
    // A session id that is none names no session, and not this connection's either.
    let id = if request.fields.has("sessionId") { request.fields.session() } else { connection.session };
    let Some((record, key)) = session(connection, id).await? else { return Ok(()) };
    let edge = connection.edge.clone();
    // A copy that is behind may show an older turn, and the one that runs would run on.
    let state = edge.conversations.load(&key, Freshness::Leader).await?;
    let Some(turn) = state.turn.clone() else { return Ok(()) };
    let turn_id = turn.request.turn;
    let command = Command::Cancel { turn: turn_id, by: record.session };
    let executed = match edge.conversations.execute(&key, state, &command, &edge.decider()).await {
        Ok(executed) => executed,
        Err(ExecuteError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = edge.client.publish(subjects::stop(&key.region, key.conversation), "".into()).await {
        tracing::warn!(%error, "no stop hint; the worker notices at its next look at the log");
    }
    for (_, frame) in render(&turn.request.request_id, false, &executed.recorded.event, Utc::now()) {
        publish_terminal(&edge.client, &key, turn.request.session, turn_id, frame.clone()).await;
        if !connection.views.has_ended(turn_id) {
            connection.push_end(turn_id, frame);
        }
    }
    Ok(())
}
