//! Parts of frames that ask a visitor a question, and of frames that report the outcome.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::domain::{event::OtpChannel, field::FieldError};

/// `data` of `write_confirmation_required`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmationData<'a> {
    pub tool_id: &'a str,
    pub action_description: &'a str,
}

/// `data` of `interaction_required`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InteractionData<'a> {
    pub interaction_id: Uuid,
    pub kind: &'a str,
    /// `{fields}` or `{questions}`.
    #[schemars(with = "Map<String, Value>")]
    pub spec: Value,
    pub reason: &'a str,
}

/// `data` of `interaction_invalid`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InvalidData<'a> {
    pub interaction_id: Uuid,
    pub kind: &'a str,
    #[schemars(length(min = 1))]
    pub errors: &'a [FieldError],
    pub message: &'a str,
}

/// `data` of `otp_verification_required`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtpRequiredData<'a> {
    pub tool_id: &'a str,
    pub action_description: &'a str,
    #[schemars(length(min = 1))]
    pub available_channels: &'a [OtpChannel],
    pub auth_level: &'a str,
}

/// `data` of `otp_sent`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtpSentData<'a> {
    pub channel: OtpChannel,
    pub masked_destination: &'a str,
}

/// `data` of `otp_verified`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtpVerifiedData<'a> {
    pub message: &'a str,
}

/// `data` of `otp_invalid`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtpInvalidData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<OtpError>,
    /// 0 = no more.
    pub attempts_remaining: u32,
    pub message: &'a str,
}

/// The reason why a one-time password was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OtpError {
    InvalidCode,
    MaxAttempts,
    NotFound,
    Expired,
}

impl OtpError {
    /// Parses an error name that the host's service gives.
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(name.into()).ok()
    }
}

/// `data` of the answer to `submit_interaction` with values.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Submitted")]
pub struct SubmitReply<'a> {
    pub session_id: Uuid,
    pub interaction_id: Uuid,
    pub kind: &'a str,
    /// The values as they were checked.
    pub values: &'a Map<String, Value>,
}

/// `data` of the answer to `submit_interaction` that declines.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Declined")]
pub struct DeclineReply {
    pub session_id: Uuid,
    pub interaction_id: Uuid,
    pub declined: bool,
}
