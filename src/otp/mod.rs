//! One-time passwords: a NATS service that the host provides sends and checks them.
//!
//! - [`challenge`]: the address that each password proves.   - [`allowance`]: rate limits.
//!
//! Contract of the service: endpoints on `otp.{org}.send` and `otp.{org}.verify`. `send` gets `{challenge, purpose, flow, session,
//! conversation, email?, phone?}` and answers `{channel: email|sms, maskedDestination}`, or with the services API's error headers
//! when nothing could be sent. `verify` gets `{challenge, purpose, flow, session, code}` and the `email` or `phone` that the password
//! was sent to, and answers `{verified: true}`, or `{verified: false, attemptsRemaining, error?, message}`; 0 attempts = locked. A
//! service keeps one password for each challenge and forgets old ones; an answer that names a `challenge` counts for that one alone.
//! Codes are never logged here.

pub mod allowance;
pub mod challenge;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    calls::{CallError, ServiceCall, ServiceCaller},
    domain::{
        event::{OtpChannel, OtpPurpose},
        interaction::Contact,
    },
    limits, subjects,
};

/// The reason why the service did not serve a request.
#[derive(Debug, thiserror::Error)]
pub enum OtpServiceError {
    /// The host provides no service.
    #[error("no one-time password service is available")]
    NoService,
    /// The service reports that it did nothing.
    #[error("the service refused: {0}")]
    Refused(String),
    /// The service may have acted.
    #[error("{0}")]
    Failed(String),
}

/// The service's verdict on a password.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtpVerdict {
    pub verified: bool,
    #[serde(default)]
    pub attempts_remaining: u32,
    /// `INVALID_CODE`, `MAX_ATTEMPTS`, `NOT_FOUND` or `EXPIRED`.
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub message: String,
    /// The challenge that the answer is about; a service of the version before names none.
    #[serde(default)]
    pub challenge: Option<Uuid>,
}

#[derive(Serialize)]
struct Send<'a> {
    challenge: Uuid,
    purpose: OtpPurpose,
    flow: &'static str,
    session: Uuid,
    conversation: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<&'a str>,
}

#[derive(Serialize)]
struct Verify<'a> {
    challenge: Uuid,
    purpose: OtpPurpose,
    flow: &'static str,
    session: Uuid,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<&'a str>,
}

/// Returns the flow of a password: over the socket of the conversation, or by a page's requests over HTTP.
fn flow(purpose: OtpPurpose) -> &'static str {
    match purpose {
        OtpPurpose::Tool => "socket",
        OtpPurpose::Restore => "http",
    }
}

/// Returns the channels that can reach a contact, e-mail first.
pub fn channels(contact: &Contact) -> Vec<OtpChannel> {
    let email = contact.email.as_ref().map(|_| OtpChannel::Email);
    let sms = contact.phone.as_ref().map(|_| OtpChannel::Sms);
    email.into_iter().chain(sms).collect()
}

async fn ask<T: for<'a> Deserialize<'a>>(
    caller: &ServiceCaller,
    org: &str,
    verb: &str,
    question: &impl Serialize,
) -> Result<T, OtpServiceError> {
    let payload = serde_json::to_vec(question).expect("questions are maps with string keys");
    let call = ServiceCall {
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
        Err(CallError::NoService) => return Err(OtpServiceError::NoService),
        Err(error) if error.is_not_sent() => return Err(OtpServiceError::Refused(error.to_string())),
        Err(error) => return Err(OtpServiceError::Failed(error.to_string())),
    };
    if let Some(error) = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
        return Err(OtpServiceError::Refused(error.to_string()));
    }
    // The service's answer may hold an address, so only the kind of the mistake is told.
    serde_json::from_slice(&reply.payload)
        .map_err(|error| OtpServiceError::Failed(format!("{:?} in its answer", error.classify())))
}
