//! `resume_session`, of the resume extension: the state of a session, then the frames that the client missed, once and in
//! order.
//!
//! Missed frames come from the LIVE stream while it retains them, else from the log: the pending prompt, the rest of the
//! text by its offset, the terminal frame. Resuming works before the first token and after the end.

use super::{Connection, answer, session, session_not_found, session_view};
use crate::{
    domain::{Conversation, Turn},
    log::conversations::Freshness,
    subjects::ConversationKey,
    wire::{
        actions::{BadFrame, ClientRequest, invalid, unsupported},
        frames::{ResumeReply, TurnState, TurnView},
        live::ResumeCursor,
    },
};

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    if !connection.delivery.resumes {
        return Err(unsupported());
    }
    let id = request.fields.required_session()?;
    let cursor =
        request.fields.text("seq")?.map(|seq| ResumeCursor::parse(seq).ok_or_else(|| invalid("`seq` is not a cursor")));
    let cursor = cursor.transpose()?;
    let (record, key) = session(connection, id).await?.ok_or_else(session_not_found)?;
    connection.opened(&record);
    // The connection subscribes first and reads afterwards, so that no frame falls between.
    connection.watch(&key, true).await?;
    let state = connection.edge.conversations.load(&key, Freshness::Leader).await?;
    let turn =
        state.turn.as_ref().map(|turn| TurnView { request_id: &turn.request.request_id, state: turn_state(turn) });
    answer(connection, request, 200, "Session resumed", ResumeReply { session: session_view(&record), turn });
    if let Some(cursor) = cursor.filter(|cursor| !cursor.is_ended()) {
        catch_up_finished(connection, &key, &state, cursor).await;
    }
    if let Some(turn) = &state.turn {
        if let Some(cursor) = cursor.filter(|cursor| cursor.turn == turn.request.turn) {
            connection.delivery.open_at(&key, &turn.request.request_id, cursor);
        }
        connection.attach(&key, turn).await;
    }
    Ok(())
}

fn turn_state(turn: &Turn) -> TurnState {
    match (&turn.park, turn.epoch) {
        (Some(_), _) => TurnState::Parked,
        (None, Some(_)) => TurnState::Running,
        (None, None) => TurnState::Queued,
    }
}

/// Shows the rest of a turn that ended while the client was away.
async fn catch_up_finished(
    connection: &mut Connection,
    key: &ConversationKey,
    state: &Conversation,
    cursor: ResumeCursor,
) {
    let Some(finished) = state.finished_turn(cursor.turn) else { return };
    connection.delivery.open_at(key, &finished.request_id, cursor);
    connection.replay(key, cursor.turn, finished.session).await;
    if !connection.delivery.has_ended(cursor.turn) {
        connection.show_end(key, state, cursor.turn).await;
    }
}
