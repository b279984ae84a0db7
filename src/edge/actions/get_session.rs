//! `get_session`: what a session is and whether something runs in it.

use super::{Connection, answer, session, session_not_found};
use crate::wire::{
    actions::{BadFrame, Request},
    frames::{SessionStatus, SessionView},
};

pub(super) async fn serve(connection: &mut Connection, request: &Request) -> Result<(), BadFrame> {
    let id = request.fields.required_session()?;
    let (record, _) = session(connection, id).await?.ok_or_else(session_not_found)?;
    let view = SessionView {
        session_id: record.session,
        conversation_id: record.conversation,
        agent_id: &record.agent_id,
        agent_name: &record.agent.name,
        user_participant_id: record.user.id,
        agent_participant_id: record.agent.id,
        thread_id: record.conversation,
        // Nothing ends a session yet, so one that exists is active.
        status: SessionStatus::Active,
    };
    answer(connection, request, 200, "Session", view);
    Ok(())
}
