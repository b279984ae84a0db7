//! What is known of a session's visitor, and how they proved it.
//!
//! Proof of identity belongs to the session that gave it, never to its conversation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::interaction::Contact;

/// What the fold keeps of a session beyond its opening.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    pub session: Uuid,
    /// What the visitor told: when the session was opened, or in a form.
    pub contact: Contact,
    /// A one-time password was sent and not entered yet.
    pub otp_sent: bool,
    /// The visitor proved to be reachable at the contact.
    pub verified: bool,
    /// The challenge whose password was sent last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Uuid>,
    /// The e-mail address that the session proved, in the form of owners: it may do what the owner may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<String>,
}

impl Known {
    pub fn new(session: Uuid) -> Self {
        Self { session, contact: Contact::default(), otp_sent: false, verified: false, challenge: None, proved: None }
    }
}

/// How a user proved to be who the session says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentificationMethod {
    /// A one-time password that was sent to the session's e-mail address or phone.
    Otp,
}

/// What a one-time password is for. A proof for one purpose is none for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtpPurpose {
    /// A tool that is called only for users who proved who they are.
    #[default]
    Tool,
    /// The conversations of an address, on another device.
    Restore,
}

impl OtpPurpose {
    /// Whether it is for a tool, which is not written down.
    pub fn is_tool(&self) -> bool {
        *self == Self::Tool
    }
}

/// How it is known that a session's e-mail address is its user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmailProof {
    /// It is not: the client said so.
    Told,
    /// A verified token names it.
    Token,
    /// The host's signed word about its user names it.
    Context,
    /// A one-time password that was sent there was entered.
    Challenge,
}

/// A one-time password was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtpChallenge {
    /// What the tool would do, in words for a visitor.
    pub description: String,
    /// Where a password could be sent, e-mail first.
    pub channels: Vec<OtpChannel>,
    /// The id of the challenge whose password was sent; absent in events from before challenges, which prove nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Uuid>,
    /// Where it was sent; absent = it could not be.
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
