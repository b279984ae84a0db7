//! `verify_otp`: a visitor proves who they are by the password that was sent to them.
//!
//! The host's service checks it. What it confirms becomes an event of the session before the visitor is told; nothing of it
//! passes to another session of the conversation.

use chrono::Utc;

use super::{Connection, session, session_not_found};
use crate::{
    domain::{
        Command,
        event::{IdentificationMethod, SessionIdentified},
    },
    limits,
    log::load::{ExecuteError, Freshness},
    otp,
    wire::{
        actions::{BadFrame, Request, invalid},
        frames::{ErrorCode, Frame, Nested},
        prompts::{OtpError, OtpInvalidData, OtpVerifiedData},
    },
};

pub(super) async fn serve(connection: &mut Connection, request: &Request) -> Result<(), BadFrame> {
    let request_id = request.required_id()?;
    let id = request.fields.required_session()?;
    let code = request.fields.required_text("code")?.trim();
    if code.len() > limits::OTP_CODE_MAX_BYTES {
        return Err(invalid("`code` is too long"));
    }
    let (record, key) = session(connection, id).await?.ok_or_else(session_not_found)?;
    let edge = connection.edge.clone();
    let state = edge.conversations.load(&key, Freshness::Leader).await?;
    if !state.known(record.session).is_some_and(|known| known.otp_sent) {
        return not_accepted(connection, request_id, Some(OtpError::NotFound), 0, "There is no code to enter.");
    }
    let verdict = otp::verify(&edge.client, &key.org, record.session, code).await.map_err(|error| {
        tracing::warn!(%error, session = %record.session, "a one-time password could not be checked");
        let message = "the code can't be checked now, please try again".into();
        BadFrame { code: ErrorCode::InternalError, message }
    })?;
    if !verdict.verified {
        let error = verdict.error.as_deref().and_then(OtpError::parse);
        let message = if verdict.message.is_empty() { "This code is not right." } else { verdict.message.as_str() };
        return not_accepted(connection, request_id, error, verdict.attempts_remaining, message);
    }
    let identified = SessionIdentified { session: record.session, method: IdentificationMethod::Otp, not_after: None };
    match edge.conversations.execute(&key, state, &Command::Identify(identified), &edge.decider()).await {
        Ok(_) => {}
        // The contact has changed meanwhile: the password was sent to another one.
        Err(ExecuteError::Refused(_)) => {
            return not_accepted(connection, request_id, Some(OtpError::Expired), 0, "Please ask for a new code.");
        }
        Err(error) => return Err(error.into()),
    }
    let data = Nested { request_id, data: OtpVerifiedData { message: "Thank you, that worked." } };
    push(connection, Frame::OtpVerified { request_id, timestamp: Utc::now().timestamp_millis(), data })
}

fn not_accepted(
    connection: &mut Connection,
    request_id: &str,
    error: Option<OtpError>,
    attempts_remaining: u32,
    message: &str,
) -> Result<(), BadFrame> {
    let data = Nested { request_id, data: OtpInvalidData { error, attempts_remaining, message } };
    push(connection, Frame::OtpInvalid { request_id, timestamp: Utc::now().timestamp_millis(), data })
}

fn push(connection: &mut Connection, frame: Frame) -> Result<(), BadFrame> {
    connection.out.push(frame.to_bytes());
    Ok(())
}
