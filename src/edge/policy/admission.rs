//! Admission of sessions and messages: quotas, the widget's policy, and the host's assertion about its user.
//!
//! A host's `authContext` holds once: its signature is put into a bucket under a key that can't be written a second time,
//! so every edge refuses it from then on. The bucket forgets the key when the context would be too old anyway.

use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::quota::QuotaError;
use crate::{
    auth::widget::{HostProof, WidgetRefusal},
    edge::client::Connection,
    nats::{AppendError, ReadFrom},
    subjects::{self, ConversationKey, PushTo},
    wire::{
        actions::{BadFrame, FrameFields},
        frames::ErrorCode,
    },
};

/// The bucket of used signatures.
const BUCKET: &str = "ONCE";
const STREAM: &str = "KV_ONCE";

/// The organisation and the user of an admitted session.
pub struct AdmittedSession {
    pub org: String,
    /// The host's user, if the host has proved the user's identity.
    pub user: Option<String>,
}

/// Counts a permanent write of a client that is not a message.
pub fn admit_write(connection: &mut Connection) -> Result<(), BadFrame> {
    let (quota, address) = (connection.edge.quota.clone(), connection.address);
    let counted = quota.write(address, &mut connection.written);
    counted.map_err(|error| limited(connection, error))
}

/// Admits a new session by quota, widget policy and host context, and finds its organisation.
pub async fn admit(connection: &mut Connection, fields: &FrameFields) -> Result<AdmittedSession, BadFrame> {
    admit_write(connection)?;
    let edge = connection.edge.clone();
    let opened = edge.quota.open_session(connection.address).await;
    opened.map_err(|error| limited(connection, error))?;
    let (agent, context) = (fields.text("agentId")?, fields.raw("authContext"));
    let admitted = edge.widgets.admit(agent, connection.origin.as_deref(), context, Utc::now().timestamp()).await;
    let admitted = admitted.map_err(refused)?;
    if let Some(org) = &admitted.org {
        connection.belongs_to(org);
    }
    let org = connection.org().to_string();
    let Some(proof) = admitted.proof else { return Ok(AdmittedSession { org, user: None }) };
    use_once(connection, &proof).await?;
    connection.registration.called(PushTo::User, &org, &proof.user);
    Ok(AdmittedSession { org, user: Some(proof.user) })
}

/// Returns the client's error for a quota error, also for requests outside of a connection.
pub fn too_much(error: QuotaError) -> BadFrame {
    match error {
        QuotaError::Limited(seconds) => BadFrame {
            code: ErrorCode::RateLimited,
            message: format!("this is too much at once, please try again in {seconds} s"),
        },
        QuotaError::Read(error) => error.into(),
        QuotaError::Write(error) => error.into(),
    }
}

/// Counts a message that requests a turn.
pub async fn admit_message(connection: &mut Connection, key: &ConversationKey, turn: Uuid) -> Result<(), BadFrame> {
    let edge = connection.edge.clone();
    let sent = edge.quota.send_message(&edge.conversations, key, turn, &mut connection.used).await;
    sent.map_err(|error| limited(connection, error))
}

fn limited(connection: &mut Connection, error: QuotaError) -> BadFrame {
    if let QuotaError::Limited(seconds) = error {
        connection.retry_after_secs = Some(seconds);
    }
    too_much(error)
}

async fn use_once(connection: &Connection, proof: &HostProof) -> Result<(), BadFrame> {
    let subject = subjects::kv(BUCKET, &subjects::once_key(&proof.id));
    let id = format!("once-{}", Uuid::new_v4());
    let log = &connection.edge.log;
    match log.put_first(&subject, &id, id.clone().into()).await {
        Ok(()) => Ok(()),
        // The key may come from this very call: its first try was stored and not acknowledged.
        Err(AppendError::Conflict) => {
            let used = log.get(STREAM, &json!({ "last_by_subj": subject }), ReadFrom::Leader).await?;
            match used.is_some_and(|used| used.payload == id) {
                true => Ok(()),
                false => Err(refused(WidgetRefusal::Context)),
            }
        }
        Err(error) => Err(error.into()),
    }
}

pub(in crate::edge) fn refused(refusal: WidgetRefusal) -> BadFrame {
    let (code, message) = match refusal {
        WidgetRefusal::NotAuthorized => (ErrorCode::AgentNotAuthorized, "this agent may not be used here"),
        WidgetRefusal::Origin => (ErrorCode::OriginNotAllowed, "this page may not use the agent"),
        WidgetRefusal::Context => (ErrorCode::AuthContextInvalid, "`authContext` is not valid"),
    };
    BadFrame { code, message: message.into() }
}
