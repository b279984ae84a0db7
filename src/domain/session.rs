//! Facts known of a session's visitor, and how they were proved.
//!
//! Proof of identity belongs to the session that gave it, never to its conversation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::interaction::Contact;

/// Facts that the fold keeps of a session beyond its opening.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    pub session: Uuid,
    /// Contact given by the visitor: when the session was opened, or in a form.
    pub contact: Contact,
    /// A one-time password was sent and not entered yet.
    pub otp_sent: bool,
    /// The visitor proved to be reachable at the contact.
    pub verified: bool,
    /// The challenge of the password that was sent last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Uuid>,
    /// The e-mail address that the session proved, in the owners' form; the session has that owner's rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<String>,
}

impl SessionFacts {
    pub fn new(session: Uuid) -> Self {
        Self { session, contact: Contact::default(), otp_sent: false, verified: false, challenge: None, proved: None }
    }
}

/// The method by which a user proved to be the session's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentificationMethod {
    /// A one-time password that was sent to the session's e-mail address or phone.
    Otp,
}

/// The purpose of a one-time password. A proof for one purpose does not count for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtpPurpose {
    /// Calling a tool that requires a proved identity.
    #[default]
    Tool,
    /// Restoring the conversations of an address on another device.
    Restore,
}

impl OtpPurpose {
    /// Returns whether the purpose is a tool, the default that is not serialised.
    pub fn is_tool(&self) -> bool {
        *self == Self::Tool
    }
}

/// The proof that a session's e-mail address is its user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmailProof {
    /// No proof: the client only claimed the address.
    Told,
    /// A verified token names the address.
    Token,
    /// The host's signed user context names the address.
    Context,
    /// A one-time password sent to the address was entered.
    Challenge,
}

/// A request for a one-time password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtpChallenge {
    /// Description of the tool's effect, in words for a visitor.
    pub description: String,
    /// Channels that could take a password, e-mail first.
    pub channels: Vec<OtpChannel>,
    /// The challenge of the password that was sent; absent in events older than challenges, which no longer prove anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Uuid>,
    /// Destination of the password; absent = it could not be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<OtpSent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtpChannel {
    Email,
    Sms,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtpSent {
    pub channel: OtpChannel,
    pub masked_destination: String,
}
