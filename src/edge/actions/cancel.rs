//! `cancel`: stops the active turn of a session's conversation.
//!
//! Without an active turn, or for a session that is unknown or another user's, there is no answer.

use super::{Connection, session};
use crate::{
    domain::Command,
    edge::ending,
    log::conversations::Freshness,
    wire::actions::{BadFrame, ClientRequest},
};

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    // A malformed session id names no session; it does not fall back to the connection's own.
    let id = if request.fields.has("sessionId") { request.fields.session() } else { connection.session };
    let Some((record, key)) = session(connection, id).await? else { return Ok(()) };
    let edge = connection.edge.clone();
    // A stale replica may show an older turn, and the running one would run on.
    let state = edge.conversations.load(&key, Freshness::Leader).await?;
    let Some(turn) = state.turn.clone() else { return Ok(()) };
    let turn_id = turn.request.turn;
    let command = Command::Cancel { turn: turn_id, by: record.session };
    let frame = ending::end(&edge, &key, state, &turn, &command).await?;
    if let Some(frame) = frame.filter(|_| !connection.delivery.has_ended(turn_id)) {
        connection.push_end(turn_id, frame);
    }
    Ok(())
}
