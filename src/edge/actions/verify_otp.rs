//! `verify_otp`: a visitor's proof of identity by the one-time password that was sent to the visitor.
//!
//! The host's service checks the password. The confirmed contact becomes an event of the session before the visitor is
//! told; no other session of the conversation takes part in the proof.

use chrono::Utc;

use super::{Connection, session, session_not_found};
use crate::{
    domain::{
        Conversation,
        event::{IdentificationMethod, OtpPurpose, SessionIdentified},
    },
    edge::visitors::restore::not_checked,
    limits,
    log::conversations::{ExecuteError, Freshness},
    otp::{
        allowance::OtpRequester,
        challenge::{ChallengeTarget, OtpCheck, VerifiedContact},
    },
    wire::{
        actions::{BadFrame, ClientRequest, invalid},
        frames::{Frame, NestedData},
        prompts::{OtpError, OtpInvalidData, OtpVerifiedData},
        stored::SessionRecord,
    },
};

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let request_id = request.required_id()?;
    let id = request.fields.required_session()?;
    let code = request.fields.required_text("code")?.trim();
    if code.len() > limits::OTP_CODE_MAX_BYTES {
        return Err(invalid("`code` is too long"));
    }
    let (record, key) = session(connection, id).await?.ok_or_else(session_not_found)?;
    let edge = connection.edge.clone();
    let state = edge.conversations.load(&key, Freshness::Leader).await?;
    let asker = OtpRequester { org: &key.org, session: record.session, source: None };
    let challenged = ChallengeTarget { asker, conversation: record.conversation, purpose: OtpPurpose::Tool };
    let entered = edge.challenges.enter(&challenged, code, |proved| is_meant(&state, &record, proved)).await;
    let proved = match entered.map_err(|error| not_checked(error, &record))? {
        OtpCheck::Proved(proved) => proved,
        OtpCheck::NoChallenge => {
            return not_accepted(connection, request_id, Some(OtpError::NotFound), 0, "There is no code to enter.");
        }
        OtpCheck::Replaced => return expired(connection, request_id),
        OtpCheck::Wrong(verdict) => {
            let error = verdict.error.as_deref().and_then(OtpError::parse);
            let message = if verdict.message.is_empty() { "This code is not right." } else { verdict.message.as_str() };
            return not_accepted(connection, request_id, error, verdict.attempts_remaining, message);
        }
    };
    let identified = SessionIdentified {
        session: record.session,
        method: IdentificationMethod::Otp,
        challenge: Some(proved.challenge),
        email: proved.email,
        phone: proved.phone,
        purpose: OtpPurpose::Tool,
        not_after: None,
    };
    match edge.identify(&key, state, identified).await {
        Ok(()) => {}
        // The contact has changed meanwhile: the password was sent to the earlier one.
        Err(ExecuteError::Refused(_)) => return expired(connection, request_id),
        Err(error) => return Err(error.into()),
    }
    let data = NestedData { request_id, data: OtpVerifiedData { message: "Thank you, that worked." } };
    push(connection, Frame::OtpVerified { request_id, timestamp: Utc::now().timestamp_millis(), data })
}

/// Returns true if a challenge is the one that the session's turn has shown, for the session's current contact.
fn is_meant(state: &Conversation, record: &SessionRecord, proved: &VerifiedContact) -> bool {
    let Some(known) = state.known(record.session).filter(|known| known.otp_sent) else { return false };
    let is_contact = match (&proved.email, &proved.phone) {
        (Some(email), None) => known.contact.email.as_ref() == Some(email),
        (None, Some(phone)) => known.contact.phone.as_ref() == Some(phone),
        _ => false,
    };
    is_contact && known.challenge == Some(proved.challenge)
}

fn expired(connection: &mut Connection, request_id: &str) -> Result<(), BadFrame> {
    not_accepted(connection, request_id, Some(OtpError::Expired), 0, "Please ask for a new code.")
}

fn not_accepted(
    connection: &mut Connection,
    request_id: &str,
    error: Option<OtpError>,
    attempts_remaining: u32,
    message: &str,
) -> Result<(), BadFrame> {
    let data = NestedData { request_id, data: OtpInvalidData { error, attempts_remaining, message } };
    push(connection, Frame::OtpInvalid { request_id, timestamp: Utc::now().timestamp_millis(), data })
}

fn push(connection: &mut Connection, frame: Frame) -> Result<(), BadFrame> {
    connection.out.push(frame.to_bytes());
    Ok(())
}
