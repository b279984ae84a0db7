//! `create_conversation_session`: opens a session on a new conversation, or on a resumed one.
//!
//! The session's event is appended first and its record written afterwards, so a record proves the session.

use std::sync::Arc;

use chrono::Utc;
use uuid::Uuid;

use super::{Connection, answer, may_reach, session};
use crate::{
    auth::Principal,
    domain::{
        Command, Conversation,
        event::{EmailProof, Participant, SessionOpened},
        field, title,
    },
    edge::{
        policy::{access::VisitorRequest, admission},
        visitors::returning,
    },
    ids, limits,
    log::conversations::Freshness,
    subjects::ConversationKey,
    wire::{
        actions::{BadFrame, ClientRequest, FrameFields, invalid},
        frames::SessionCreated,
        stored::SessionRecord,
    },
};

/// The entry of `supports` that asks for the resume extension.
const RESUME_CAPABILITY: &str = "resume";

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let edge = connection.edge.clone();
    let (opened, wanted) = read(&request.fields, &edge.settings.agent_name, &edge.settings.regions)?;
    let admission::AdmittedSession { org, user } = admission::admit(connection, &request.fields).await?;
    let known = connection.principal.as_ref().filter(|principal| principal.org == org);
    let opened = with_principal(with_context(opened, user), known);
    // A session of the conversation, named in the frame beside it, shows that the client has been there.
    session(connection, request.fields.session()).await?;
    let (key, state, opened) = match resumable(connection, wanted, VisitorRequest::Join).await? {
        // A session lives in its conversation's region.
        Some((key, state)) => {
            // The session keeps the conversation's agent, unless the client names another.
            let agent_id = state.agent_id.clone().filter(|_| !request.fields.has("agentId"));
            let agent_id = agent_id.unwrap_or_else(|| opened.agent_id.clone());
            let home = ids::region_number(key.conversation).unwrap_or(edge.settings.regions.home_number);
            (key, state, SessionOpened { session: ids::new_homed(home), agent_id, ..opened })
        }
        None => (new_conversation(connection, &org)?, Arc::default(), opened),
    };
    let opened = proved_for(connection, with_agent(connection, &key.org, opened), (&key, &state), key.org == org);
    let (resumed, was_nobodys) = (state.exists(), state.owner.is_none());
    let executed = edge.conversations.execute(&key, state, &Command::Open(opened.clone()), &edge.author()).await?;
    edge.save_fold(&key);
    let record = SessionRecord {
        session: opened.session,
        org: key.org.clone(),
        conversation: key.conversation,
        agent_id: opened.agent_id,
        owner: executed.state.owner.clone(),
        proved: executed.state.proved_by(opened.session).map(str::to_string),
        user: opened.user,
        agent: opened.agent,
        created_at: executed.recorded.time,
    };
    let record = edge.sessions.add(&key.region, record).await?;
    connection.opened(&record);
    connection.reaches(&record);
    connection.delivery.resumes |= executed.state.supports.iter().any(|capability| capability == RESUME_CAPABILITY);
    if resumed {
        connection.watch(&key, true).await?;
    }
    let created = SessionCreated {
        session_id: record.session,
        conversation_id: record.conversation,
        agent_id: &record.agent_id,
        agent_name: &record.agent.name,
        user_participant_id: record.user.id,
        agent_participant_id: record.agent.id,
    };
    answer(connection, request, 200, "Session created", created);
    if resumed && was_nobodys && record.owner.is_some() {
        edge.owner_came(&key, executed.recorded.seq).await;
    }
    returning::remember(&edge, &record, opened.browser_fingerprint);
    if let Some(turn) = executed.state.turn.as_ref().filter(|_| resumed) {
        connection.attach(&key, turn).await;
    }
    Ok(())
}

/// Reads the event of the new session, and the id of the conversation to resume, from the frame.
fn read(
    fields: &FrameFields,
    agent_name: &str,
    regions: &crate::config::Regions,
) -> Result<(SessionOpened, Option<Uuid>), BadFrame> {
    let agent_id = match fields.text("agentId")? {
        Some(id) if id.trim().is_empty() => return Err(invalid("`agentId` must not be blank")),
        Some(id) => cut(id),
        None => ids::new_random().to_string(),
    };
    let user_name = fields.text("userName")?.and_then(shown_name).unwrap_or_else(|| "Visitor".into());
    let metadata = fields.object("metadata")?.cloned();
    if metadata.as_ref().is_some_and(|map| serde_json::to_vec(map).is_ok_and(|m| m.len() > limits::METADATA_MAX_BYTES))
    {
        return Err(invalid(format!("`metadata` is larger than {} bytes", limits::METADATA_MAX_BYTES)));
    }
    let supports = fields.texts("supports")?.map(|mut list| {
        list.truncate(limits::SUPPORTS_MAX);
        list.retain(|entry| entry.chars().count() <= limits::SUPPORTS_MAX_CHARS);
        list
    });
    let opened = SessionOpened {
        session: ids::new_homed(regions.home_number),
        agent_id,
        user: Participant { id: ids::new_random(), name: user_name },
        agent: Participant { id: ids::new_random(), name: agent_name.to_string() },
        supports,
        user_email: fields.text("userEmail")?.map(cut),
        email_proof: Some(EmailProof::Told),
        browser_fingerprint: fields.text("browserFingerprint")?.map(cut),
        metadata,
        not_after: None,
    };
    Ok((opened, fields.text("conversationId")?.and_then(|id| id.parse().ok())))
}

/// Sets the agent's name from its current configuration.
fn with_agent(connection: &Connection, org: &str, mut opened: SessionOpened) -> SessionOpened {
    let configured = connection.edge.agents.find(org, &opened.agent_id);
    if let Some(name) = configured.and_then(|(_, config)| shown_name(config.name.as_deref()?)) {
        opened.agent.name = name;
    }
    opened
}

/// Sets the proof of the user's address on the new session.
///
/// A proof made in one organisation does not hold in another. A client that joins from a session with the owner's proven
/// address goes on as the owner: the new session has the same proof.
fn proved_for(
    connection: &Connection,
    mut opened: SessionOpened,
    (key, state): (&ConversationKey, &Conversation),
    is_same_org: bool,
) -> SessionOpened {
    if !is_same_org {
        opened.email_proof = Some(EmailProof::Told);
    }
    let from = connection.reached_by(key.conversation);
    let proved = from.and_then(|record| record.proved.as_deref().or_else(|| state.proved_by(record.session)));
    if opened.email_proof == Some(EmailProof::Told) && proved.is_some() && proved == state.owner.as_deref() {
        opened.user_email = proved.map(str::to_string);
        opened.email_proof = Some(EmailProof::Challenge);
    }
    opened
}

/// Takes the user id in the host's context as proof of an address if the id is an e-mail address.
fn with_context(mut opened: SessionOpened, user: Option<String>) -> SessionOpened {
    if let Some(email) = user.as_deref().and_then(field::email) {
        (opened.user_email, opened.email_proof) = (Some(email), Some(EmailProof::Context));
    }
    opened
}

/// Applies the token's claims, which take precedence over the frame's fields.
fn with_principal(mut opened: SessionOpened, principal: Option<&Principal>) -> SessionOpened {
    if let Some(principal) = principal {
        if let Some(email) = &principal.email {
            (opened.user_email, opened.email_proof) = (Some(cut(email)), Some(EmailProof::Token));
        }
        if let Some(name) = principal.name.as_deref().and_then(shown_name) {
            opened.user.name = name;
        }
    }
    opened
}

/// Cleans a name for display: one line, without characters that hide or reorder the text beside it.
fn shown_name(text: &str) -> Option<String> {
    Some(cut(&title::one_line(text))).filter(|name| !name.is_empty())
}

fn cut(text: &str) -> String {
    text.chars().take(limits::NAME_MAX_CHARS).collect()
}

/// Returns the conversation that a frame names, if it exists and the caller may reach it.
///
/// The log's leader must confirm that the conversation is unknown, because resuming an unknown one silently makes a fresh
/// conversation. Requests for another user's conversation take as long as for a missing one: as soon as it is recognised, the
/// remaining lookups use a fresh, unused id.
pub(super) async fn resumable(
    connection: &Connection,
    wanted: Option<Uuid>,
    wish: VisitorRequest,
) -> Result<Option<(ConversationKey, Arc<Conversation>)>, BadFrame> {
    let Some(id) = wanted else { return Ok(None) };
    let conversations = &connection.edge.conversations;
    let of_nobody = || ids::new_homed(ids::region_number(id).unwrap_or_default());
    for key in connection.orgs().filter_map(|org| connection.edge.key(org, id)) {
        // Knowledge of the id is not enough everywhere. The lookup happens all the same, so that its time reveals nothing.
        let is_anonymous = connection.principal_in(&key.org).is_none();
        let is_shown = !is_anonymous || connection.has_reached(id) || !connection.edge.wants_sessions(wish);
        let is_theirs = |state: &Conversation| is_shown && may_reach(connection, &key, state);
        // An owner never changes, so the cached state is enough to recognise another user's conversation.
        let is_others = conversations.cached(&key).is_some_and(|state| state.exists() && !is_theirs(&state));
        let conversation = if is_others { of_nobody() } else { id };
        let mut asked = ConversationKey { conversation, ..key.clone() };
        for freshness in [Freshness::AtLeast(0), Freshness::Leader] {
            let state = conversations.load(&asked, freshness).await?;
            if state.exists() && is_theirs(&state) && is_of_page(connection, &key, &state).await {
                return Ok(Some((key, state)));
            }
            if state.exists() {
                asked.conversation = of_nobody();
            }
        }
    }
    Ok(None)
}

/// Returns true if the client's page may use the agent of a conversation that is named by its id.
async fn is_of_page(connection: &Connection, key: &ConversationKey, state: &Conversation) -> bool {
    let edge = &connection.edge;
    if connection.principal_in(&key.org).is_some() || !edge.widgets.is_configured() {
        return true;
    }
    match &state.agent_id {
        Some(agent) => edge.widgets.allows(agent, connection.origin.as_deref()).await,
        None => false,
    }
}

fn new_conversation(connection: &Connection, org: &str) -> Result<ConversationKey, BadFrame> {
    let id = ids::new_homed(connection.edge.settings.regions.home_number);
    connection.edge.key(org, id).ok_or_else(|| {
        tracing::error!(at = %Utc::now(), "the home region has no name");
        BadFrame {
            code: crate::wire::frames::ErrorCode::InternalError,
            message: "something went wrong on our side".into(),
        }
    })
}
