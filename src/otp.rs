//! One-time passwords: a NATS service that the host provides sends and checks them.
//!
//! Contract of the service: endpoints on `otp.{org}.send` and `otp.{org}.verify`. `send` gets `{session, conversation, email?,
//! phone?}` and answers `{channel: email|sms, maskedDestination}`, or with the services API's error headers when nothing
//! could be sent. `verify` gets `{session, code}` and answers `{verified: true}`, or `{verified: false, attemptsRemaining,
//! error?, message}`; 0 attempts = locked. It counts the attempts and forgets old passwords; codes are never logged here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    calls::{Call, CallError, Caller},
    domain::{
        event::{OtpChannel, OtpSent},
        interaction::Contact,
    },
    limits, subjects,
};

/// Why the service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OtpError {
    /// The host provides none.
    #[error("there is no service for one-time passwords")]
    NoService,
    #[error("{0}")]
    Failed(String),
}

/// What the service says of a password.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub verified: bool,
    #[serde(default)]
    pub attempts_remaining: u32,
    /// `INVALID_CODE`, `MAX_ATTEMPTS`, `NOT_FOUND` or `EXPIRED`.
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub message: String,
}

#[derive(Serialize)]
struct Send<'a> {
    session: Uuid,
    conversation: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<&'a str>,
}

#[derive(Serialize)]
struct Verify<'a> {
    session: Uuid,
    code: &'a str,
}

/// Where a password can be sent, e-mail first.
pub fn channels(contact: &Contact) -> Vec<OtpChannel> {
    let email = contact.email.as_ref().map(|_| OtpChannel::Email);
    let sms = contact.phone.as_ref().map(|_| OtpChannel::Sms);
    email.into_iter().chain(sms).collect()
}

/// Has a password sent to a session's visitor.
pub async fn send(
    caller: &Caller,
    org: &str,
    conversation: Uuid,
    session: Uuid,
    contact: &Contact,
) -> Result<OtpSent, OtpError> {
    let (email, phone) = (contact.email.as_deref(), contact.phone.as_deref());
    ask(caller, org, "send", &Send { session, conversation, email, phone }).await
}

/// Has a password checked.
pub async fn verify(caller: &Caller, org: &str, session: Uuid, code: &str) -> Result<Verdict, OtpError> {
    ask(caller, org, "verify", &Verify { session, code }).await
}

async fn ask<T: for<'a> Deserialize<'a>>(
    caller: &Caller,
    org: &str,
    verb: &str,
    question: &impl Serialize,
) -> Result<T, OtpError> {
    let payload = serde_json::to_vec(question).expect("questions are maps with string keys");
    let call = Call {
        subject: subjects::otp(org, verb),
        headers: vec![
            ("Turnstream-Call-Id", Uuid::new_v4().to_string()),
            ("Turnstream-Org", subjects::encode_token(org)),
        ],
        payload: payload.into(),
        timeout: Duration::from_millis(limits::OTP_MS),
    };
    let reply = match caller.call(call).await {
        Ok(reply) => reply,
        Err(CallError::NoService) => return Err(OtpError::NoService),
        Err(error) => return Err(OtpError::Failed(error.to_string())),
    };
    if let Some(error) = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
        return Err(OtpError::Failed(error.to_string()));
    }
    // What the service said may hold an address, so only the kind of the mistake is told.
    serde_json::from_slice(&reply.payload)
        .map_err(|error| OtpError::Failed(format!("{:?} in its answer", error.classify())))
}
