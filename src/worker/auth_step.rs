//! Tools with an identity demand: the refusal of a call, and the one-time password that lifts it.
//!
//! The turn does not wait: the tool is refused, a password is sent, and the model tells its visitor. After entering the
//! password, visitors send their message again.

use uuid::Uuid;

use super::{profile::AuthDemand, turn_run::TurnRun};
use crate::{
    domain::{
        CallState, Turn,
        event::{CallRequested, OtpChallenge, OtpChannel, OtpPurpose, OtpSent},
        interaction::Contact,
    },
    otp::{
        self, OtpServiceError,
        allowance::OtpRequester,
        challenge::{ChallengeTarget, OtpSendError},
    },
    tools::{ToolCallOutcome, ToolResult},
};

/// The reason why a call is refused.
pub(super) struct AuthRefusal {
    pub demand: AuthDemand,
    description: String,
    contact: Contact,
}

/// Returns whether a password was requested when this call was refused.
pub(super) fn is_password_sent(call: &CallState) -> bool {
    call.result.as_ref().is_some_and(|result| result.notices > 0)
}

impl TurnRun<'_> {
    /// Returns the refusal of a call if the visitor has not met its tool's demand.
    pub(super) fn refused(&self, turn: &Turn, call: &CallRequested) -> Option<AuthRefusal> {
        let (tool, rule) = self.profile.tool(&self.key, &call.name)?;
        let demand = self.profile.demands(&self.state, turn, &tool, &rule)?;
        let known = self.state.known(turn.request.session);
        let contact = known.map(|known| known.contact.clone()).unwrap_or_default();
        Some(AuthRefusal { demand, description: call.description.clone(), contact })
    }

    /// Whether the visitor has to do something before this tool may be called for them.
    pub(super) fn demands_of(&self, turn: &Turn, tool: &str) -> bool {
        let found = self.profile.tool(&self.key, tool);
        found.is_some_and(|(tool, rule)| self.profile.demands(&self.state, turn, &tool, &rule).is_some())
    }

    /// The result of a call that is refused, as a future that borrows nothing of the run; `sends`: a password is sent if it
    /// can be.
    pub(super) fn refuse(
        &self,
        turn: &Turn,
        call: CallRequested,
        refused: AuthRefusal,
        sends: bool,
    ) -> impl Future<Output = (CallRequested, ToolCallOutcome)> + Send + use<> {
        let challenges = self.worker.challenges.clone();
        let (org, conversation, session) = (self.key.org.clone(), self.key.conversation, turn.request.session);
        let source = turn.request.source.clone();
        async move {
            let AuthRefusal { demand, description, contact } = refused;
            let channels = otp::channels(&contact);
            let result = match demand {
                AuthDemand::BeAdministrator => ToolResult::error("Not done: only an administrator may have this done."),
                AuthDemand::ProveIdentity if channels.is_empty() => ToolResult::error(
                    "Not done: the visitor has to prove who they are, and no e-mail address or phone number is known. Ask \
                     for one (with `request_identity_intake`, if you have it), and to send their message again afterwards.",
                ),
                AuthDemand::ProveIdentity if !sends => {
                    ToolResult::error("Not done: the visitor has to prove who they are first.")
                }
                AuthDemand::ProveIdentity => {
                    let asker = OtpRequester { org: &org, session, source: source.as_deref() };
                    let challenged = ChallengeTarget { asker, conversation, purpose: OtpPurpose::Tool };
                    sent(challenges.send(&challenged, &contact).await, description, channels, session)
                }
            };
            (call, result.into())
        }
    }
}

/// Builds the result for the model and the visitor after an attempt to send a password.
fn sent(
    sent: Result<(OtpSent, Uuid), OtpSendError>,
    description: String,
    channels: Vec<OtpChannel>,
    session: Uuid,
) -> ToolResult {
    match sent {
        Ok((sent, challenge)) => {
            let text = told(sent.channel);
            let otp = OtpChallenge { description, channels, challenge: Some(challenge), sent: Some(sent) };
            ToolResult { otp: Some(otp), ..ToolResult::error(text) }
        }
        Err(OtpSendError::Service(OtpServiceError::NoService)) => {
            ToolResult::error("Not done: the visitor has to prove who they are, which is not possible here.")
        }
        Err(OtpSendError::Later(_)) => ToolResult::error(
            "Not done: the visitor has to prove who they are, and no further code may be sent now. They may enter the one that \
             they have got, or try again later.",
        ),
        Err(cause) => {
            tracing::warn!(%cause, %session, "a one-time password was not sent");
            let otp = OtpChallenge { description, channels, challenge: None, sent: None };
            let text = "Not done: the visitor has to prove who they are, and no code could be sent now.";
            ToolResult { otp: Some(otp), ..ToolResult::error(text) }
        }
    }
}

fn told(channel: OtpChannel) -> String {
    let place = match channel {
        OtpChannel::Email => "e-mail address",
        OtpChannel::Sms => "phone",
    };
    format!(
        "Not done yet: the visitor has to prove who they are. A code was sent to their {place}. Ask them to enter it, and to \
         send their message again afterwards."
    )
}
