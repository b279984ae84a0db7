//! `confirm_tool_action`: a person's decision about a tool call that waits for approval.
//!
//! A decision binds to the prompt that its connection was shown last; the decision never re-binds to a later
//! prompt.

use super::{Connection, answer, end_wait, session};
use crate::{
    domain::{Command, event::Prompt},
    log::conversations::Freshness,
    wire::{
        actions::{BadFrame, ClientRequest},
        frames::{ConfirmReply, ErrorCode},
    },
};

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let approved = request.fields.required_bool("approved")?;
    let id = request.fields.required_session()?;
    let (record, key) = session(connection, id).await?.ok_or_else(nothing_pending)?;
    // A stale replica may show an older prompt, and the decision would be refused although its prompt waits.
    let state = connection.edge.conversations.load(&key, Freshness::Leader).await?;
    let Some((turn, park)) = state.turn.as_ref().and_then(|turn| Some((turn, turn.park.as_ref()?))) else {
        return Err(nothing_pending());
    };
    if !matches!(park.prompt, Prompt::Approval { .. }) {
        return Err(nothing_pending());
    }
    // A turn parks at most once in an epoch, so the epoch identifies the prompt that was seen.
    let seen = connection.delivery.get_mut(turn.request.turn).and_then(|view| view.prompted);
    if seen.is_some() && seen != turn.epoch {
        return Err(nothing_pending());
    }
    let command = Command::Confirm { park: park.id, approved, by: record.session };
    if !end_wait(connection, &key, state.clone(), turn, &command).await? {
        return Err(nothing_pending());
    }
    let message = if approved { "Tool action approved" } else { "Tool action rejected" };
    answer(connection, request, 200, message, ConfirmReply { session_id: record.session, approved });
    Ok(())
}

fn nothing_pending() -> BadFrame {
    BadFrame { code: ErrorCode::NoPendingConfirmation, message: "no tool action waits for a decision".into() }
}
