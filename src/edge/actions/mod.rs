//! The actions of the protocol, one file each.
//!
//! An action takes its fields out of the frame, in the order that the protocol gives for its checks, and pushes its answer
//! to the connection. Another user's session or conversation is answered exactly like a missing one.

pub mod attachments;
mod cancel;
mod confirm_tool_action;
mod create_conversation_session;
mod get_conversation_messages;
mod get_session;
mod list_conversations;
mod ping;
mod rename_conversation;
mod resume_session;
mod send_message;
mod submit_interaction;
mod verify_otp;

use chrono::Utc;
use serde::Serialize;
use std::sync::Arc;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use uuid::Uuid;

use super::{
    client::{Connection, WatchError},
    policy::access::{ClientPage, VisitorRequest},
};
use crate::{
    auth,
    domain::{Command, Conversation, Refusal, Turn},
    limits,
    log::conversations::ExecuteError,
    metrics::metrics,
    nats::{AppendError, ReadError},
    subjects::ConversationKey,
    wire::{
        actions::{Action, BadFrame, ClientRequest, read},
        frames::{self, ErrorCode, SessionStatus, SessionView},
        stored::SessionRecord,
    },
};

/// Serves one text frame. Every frame gets an answer, except a cancel that finds nothing to do.
pub async fn dispatch(connection: &mut Connection, text: Utf8Bytes) {
    // Parsing a large frame would block this thread's other connections.
    let read = match text.len() > limits::CLIENT_FRAME_MAX_BYTES {
        true => tokio::task::spawn_blocking(move || read(&text)).await.unwrap_or_else(|_| Err((None, broken()))),
        false => read(&text),
    };
    let mut request = match read {
        Ok(request) => request,
        Err((request_id, bad)) => return refuse(connection, request_id.as_deref(), bad),
    };
    let served = match request.action {
        Action::Ping => ping::serve(connection, &request),
        Action::CreateConversationSession => create_conversation_session::serve(connection, &request).await,
        Action::GetSession => get_session::serve(connection, &request).await,
        Action::GetConversationMessages => get_conversation_messages::serve(connection, &request).await,
        Action::ListConversations => list_conversations::serve(connection, &request).await,
        Action::RenameConversation => rename_conversation::serve(connection, &request).await,
        Action::SendMessage => send_message::serve(connection, &mut request).await,
        Action::ConfirmToolAction => confirm_tool_action::serve(connection, &request).await,
        Action::SubmitInteraction => submit_interaction::serve(connection, &request).await,
        Action::VerifyOtp => verify_otp::serve(connection, &request).await,
        Action::Cancel => cancel::serve(connection, &request).await,
        Action::ResumeSession => resume_session::serve(connection, &request).await,
    };
    if let Err(bad) = served {
        refuse(connection, request.request_id.as_deref(), bad);
    }
}

fn refuse(connection: &mut Connection, request_id: Option<&str>, bad: BadFrame) {
    metrics().connections.error(&bad.code.name());
    let frame = match connection.retry_after_secs.take().filter(|_| bad.code == ErrorCode::RateLimited) {
        Some(seconds) => frames::limited(request_id, &bad.message, seconds, Utc::now()),
        None => frames::error(request_id, bad.code, &bad.message, Utc::now()),
    };
    connection.out.push(frame);
}

fn answer(connection: &mut Connection, request: &ClientRequest, status: u16, message: &str, data: impl Serialize) {
    connection.out.push(frames::immediate(request.request_id.as_deref(), status, message, data, Utc::now()));
}

/// Returns the session that a frame names, with its conversation's key.
///
/// Every action that names a session passes through here. Another user's session counts as missing.
pub(super) async fn session(
    connection: &mut Connection,
    id: Option<Uuid>,
) -> Result<Option<(Arc<SessionRecord>, ConversationKey)>, BadFrame> {
    let Some(id) = id else { return Ok(None) };
    let edge = connection.edge.clone();
    let is_theirs = |record: &SessionRecord| {
        let principal = connection.principal_in(&record.org);
        !edge.auth.is_on() || auth::may_reach(principal, &record.org, record.owner.as_deref(), record.proved.as_deref())
    };
    let Some(record) = edge.sessions.find(id, is_theirs).await? else { return Ok(None) };
    let Some(key) = edge.key(&record.org, record.conversation) else { return Ok(None) };
    let principal = connection.principal_in(&record.org);
    let page = match connection.reached_by(record.conversation) {
        Some(known) if known.session == record.session => ClientPage::Admitted,
        _ => ClientPage::Of(connection.origin.as_deref()),
    };
    if !edge.may_use(&record, &key, principal, page).await? {
        return Ok(None);
    }
    connection.reaches(&record);
    Ok(Some((record, key)))
}

/// Returns true if a client may go on with a conversation that is named by its id.
pub(super) async fn may_join(connection: &Connection, id: Uuid) -> Result<bool, BadFrame> {
    let found = create_conversation_session::resumable(connection, Some(id), VisitorRequest::Join).await?;
    Ok(found.is_some())
}

/// Ends the wait of a parked turn and watches its frames from then on. Returns false if the turn no longer waits.
async fn end_wait(
    connection: &mut Connection,
    key: &ConversationKey,
    state: Arc<Conversation>,
    turn: &Turn,
    command: &Command,
) -> Result<bool, BadFrame> {
    connection.watch(key, false).await?;
    connection.delivery.open(key, turn.request.turn, &turn.request.request_id, turn.epoch);
    let edge = connection.edge.clone();
    match edge.conversations.execute(key, state, command, &edge.author()).await {
        Ok(_) => Ok(true),
        Err(ExecuteError::Refused(Refusal::NotPending)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns true if the caller may reach a conversation, by its identity or by a session that it has named.
fn may_reach(connection: &Connection, key: &ConversationKey, state: &Conversation) -> bool {
    let principal = connection.principal_in(&key.org);
    match connection.reached_by(key.conversation) {
        Some(record) => connection.edge.is_within(state, record, principal),
        None => !connection.edge.auth.is_on() || auth::may_reach(principal, &key.org, state.owner.as_deref(), None),
    }
}

fn session_view(record: &SessionRecord) -> SessionView<'_> {
    SessionView {
        session_id: record.session,
        conversation_id: record.conversation,
        agent_id: &record.agent_id,
        agent_name: &record.agent.name,
        user_participant_id: record.user.id,
        agent_participant_id: record.agent.id,
        thread_id: record.conversation,
        // Sessions have no end yet, so every existing one is active.
        status: SessionStatus::Active,
    }
}

fn session_not_found() -> BadFrame {
    BadFrame { code: ErrorCode::SessionNotFound, message: "there is no such session".into() }
}

fn broken() -> BadFrame {
    BadFrame { code: ErrorCode::InternalError, message: "something went wrong on our side".into() }
}

impl From<ReadError> for BadFrame {
    fn from(error: ReadError) -> Self {
        tracing::warn!(%error, "reading the log failed");
        match error {
            ReadError::Unavailable(_) | ReadError::NoKey(_) => BadFrame {
                code: ErrorCode::StorageError,
                message: "the storage is not available, please try again".into(),
            },
            ReadError::Encrypted(_) => broken(),
        }
    }
}

impl From<ExecuteError> for BadFrame {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Read(error) => error.into(),
            ExecuteError::Append(AppendError::TooLarge { .. }) => {
                BadFrame { code: ErrorCode::ValidationError, message: "the frame is too large to be stored".into() }
            }
            ExecuteError::Append(AppendError::Erased) => {
                BadFrame { code: ErrorCode::ConversationNotFound, message: "this conversation was erased".into() }
            }
            ExecuteError::Refused(Refusal::ReadOnly) => BadFrame {
                code: ErrorCode::ConversationReadOnly,
                message: "this conversation can only be read here: it was gone on with by a newer version".into(),
            },
            error if error.is_storage() => ReadError::Unavailable(error.to_string()).into(),
            error => {
                tracing::error!(%error, "an action's refusal has no specific error; the client gets INTERNAL_ERROR");
                broken()
            }
        }
    }
}

impl From<AppendError> for BadFrame {
    fn from(error: AppendError) -> Self {
        ExecuteError::from(error).into()
    }
}

impl From<WatchError> for BadFrame {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::TooMany => BadFrame {
                code: ErrorCode::RateLimited,
                message: "this connection follows too many conversations; open another one".into(),
            },
            WatchError::Read(error) => error.into(),
        }
    }
}
