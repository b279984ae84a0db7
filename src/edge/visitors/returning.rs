//! `resume-by-fingerprint`: the last session of a returning browser.
//!
//! A fingerprint does not prove an identity. It leads back only to sessions within an anonymous visitor's reach: never to a
//! session with a proof, and where tokens are on, never to a conversation that has gained an owner.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::PageRequest;
use crate::{
    domain::session::SessionFacts,
    edge::Edge,
    limits,
    log::conversations::Freshness,
    nats::{ReadError, ReadFrom},
    subjects,
    wire::{actions::BadFrame, stored::SessionRecord},
};

/// The bucket of visitors, and the stream behind it.
const BUCKET: &str = "VISITORS";
const STREAM: &str = "KV_VISITORS";

/// Records that a browser has opened a session. The write is not awaited: a lost one only means that the session is not resumed.
pub fn remember(edge: &Arc<Edge>, record: &SessionRecord, fingerprint: Option<String>) {
    let Some(fingerprint) = fingerprint.filter(|fingerprint| !fingerprint.trim().is_empty()) else { return };
    let subject = subjects::kv(BUCKET, &subjects::visitor_key(&record.org, &record.agent_id, &fingerprint));
    let (log, session) = (edge.log.clone(), record.session);
    tokio::spawn(async move {
        let put = log.put(&subject, &format!("visitor-{session}"), &[], session.to_string().into()).await;
        if let Err(error) = put {
            tracing::debug!(%error, "a visitor was not remembered");
        }
    });
}

/// Returns the browser's last session, or the reason why it is not resumable.
pub(super) async fn resume(asked: &PageRequest) -> Result<Value, BadFrame> {
    let fingerprint = asked.fields.required_text("browserFingerprint")?;
    let fingerprint: String = fingerprint.chars().take(limits::NAME_MAX_CHARS).collect();
    let not_resumable = |reason: &str| Ok(json!({ "resumable": false, "reason": reason }));
    let Some(session) = find(asked, &fingerprint).await? else { return not_resumable("no_prior_visit") };
    let Some(record) = asked.edge.sessions.find(session, |_| true).await? else { return not_resumable("session_gone") };
    let key = asked.edge.key(&record.org, record.conversation).filter(|_| record.org == asked.org);
    let Some(key) = key else { return not_resumable("session_gone") };
    // The conversation may have gained its owner after the session was opened.
    let state = asked.edge.conversations.load(&key, Freshness::AtLeast(0)).await?;
    let proved = |known: &SessionFacts| known.verified || known.proved.is_some();
    let has_proved = record.proved.is_some() || state.sessions.iter().any(proved);
    let reaches = |owner: Option<&str>| asked.may_reach(owner, None);
    if has_proved || !reaches(state.owner.as_deref()) || !reaches(record.owner.as_deref()) {
        return not_resumable("identified");
    }
    Ok(json!({
        "resumable": true, "reason": "resumable", "sessionId": record.session, "conversationId": record.conversation,
    }))
}

async fn find(asked: &PageRequest, fingerprint: &str) -> Result<Option<Uuid>, ReadError> {
    let subject = subjects::kv(BUCKET, &subjects::visitor_key(&asked.org, &asked.agent, fingerprint));
    let found = asked.edge.log.get(STREAM, &json!({ "last_by_subj": subject }), ReadFrom::Replica).await?;
    Ok(found.and_then(|message| std::str::from_utf8(&message.payload).ok()?.parse().ok()))
}
