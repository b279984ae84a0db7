//! `send_message`: asks for a turn.
//!
//! The 202 is sent when `turn.requested` is in the log. The connection watches the conversation before it appends, so no
//! frame of the turn is missed; they wait in its queue until the 202 is out. The same requestId on the same session is the
//! same turn, on any edge and at any time: a client may retry as it likes.

use std::sync::Arc;

use chrono::{Duration, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{Connection, answer, session, session_not_found};
use crate::{
    auth::Principal,
    domain::{
        Command, Conversation, Refusal,
        event::{Asker, TurnRequested},
    },
    edge::{admission, workers::Outlook},
    ids, limits,
    log::load::{ExecuteError, Freshness},
    subjects::ConversationKey,
    wire::{
        actions::{BadFrame, Request, invalid},
        frames::ErrorCode,
        stored::SessionRecord,
    },
};

/// The client's part of a turn request, checked.
struct Asked {
    request_id: String,
    message: String,
    stream: bool,
    model: Option<String>,
}

pub(super) async fn serve(connection: &mut Connection, request: &Request) -> Result<(), BadFrame> {
    let found = session(connection, request.fields.session()).await?;
    let asked = match check(request, found.is_some()) {
        Ok(asked) => asked,
        Err(bad) => return Err(in_progress_first(connection, &found, request).await?.unwrap_or(bad)),
    };
    let (record, key) = found.ok_or_else(session_not_found)?;
    let turn = ids::turn_id(key.conversation, record.session, &asked.request_id);
    if connection.edge.workers.outlook(&key.region, &connection.edge.settings.pool, &key.org) == Outlook::NoKey {
        let found = Some((record, key));
        let unavailable = BadFrame {
            code: ErrorCode::LlmUnavailable,
            message: "no model is configured, so messages can't be answered".into(),
        };
        return Err(in_progress_first(connection, &found, request).await?.unwrap_or(unavailable));
    }
    admission::admit_message(connection, &key, turn).await?;
    connection.watch(&key, false).await?;
    connection.views.open(&key, turn, &asked.request_id, None);
    let accepted = ask(connection, request, &record, &key, turn, asked).await;
    if accepted.is_err() {
        connection.close(turn);
    }
    accepted
}

/// Appends the request and answers 202, or says what stands against it.
async fn ask(
    connection: &mut Connection,
    request: &Request,
    record: &SessionRecord,
    key: &ConversationKey,
    turn: Uuid,
    asked: Asked,
) -> Result<(), BadFrame> {
    let edge = connection.edge.clone();
    let command = Command::Request(TurnRequested {
        turn,
        session: record.session,
        request_id: asked.request_id,
        message_id: ids::new_random(),
        message: asked.message,
        images: request.fields.images(),
        files: request.fields.files(),
        model: asked.model,
        stream: asked.stream,
        pool: edge.settings.pool.clone(),
        user: record.user.clone(),
        agent: record.agent.clone(),
        asker: connection.principal.as_ref().filter(|principal| principal.org == key.org).map(asker),
        not_after: Utc::now() + Duration::milliseconds(limits::REQUEST_NOT_AFTER_MS),
    });
    let state = match edge.conversations.cached(key) {
        Some(state) => state,
        None => edge.conversations.load(key, Freshness::AtLeast(0)).await?,
    };
    // The event's id is the turn's: a retry on another edge is recognised by the log itself.
    let decider = edge.decider_with_id(turn.simple().to_string());
    match edge.conversations.execute(key, state, &command, &decider).await {
        Ok(executed) if executed.state.turn.as_ref().is_some_and(|active| active.request.turn == turn) => {
            accept(connection, request);
            Ok(())
        }
        Ok(_) => Err(too_late()),
        Err(ExecuteError::Refused(Refusal::AlreadyActive)) => {
            accept(connection, request);
            let state = edge.conversations.load(key, Freshness::AtLeast(0)).await?;
            if let Some(active) = state.turn.as_ref().filter(|active| active.request.turn == turn) {
                connection.attach(key, active).await;
            }
            Ok(())
        }
        Err(ExecuteError::Refused(Refusal::AlreadyFinished)) => {
            accept(connection, request);
            let state = edge.conversations.load(key, Freshness::AtLeast(0)).await?;
            connection.show_end(key, &state, turn).await;
            Ok(())
        }
        Err(ExecuteError::Refused(_)) => Err(turn_in_progress()),
        Err(error) => Err(error.into()),
    }
}

fn asker(principal: &Principal) -> Asker {
    let groups = principal.groups.iter().take(limits::GROUPS_MAX).cloned().collect();
    Asker { user: principal.user.clone(), groups }
}

fn accept(connection: &mut Connection, request: &Request) {
    answer(connection, request, 202, "Processing your request...", json!({}));
}

/// The checks of the frame, in the protocol's order.
fn check(request: &Request, session_known: bool) -> Result<Asked, BadFrame> {
    let fields = &request.fields;
    let request_id = request.request_id.clone().filter(|id| !id.trim().is_empty());
    let request_id = request_id.ok_or_else(|| invalid("`requestId` is required"))?;
    fields.required_session()?;
    let has_attachments = !fields.images().is_empty() || !fields.files().is_empty();
    let message = match fields.text("message")? {
        Some(text) if text.chars().count() > limits::MESSAGE_MAX_CHARS => {
            return Err(invalid(format!("`message` is longer than {} characters", limits::MESSAGE_MAX_CHARS)));
        }
        Some(text) if !text.trim().is_empty() || has_attachments => text.to_string(),
        None if has_attachments => String::new(),
        Some(_) | None => return Err(invalid("`message` is required")),
    };
    let stream = fields.bool_or("stream", true)?;
    let model = fields.text("model")?.filter(|model| !model.trim().is_empty()).map(str::to_string);
    if fields.text("skill")?.is_some_and(|skill| !skill.trim().is_empty()) {
        return Err(BadFrame { code: ErrorCode::SkillNotFound, message: "there is no such skill".into() });
    }
    if !session_known {
        return Err(session_not_found());
    }
    Ok(Asked { request_id, message, stream, model })
}

/// "A turn is in progress" precedes every other complaint about a message to a known session, but never stands against the
/// turn's own requestId.
async fn in_progress_first(
    connection: &Connection,
    found: &Option<(Arc<SessionRecord>, ConversationKey)>,
    request: &Request,
) -> Result<Option<BadFrame>, BadFrame> {
    let Some((_, key)) = found else { return Ok(None) };
    let state: Arc<Conversation> = connection.edge.conversations.load(key, Freshness::AtLeast(0)).await?;
    let other = state.turn.as_ref().filter(|turn| Some(&turn.request.request_id) != request.request_id.as_ref());
    Ok(other.map(|_| turn_in_progress()))
}

fn turn_in_progress() -> BadFrame {
    BadFrame { code: ErrorCode::TurnInProgress, message: "another message is being answered".into() }
}

fn too_late() -> BadFrame {
    BadFrame {
        code: ErrorCode::StorageError,
        message: "the message was not stored in time, please send it again".into(),
    }
}
