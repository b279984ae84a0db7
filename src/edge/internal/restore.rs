//! `identity/request-otp`, `identity/verify-otp`, `identity/resolve`: a visitor on another device gets their conversations back
//! by proving that an e-mail address is theirs.
//!
//! The host's service sends a password to the address and checks it. What is being proved, and then is, is kept for a while
//! under the session that asked; it is worth nothing for another session or another address. Each conversation is opened in a
//! session of its own, which whoever knows its id may use: the visitor has proved whose it is, and has no token to show.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Asked;
use crate::{
    domain::{
        Command,
        conversation::owner_of,
        event::{OtpChannel, Participant, SessionOpened},
        interaction::Contact,
    },
    edge::quota::QuotaError,
    ids, limits,
    lists::{Entry, read::Wanted},
    log::{ReadError, Via, load::Freshness},
    otp,
    subjects::{self, Whose},
    wire::{
        actions::{BadFrame, invalid},
        frames::{ErrorCode, shown_time},
        stored::SessionRecord,
    },
};

/// The bucket of what sessions prove, and the stream behind it.
const BUCKET: &str = "RESTORE";
const STREAM: &str = "KV_RESTORE";

/// What a session proves.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proof {
    /// In the form of owners.
    email: String,
    /// How many passwords were sent.
    sent: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verified_at: Option<DateTime<Utc>>,
    /// The sessions that were opened for it, by conversation: asking again opens no others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    opened: BTreeMap<Uuid, Uuid>,
}

/// Has a password sent.
pub(super) async fn request(asked: &Asked) -> Result<Value, BadFrame> {
    let email = email(asked)?;
    match asked.fields.text("channel")? {
        None | Some("email") => {}
        Some(_) => return Err(invalid("`channel` is email: an address can only be proved by a letter to it")),
    }
    let (record, _) = asked.session().await?;
    let sent = find(asked, record.session).await?.map_or(0, |proof| proof.sent);
    if sent >= limits::RESTORE_CODES_MAX {
        return Err(too_many());
    }
    asked.edge.quota.send_code(&email).await.map_err(|error| match error {
        QuotaError::Limited(_) => too_many(),
        QuotaError::Read(error) => error.into(),
        QuotaError::Write(error) => error.into(),
    })?;
    let proof = Proof { email: email.clone(), sent: sent + 1, verified_at: None, opened: BTreeMap::new() };
    // Before it is sent, so that no password is out that proves an earlier address.
    put(asked, &record, &proof).await?;
    let contact = Contact { email: Some(email), ..Contact::default() };
    let edge = &asked.edge;
    let sent = otp::send(&edge.client, &asked.org, record.conversation, record.session, &contact).await;
    let sent = sent.map_err(|error| {
        tracing::warn!(%error, session = %record.session, "a one-time password could not be sent");
        BadFrame { code: ErrorCode::OtpSendFailed, message: "the code could not be sent".into() }
    })?;
    let channel = match sent.channel {
        OtpChannel::Email => "email",
        OtpChannel::Sms => "sms",
    };
    Ok(json!({ "event": "otp_sent", "channel": channel, "maskedDestination": sent.masked_destination }))
}

/// Has a password checked.
pub(super) async fn verify(asked: &Asked) -> Result<Value, BadFrame> {
    let (email, code) = (email(asked)?, asked.fields.required_text("code")?.trim());
    if code.len() > limits::OTP_CODE_MAX_BYTES {
        return Err(invalid("`code` is too long"));
    }
    let (record, _) = asked.session().await?;
    let pending = find(asked, record.session).await?.filter(|proof| proof.email == email);
    let Some(proof) = pending else {
        return Ok(json!({ "event": "otp_invalid", "error": "NOT_FOUND", "attemptsRemaining": 0 }));
    };
    let verdict = otp::verify(&asked.edge.client, &asked.org, record.session, code).await.map_err(|error| {
        tracing::warn!(%error, session = %record.session, "a one-time password could not be checked");
        BadFrame { code: ErrorCode::InternalError, message: "the code can't be checked now, please try again".into() }
    })?;
    if !verdict.verified {
        let mut answer = json!({ "event": "otp_invalid", "attemptsRemaining": verdict.attempts_remaining });
        if let Some(error) = verdict.error {
            answer["error"] = error.into();
        }
        return Ok(answer);
    }
    put(asked, &record, &Proof { verified_at: Some(Utc::now()), ..proof }).await?;
    Ok(json!({ "event": "otp_verified" }))
}

/// The conversations of the address that the session has proved, each with a session that it goes on in.
pub(super) async fn resolve(asked: &Asked) -> Result<Value, BadFrame> {
    let email = email(asked)?;
    let (record, _) = asked.session().await?;
    let proved = find(asked, record.session).await?.filter(|proof| proof.email == email && proof.verified_at.is_some());
    let Some(mut proof) = proved else { return Ok(json!({ "resolved": false, "conversations": [] })) };
    let known = proof.opened.len();
    let fits = |entry: &Entry| entry.conversation != record.conversation;
    let wanted =
        Wanted { org: &asked.org, whose: Whose::Owner(&email), after: None, limit: limits::RESTORED_MAX, fits };
    let page = asked.edge.lists.page(wanted).await?;
    let mut conversations = Vec::new();
    for entry in page.entries {
        let session = match proof.opened.get(&entry.conversation) {
            Some(session) => Some(*session),
            // The list may be behind the log, which has the last word.
            None => open(asked, &record, &email, entry.conversation).await?,
        };
        if let Some(session) = session {
            proof.opened.insert(entry.conversation, session);
            conversations.push(json!({
                "conversationId": entry.conversation, "sessionId": session,
                "lastActivityAt": shown_time(entry.updated_at), "preview": entry.title,
            }));
        }
    }
    if proof.opened.len() > known {
        put(asked, &record, &proof).await?;
    }
    Ok(json!({ "resolved": true, "conversations": conversations }))
}

/// Opens a session on a conversation that belongs to the address.
async fn open(asked: &Asked, by: &SessionRecord, email: &str, conversation: Uuid) -> Result<Option<Uuid>, BadFrame> {
    let edge = &asked.edge;
    let Some(key) = edge.key(&asked.org, conversation) else { return Ok(None) };
    let state = edge.conversations.load(&key, Freshness::AtLeast(0)).await?;
    if state.owner.as_deref() != Some(email) {
        return Ok(None);
    }
    let home = ids::region_number(conversation).unwrap_or(edge.settings.regions.home_number);
    let opened = SessionOpened {
        session: ids::new_homed(home),
        agent_id: asked.agent.clone(),
        user: Participant { id: ids::new_random(), name: by.user.name.clone() },
        agent: Participant { id: ids::new_random(), name: by.agent.name.clone() },
        supports: None,
        user_email: Some(email.to_string()),
        browser_fingerprint: None,
        metadata: None,
        not_after: None,
    };
    let executed = edge.conversations.execute(&key, state, &Command::Open(opened.clone()), &edge.decider()).await?;
    let record = SessionRecord {
        session: opened.session,
        org: key.org.clone(),
        conversation,
        agent_id: opened.agent_id,
        // Reachable by who knows its id.
        owner: None,
        user: opened.user,
        agent: opened.agent,
        created_at: executed.recorded.time,
    };
    Ok(Some(edge.sessions.add(&key.region, record).await?.session))
}

/// The address that the request names, in the form of owners.
fn email(asked: &Asked) -> Result<String, BadFrame> {
    let text = asked.fields.required_text("email")?;
    let is_one = |email: &String| email.chars().count() <= limits::NAME_MAX_CHARS && email.contains('@');
    owner_of(text).filter(is_one).ok_or_else(|| invalid("`email` is not an e-mail address"))
}

fn too_many() -> BadFrame {
    BadFrame { code: ErrorCode::RateLimited, message: "too many codes were sent, please try again later".into() }
}

async fn find(asked: &Asked, session: Uuid) -> Result<Option<Proof>, ReadError> {
    let query = json!({ "last_by_subj": subjects::kv(BUCKET, &subjects::restore_key(session)) });
    // The proof may have been written a moment ago, elsewhere.
    let found = asked.edge.log.get(STREAM, &query, Via::Leader).await?;
    let Some(message) = found else { return Ok(None) };
    let opened = asked.edge.log.opened(message).await?;
    Ok(opened.and_then(|message| serde_json::from_slice(&message.payload).ok()))
}

async fn put(asked: &Asked, of: &SessionRecord, proof: &Proof) -> Result<(), BadFrame> {
    let payload = serde_json::to_vec(proof).expect("a proof is a map with string keys");
    let subject = subjects::kv(BUCKET, &subjects::restore_key(of.session));
    let id = format!("restore-{}", Uuid::new_v4());
    let payload = asked.edge.log.seal(of.conversation, &subject, payload.into()).await?;
    Ok(asked.edge.log.put(&subject, &id, &[], payload).await?)
}
