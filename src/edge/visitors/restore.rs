//! `identity/request-otp`, `identity/verify-otp`, `identity/resolve`: gives a visitor on another device the earlier
//! conversations back, on proof of an e-mail address.
//!
//! The host's service sends a password to the address and checks it. The proof is kept for a while under the session that asked;
//! it is worth nothing for another session or another address. Each conversation is opened in a session of its own. That
//! session's id is enough to use the conversation: the visitor has proved ownership, and has no token to show.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{PageRequest, session_not_found};
use crate::{
    domain::{
        Command,
        conversation::owner_of,
        event::{
            EmailProof, IdentificationMethod, OtpChannel, OtpPurpose, Participant, SessionIdentified, SessionOpened,
        },
        interaction::Contact,
    },
    ids, limits,
    lists::{ListEntry, query::ListQuery},
    log::conversations::Freshness,
    nats::{ReadError, ReadFrom},
    otp::{
        OtpVerdict,
        allowance::OtpRequester,
        challenge::{ChallengeTarget, OtpCheck, OtpCheckError, OtpSendError, VerifiedContact},
    },
    subjects::{self, ConversationKey, OwnerScope},
    wire::{
        actions::{BadFrame, invalid},
        frames::{ErrorCode, shown_time},
        stored::SessionRecord,
    },
};

/// The bucket of the sessions' proofs, and the stream behind it.
const BUCKET: &str = "RESTORE";
const STREAM: &str = "KV_RESTORE";

/// A session's proof of an address.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RestoreProof {
    /// The address, in the form of owners.
    email: String,
    /// The challenge of the proof. Proofs stored before challenges have none, and no longer count.
    #[serde(default)]
    challenge: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verified_at: Option<DateTime<Utc>>,
    /// The sessions opened for the proof, by conversation, so that a repeated request opens no others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    opened: BTreeMap<Uuid, Uuid>,
}

/// Sends a one-time password.
pub(super) async fn request(asked: &PageRequest) -> Result<Value, BadFrame> {
    let email = email(asked)?;
    match asked.fields.text("channel")? {
        None | Some("email") => {}
        Some(_) => return Err(invalid("`channel` is email: an address can only be proved by a letter to it")),
    }
    let (record, _) = asked.session().await?;
    let contact = Contact { email: Some(email), ..Contact::default() };
    let sent = asked.edge.challenges.send(&challenged(asked, &record), &contact).await;
    let (sent, _) = sent.map_err(|error| match error {
        OtpSendError::Later(seconds) => BadFrame {
            code: ErrorCode::RateLimited,
            message: format!("too many codes were sent, please try again in {seconds} s"),
        },
        OtpSendError::Read(error) => error.into(),
        OtpSendError::Write(error) => error.into(),
        OtpSendError::Service(error) => {
            tracing::warn!(%error, session = %record.session, "a one-time password could not be sent");
            BadFrame { code: ErrorCode::OtpSendFailed, message: "the code could not be sent".into() }
        }
    })?;
    if sent.channel != OtpChannel::Email {
        tracing::warn!(session = %record.session, "the one-time password service sent a password to another address than asked");
        return Err(BadFrame { code: ErrorCode::OtpSendFailed, message: "the code could not be sent".into() });
    }
    Ok(json!({ "event": "otp_sent", "channel": "email", "maskedDestination": sent.masked_destination }))
}

fn challenged<'a>(asked: &'a PageRequest, record: &SessionRecord) -> ChallengeTarget<'a> {
    let asker = OtpRequester { org: &asked.org, session: record.session, source: Some(&asked.source) };
    ChallengeTarget { asker, conversation: record.conversation, purpose: OtpPurpose::Restore }
}

/// Checks a one-time password.
pub(super) async fn verify(asked: &PageRequest) -> Result<Value, BadFrame> {
    let (email, code) = (email(asked)?, asked.fields.required_text("code")?.trim());
    if code.len() > limits::OTP_CODE_MAX_BYTES {
        return Err(invalid("`code` is too long"));
    }
    let (record, key) = asked.session().await?;
    let is_meant = |proved: &VerifiedContact| proved.email.as_deref() == Some(&email);
    let entered = asked.edge.challenges.enter(&challenged(asked, &record), code, is_meant).await;
    let refused = |error: &str, left: u32| json!({ "event": "otp_invalid", "error": error, "attemptsRemaining": left });
    let proved = match entered.map_err(|error| not_checked(error, &record))? {
        OtpCheck::Proved(proved) => proved,
        OtpCheck::NoChallenge => return Ok(refused("NOT_FOUND", 0)),
        OtpCheck::Replaced => return Ok(refused("EXPIRED", 0)),
        OtpCheck::Wrong(OtpVerdict { error: Some(error), attempts_remaining, .. }) => {
            return Ok(refused(&error, attempts_remaining));
        }
        OtpCheck::Wrong(OtpVerdict { attempts_remaining, .. }) => {
            return Ok(json!({ "event": "otp_invalid", "attemptsRemaining": attempts_remaining }));
        }
    };
    own(asked, &record, &key, &proved).await?;
    let (challenge, verified_at) = (Some(proved.challenge), Some(Utc::now()));
    put(asked, &record, &RestoreProof { email, challenge, verified_at, opened: BTreeMap::new() }).await?;
    Ok(json!({ "event": "otp_verified" }))
}

/// Makes the address the owner of the session's own conversation, unless that has an owner already.
async fn own(
    asked: &PageRequest,
    record: &SessionRecord,
    key: &ConversationKey,
    proved: &VerifiedContact,
) -> Result<(), BadFrame> {
    let edge = &asked.edge;
    let state = edge.conversations.load(key, Freshness::Leader).await?;
    if !state.exists() {
        return Err(session_not_found());
    }
    let identified = SessionIdentified {
        session: record.session,
        method: IdentificationMethod::Otp,
        challenge: Some(proved.challenge),
        email: proved.email.clone(),
        phone: None,
        purpose: OtpPurpose::Restore,
        not_after: None,
    };
    edge.identify(key, state, identified).await?;
    Ok(())
}

/// Returns the error for a password that the service did not check.
pub(in crate::edge) fn not_checked(error: OtpCheckError, record: &SessionRecord) -> BadFrame {
    match error {
        OtpCheckError::Read(error) => error.into(),
        OtpCheckError::Write(error) => error.into(),
        OtpCheckError::Service(error) => {
            tracing::warn!(%error, session = %record.session, "a one-time password could not be checked");
            let message = "the code can't be checked now, please try again".into();
            BadFrame { code: ErrorCode::InternalError, message }
        }
    }
}

/// Returns the conversations of the session's proven address, each with a session to go on in.
pub(super) async fn resolve(asked: &PageRequest) -> Result<Value, BadFrame> {
    let email = email(asked)?;
    let (record, _) = asked.session().await?;
    let holds = |proof: &RestoreProof| proof.email == email && proof.verified_at.is_some() && proof.challenge.is_some();
    let proved = find(asked, record.session).await?.filter(holds);
    let Some(mut proof) = proved else { return Ok(json!({ "resolved": false, "conversations": [] })) };
    let known = proof.opened.len();
    let fits = |entry: &ListEntry| entry.conversation != record.conversation;
    let wanted =
        ListQuery { org: &asked.org, whose: OwnerScope::Owner(&email), after: None, limit: limits::RESTORED_MAX, fits };
    let page = asked.edge.lists.page(wanted).await?;
    let mut conversations = Vec::new();
    for entry in page.entries {
        let session = match proof.opened.get(&entry.conversation) {
            Some(session) => Some(*session),
            // The index may be behind the log, which decides.
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

/// Opens a session on a conversation, if the address owns it.
async fn open(
    asked: &PageRequest,
    by: &SessionRecord,
    email: &str,
    conversation: Uuid,
) -> Result<Option<Uuid>, BadFrame> {
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
        email_proof: Some(EmailProof::Challenge),
        browser_fingerprint: None,
        metadata: None,
        not_after: None,
    };
    let executed = edge.conversations.execute(&key, state, &Command::Open(opened.clone()), &edge.author()).await?;
    let record = SessionRecord {
        session: opened.session,
        org: key.org.clone(),
        conversation,
        agent_id: opened.agent_id,
        owner: Some(email.to_string()),
        // Reachable by this session's id: its visitor has no token to show.
        proved: Some(email.to_string()),
        user: opened.user,
        agent: opened.agent,
        created_at: executed.recorded.time,
    };
    Ok(Some(edge.sessions.add(&key.region, record).await?.session))
}

/// Returns the address that the request names, in the form of owners.
fn email(asked: &PageRequest) -> Result<String, BadFrame> {
    let text = asked.fields.required_text("email")?;
    let is_one = |email: &String| email.chars().count() <= limits::NAME_MAX_CHARS && email.contains('@');
    owner_of(text).filter(is_one).ok_or_else(|| invalid("`email` is not an e-mail address"))
}

async fn find(asked: &PageRequest, session: Uuid) -> Result<Option<RestoreProof>, ReadError> {
    let query = json!({ "last_by_subj": subjects::kv(BUCKET, &subjects::restore_key(session)) });
    // The proof may have been written a moment ago, on another edge.
    let found = asked.edge.log.get(STREAM, &query, ReadFrom::Leader).await?;
    let Some(message) = found else { return Ok(None) };
    let opened = asked.edge.log.decrypted(message).await?;
    Ok(opened.and_then(|message| serde_json::from_slice(&message.payload).ok()))
}

async fn put(asked: &PageRequest, of: &SessionRecord, proof: &RestoreProof) -> Result<(), BadFrame> {
    let payload = serde_json::to_vec(proof).expect("a proof is a map with string keys");
    let subject = subjects::kv(BUCKET, &subjects::restore_key(of.session));
    let id = format!("restore-{}", Uuid::new_v4());
    let payload = asked.edge.log.encrypt(of.conversation, &subject, payload.into()).await?;
    Ok(asked.edge.log.put(&subject, &id, &[], payload).await?)
}
