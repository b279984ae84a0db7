//! `send_message`: requests a turn.
//!
//! The 202 is sent when `turn.requested` is in the log. The connection watches the conversation before it appends, so no frame of
//! the turn is missed; the frames wait in its queue until the 202 is out. The requestId is the idempotency key: the same requestId
//! with the same message on the same session is the same turn, on any edge and at any time, so a client may retry as it likes.
//!
//! An active turn blocks another message, with two exceptions. A turn that waits for a person gives way where the client can't have
//! seen the prompt: the client does not use the resume extension and has not requested the turn on this connection, so its library
//! drops the prompt. A turn that no worker was there for gives way, too.

use std::{sync::Arc, time::Instant};

use chrono::Utc;
use uuid::Uuid;

use super::{
    Connection,
    attachments::{self, Attachments},
    session, session_not_found,
};
use crate::{
    auth::{Principal, Role},
    domain::{
        Command, Conversation, Refusal, Turn,
        event::{AgentVersion, File, Image, Requester, Skill, TurnRequested},
    },
    edge::{directory::worker_availability::WorkerAvailability, ending, policy::admission},
    ids, limits,
    log::conversations::{ExecuteError, Freshness},
    metrics::metrics,
    subjects::{self, ConversationKey},
    wire::{
        actions::{BadFrame, ClientRequest, invalid},
        frames::ErrorCode,
        render,
        stored::SessionRecord,
    },
};

/// The client's part of a turn request, checked.
struct CheckedMessage {
    request_id: String,
    message: String,
    stream: bool,
    model: Option<String>,
    attachments: Attachments,
    skill: Option<Skill>,
}

pub(super) async fn serve(connection: &mut Connection, request: &mut ClientRequest) -> Result<(), BadFrame> {
    let begun = Instant::now();
    let found = session(connection, request.fields.session()).await?;
    let attachments = attachments::take(&mut request.fields).await;
    let mut asked = match check(connection, request, &found, attachments).await {
        Ok(asked) => asked,
        Err(bad) => return Err(in_progress_first(connection, &found, request).await?.unwrap_or(bad)),
    };
    let (record, key) = found.ok_or_else(session_not_found)?;
    let turn = turn_of(connection, &key, record.session, &asked).await?;
    let agent = connection.edge.agents.find(&key.org, &record.agent_id);
    let pool = agent.as_ref().and_then(|(_, config)| config.pool.clone());
    let pool = pool.unwrap_or_else(|| connection.edge.settings.pool.clone());
    if let Some(unavailable) = unavailable(connection, &key, &pool).await {
        let found = Some((record, key));
        return Err(in_progress_first(connection, &found, request).await?.unwrap_or(unavailable));
    }
    admission::admit_message(connection, &key, turn).await?;
    let attachments = store(connection, &key, turn, std::mem::take(&mut asked.attachments)).await?;
    connection.watch(&key, false).await?;
    connection.delivery.open(&key, turn, &asked.request_id, None);
    connection.delivery.asked_here(turn);
    let command = command(connection, &record, asked, attachments, turn, pool, agent.map(|(version, _)| version));
    let accepted = ask(connection, request, &key, turn, command).await;
    match &accepted {
        Ok(()) => metrics().turns.accepted(begun.elapsed()),
        Err(_) => connection.close(turn),
    }
    accepted
}

/// Appends the request and answers 202, or returns the error that prevents it.
async fn ask(
    connection: &mut Connection,
    request: &ClientRequest,
    key: &ConversationKey,
    turn: Uuid,
    command: Command,
) -> Result<(), BadFrame> {
    let edge = connection.edge.clone();
    let state = match edge.conversations.cached(key) {
        Some(state) => state,
        None => edge.conversations.load(key, Freshness::AtLeast(0)).await?,
    };
    // The event's id is the turn's, so the log itself recognises a retry on another edge.
    let author = edge.author_with_id(turn.simple().to_string());
    let mut executed = edge.conversations.execute(key, state, &command, &author).await;
    if matches!(executed, Err(ExecuteError::Refused(Refusal::TurnInProgress)))
        && make_way(connection, request, key).await?
    {
        let state = edge.conversations.load(key, Freshness::AtLeast(0)).await?;
        executed = edge.conversations.execute(key, state, &command, &author).await;
    }
    match executed {
        Ok(_) => {
            accept(connection, request, turn);
            Ok(())
        }
        Err(ExecuteError::TooLate) => Err(too_late()),
        Err(ExecuteError::Refused(Refusal::AlreadyActive)) => {
            accept(connection, request, turn);
            let state = edge.conversations.load(key, Freshness::AtLeast(0)).await?;
            if let Some(active) = state.turn.as_ref().filter(|active| active.request.turn == turn) {
                connection.attach(key, active).await;
            }
            Ok(())
        }
        Err(ExecuteError::Refused(Refusal::AlreadyFinished)) => {
            accept(connection, request, turn);
            let state = edge.conversations.load(key, Freshness::AtLeast(0)).await?;
            connection.show_end(key, &state, turn).await;
            Ok(())
        }
        Err(ExecuteError::Refused(Refusal::TurnInProgress)) => Err(turn_in_progress()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the id of the turn that a request names. Turns stored by an earlier version have ids without the message in them.
async fn turn_of(
    connection: &Connection,
    key: &ConversationKey,
    session: Uuid,
    asked: &CheckedMessage,
) -> Result<Uuid, BadFrame> {
    let CheckedMessage { request_id, message, attachments, .. } = asked;
    let conversations = &connection.edge.conversations;
    let state = match conversations.cached(key) {
        Some(state) => state,
        None => conversations.load(key, Freshness::AtLeast(0)).await?,
    };
    let earlier = ids::turn_id_without_message(key.conversation, session, request_id);
    let is_active = state.active(earlier).is_some_and(|turn| turn.request.message == *message);
    let is_finished = state.finished_turn(earlier).is_some_and(|turn| {
        state.messages.iter().any(|known| known.seq == turn.requested_seq && known.text() == *message)
    });
    if is_active || is_finished {
        return Ok(earlier);
    }
    Ok(ids::turn_id(key.conversation, session, request_id, message, &attachments.digests()))
}

/// Returns the error if no answer can come: workers are there and none has a key, or there is no such pool of workers.
async fn unavailable(connection: &Connection, key: &ConversationKey, pool: &str) -> Option<BadFrame> {
    let edge = &connection.edge;
    let message = match edge.workers.availability(&key.region, pool, &key.org) {
        WorkerAvailability::Answers => return None,
        WorkerAvailability::NoKey => "no model is configured, so messages can't be answered",
        WorkerAvailability::Nobody if edge.workers.has_pool(&edge.log, &key.region, pool).await => return None,
        WorkerAvailability::Nobody => "there are no workers for this agent, so messages can't be answered",
    };
    Some(BadFrame { code: ErrorCode::LlmUnavailable, message: message.into() })
}

/// Ends the turn that blocks a message, if that turn gives way. Returns false if the turn stays.
async fn make_way(
    connection: &mut Connection,
    request: &ClientRequest,
    key: &ConversationKey,
) -> Result<bool, BadFrame> {
    let edge = connection.edge.clone();
    let state = edge.conversations.load(key, Freshness::AtLeast(0)).await?;
    let Some(turn) = state.turn.clone() else { return Ok(true) };
    let frame = match turn.park.as_ref().filter(|_| gives_way(connection, &turn)) {
        Some(park) => {
            let Some(by) = request.fields.session() else { return Ok(false) };
            let command = Command::Supersede { park: park.id, by };
            ending::end(&edge, key, state, &turn, &command).await?
        }
        None => ending::end_if_abandoned(&edge, key, &state).await?,
    };
    let Some(frame) = frame else { return Ok(false) };
    if connection.delivery.is_open(turn.request.turn) {
        connection.push_end(turn.request.turn, frame);
    }
    Ok(true)
}

/// Returns true if a turn waits for a person who can't have seen the prompt on this connection.
fn gives_way(connection: &Connection, turn: &Turn) -> bool {
    let asks = turn.park.as_ref().is_some_and(|park| park.prompt.is_for_a_person());
    asks && !connection.delivery.resumes && !connection.delivery.was_asked_here(turn.request.turn)
}

/// Stores a message's attachments, unless another turn blocks the message.
async fn store(
    connection: &Connection,
    key: &ConversationKey,
    turn: Uuid,
    attachments: Attachments,
) -> Result<(Vec<Image>, Vec<File>), BadFrame> {
    if attachments.is_empty() {
        return Ok((vec![], vec![]));
    }
    let edge = &connection.edge;
    let state = edge.conversations.load(key, Freshness::AtLeast(0)).await?;
    // A repeated request was not counted again, and its attachments are stored already.
    let is_known = state.turn.as_ref().is_some_and(|active| active.request.turn == turn);
    if is_known || state.finished_turn(turn).is_some() {
        return Ok((vec![], vec![]));
    }
    if state.turn.as_ref().is_some_and(|active| active.request.turn != turn && !gives_way(connection, active)) {
        return Err(turn_in_progress());
    }
    attachments.store(&edge.objects, key).await
}

/// Builds the turn request under the agent's current configuration.
fn command(
    connection: &Connection,
    record: &SessionRecord,
    asked: CheckedMessage,
    (images, files): (Vec<Image>, Vec<File>),
    turn: Uuid,
    pool: String,
    agent_config: Option<AgentVersion>,
) -> Command {
    Command::Request(TurnRequested {
        turn,
        session: record.session,
        request_id: asked.request_id,
        message_id: ids::new_random(),
        message: asked.message,
        images,
        files,
        model: asked.model,
        stream: asked.stream,
        pool,
        user: record.user.clone(),
        agent: record.agent.clone(),
        source: Some(subjects::source_of(connection.address)),
        asker: connection.principal.as_ref().filter(|principal| principal.org == record.org).map(asker),
        agent_config,
        skill: asked.skill,
        // Replaced by the time that the decider allows.
        not_after: Utc::now(),
    })
}

fn asker(principal: &Principal) -> Requester {
    let groups = principal.groups.iter().take(limits::GROUPS_MAX).cloned().collect();
    Requester { user: principal.user.clone(), groups, is_admin: principal.role == Role::Admin }
}

/// Queues the first frame of the turn. Its cursor lets a client that sees no more of the turn here get all of it on another
/// connection.
fn accept(connection: &mut Connection, request: &ClientRequest, turn: Uuid) {
    connection.push(turn, render::accepted(request.request_id.as_deref(), Utc::now()));
}

/// Checks the frame in the protocol's order.
async fn check(
    connection: &Connection,
    request: &ClientRequest,
    session: &Option<(Arc<SessionRecord>, ConversationKey)>,
    attachments: Result<Attachments, BadFrame>,
) -> Result<CheckedMessage, BadFrame> {
    let fields = &request.fields;
    let request_id = request.required_id()?.to_string();
    fields.required_session()?;
    let has_attachments = attachments.as_ref().map_or(true, |attachments| !attachments.is_empty());
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
    if let (Some(model), Some((record, key))) = (&model, session) {
        may_name(connection, record, key, model)?;
    }
    let attachments = attachments?;
    let skill = match fields.text("skill")?.filter(|name| !name.trim().is_empty()) {
        Some(name) => Some(skill(connection, session, name).await?),
        None => None,
    };
    if session.is_none() {
        return Err(session_not_found());
    }
    attachments.check_urls(&connection.edge.settings.fetch).await?;
    Ok(CheckedMessage { request_id, message, stream, model, attachments, skill })
}

/// Checks that a message may name a model: the agent's own, one that its configuration lists, or else one that the settings list.
fn may_name(
    connection: &Connection,
    record: &SessionRecord,
    key: &ConversationKey,
    model: &str,
) -> Result<(), BadFrame> {
    let settings = &connection.edge.settings;
    let agent = connection.edge.agents.find(&key.org, &record.agent_id);
    let (own, listed) = agent.as_ref().map_or((None, None), |(_, agent)| (agent.model.as_ref(), agent.models.as_ref()));
    let own = own.unwrap_or(&settings.model);
    let listed = listed.unwrap_or(&settings.access.models);
    let fits = |entry: &String| match entry.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning),
        None => entry == model,
    };
    match model == own || listed.iter().any(fits) {
        true => Ok(()),
        false => Err(invalid("`model` is not one that may be asked for here")),
    }
}

/// Returns the skill that a message names, if its agent's configuration allows it.
async fn skill(
    connection: &Connection,
    session: &Option<(Arc<SessionRecord>, ConversationKey)>,
    name: &str,
) -> Result<Skill, BadFrame> {
    let edge = &connection.edge;
    let agent = session.as_ref().and_then(|(record, key)| edge.agents.find(&key.org, &record.agent_id));
    let allowed = agent.and_then(|(_, config)| config.skills.clone());
    let may_use = allowed.is_none_or(|allowed| allowed.iter().any(|allowed| allowed == name));
    let found = if may_use { edge.settings.skills.find(name).await } else { None };
    found.ok_or_else(|| BadFrame { code: ErrorCode::SkillNotFound, message: "there is no such skill".into() })
}

/// Returns "a turn is in progress" if another turn blocks the message.
///
/// This error precedes every other one about a message to a known session, but never applies to the turn's own requestId and
/// message.
async fn in_progress_first(
    connection: &Connection,
    found: &Option<(Arc<SessionRecord>, ConversationKey)>,
    request: &ClientRequest,
) -> Result<Option<BadFrame>, BadFrame> {
    let Some((_, key)) = found else { return Ok(None) };
    let state: Arc<Conversation> = connection.edge.conversations.load(key, Freshness::AtLeast(0)).await?;
    let message = request.fields.text("message").ok().flatten();
    let is_own = |turn: &Turn| {
        Some(&turn.request.request_id) == request.request_id.as_ref()
            && message.is_none_or(|message| message == turn.request.message)
    };
    let other = state.turn.as_ref().filter(|turn| !is_own(turn) && !gives_way(connection, turn));
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
