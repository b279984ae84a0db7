//! `submit_interaction`: a visitor's answer to a form that the turn waits for.
//!
//! The checks run in the protocol's order. Invalid values leave the turn waiting.

use super::{Connection, answer, end_wait, session};
use crate::{
    domain::Command,
    log::conversations::Freshness,
    wire::{
        actions::{BadFrame, ClientRequest, invalid},
        frames::{ErrorCode, Frame, NestedData},
        prompts::{DeclineReply, InvalidData, SubmitReply},
    },
};

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let request_id = request.required_id()?;
    let id = request.fields.required_session()?;
    let (record, key) = session(connection, id).await?.ok_or_else(nothing_pending)?;
    // A stale replica may show an older form.
    let state = connection.edge.conversations.load(&key, Freshness::Leader).await?;
    let Some((turn, park)) = state.turn.as_ref().and_then(|turn| Some((turn, turn.park.as_ref()?))) else {
        return Err(nothing_pending());
    };
    let form = park.prompt.form().ok_or_else(nothing_pending)?;
    let named = request.fields.text("interactionId").ok().flatten().map(str::trim);
    if named.and_then(|id| id.parse().ok()) != Some(park.id) {
        return Err(mismatch("another interaction is pending"));
    }
    if request.fields.text("kind")?.is_some_and(|kind| kind != form.kind()) {
        return Err(mismatch("the pending interaction is of another kind"));
    }
    let values = match request.fields.bool_or("declined", false)? {
        true => None,
        false => {
            let given =
                request.fields.object("values")?.ok_or_else(|| invalid("`values` or `declined` is required"))?;
            match form.check(given) {
                Ok(values) => Some(values),
                Err(errors) => {
                    let data = InvalidData {
                        interaction_id: park.id,
                        kind: form.kind(),
                        errors: &errors,
                        message: "Please check what you entered.",
                    };
                    let timestamp = chrono::Utc::now().timestamp_millis();
                    let data = NestedData { request_id, data };
                    connection.out.push(Frame::InteractionInvalid { request_id, timestamp, data }.to_bytes());
                    return Ok(());
                }
            }
        }
    };
    let command = Command::Submit { park: park.id, values: values.clone(), by: record.session };
    if !end_wait(connection, &key, state.clone(), turn, &command).await? {
        return Err(nothing_pending());
    }
    let (session_id, interaction_id) = (record.session, park.id);
    match &values {
        Some(values) => {
            let data = SubmitReply { session_id, interaction_id, kind: form.kind(), values };
            answer(connection, request, 200, "Interaction submitted", data);
        }
        None => {
            let data = DeclineReply { session_id, interaction_id, declined: true };
            answer(connection, request, 200, "Interaction declined", data);
        }
    }
    Ok(())
}

fn nothing_pending() -> BadFrame {
    BadFrame { code: ErrorCode::NoPendingInteraction, message: "no interaction waits for an answer".into() }
}

fn mismatch(message: &str) -> BadFrame {
    BadFrame { code: ErrorCode::InteractionMismatch, message: message.into() }
}
