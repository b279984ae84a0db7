//! The terminal events of a turn.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Citation, FrameTrace, Participant, ReplyEnd, ReplyTiming, Response, Usage};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnCompleted {
    pub turn: Uuid,
    pub epoch: u64,
    pub request_id: String,
    pub message_id: Uuid,
    pub response: Response,
    /// Index of the model call that streamed the answer; absent = the answer is not one call's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<u32>,
    pub needs_escalation: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation_reason: Option<String>,
    /// The workflow judge's verdict on the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Box<StepJudged>>,
    /// Preamble shown to the visitor while the answer was awaited, if this is the turn's first model call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preamble: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub citations: Vec<Citation>,
    /// Sum over all model calls of the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The way the last reply ended; absent = no reply ended the turn, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<ReplyEnd>,
    pub user: Participant,
    pub agent: Participant,
    /// Times of the model call; absent = no call was made for it, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<ReplyTiming>,
    /// Record of the last model call's frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<FrameTrace>,
}

/// A verdict on a step of an agent's workflow, given after an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepJudged {
    pub step: String,
    pub done: bool,
    /// The conversation's next step; absent = the workflow is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The judge's words, for operators.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnFailed {
    pub turn: Uuid,
    pub epoch: u64,
    pub request_id: String,
    pub reason: FailureReason,
    /// For operators; never shown to a client.
    pub detail: String,
    /// Times of the model call; absent = no call was made for it, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<ReplyTiming>,
    /// Record of the frames shown of the model call that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<FrameTrace>,
}

/// The reason why a turn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The model could not be reached, refused, or gave a response that is not an answer.
    Model,
    /// The model's reply was cut off before it held any text.
    Cut,
    /// A content filter left nothing of the model's reply.
    Filtered,
    /// The turn's content is larger than an event may be.
    TooLarge,
    /// The agent's configuration that the turn names was not found.
    NoConfiguration,
    /// No worker of the pool has a key for the gateway.
    NoGatewayKey,
    /// The turn was claimed too often without a step forward.
    Poison,
    /// The turn made no progress within its limit, or exceeded the limit for a whole turn.
    Expired,
    /// A reason that this program does not know.
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnCancelled {
    pub turn: Uuid,
    pub request_id: String,
    /// The session that asked for the end; zeros = an operator, or an edge that found no worker.
    pub by: Uuid,
    /// Absent = the user stopped the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CancelReason>,
    /// Stored after this moment the event is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
}

/// The reason why a turn was ended without its user stopping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The turn waited for a person, and its visitor sent a new message instead. The waiting tool was not called.
    Superseded,
    /// The turn was queued, and its pool had no worker for as long as a turn may wait.
    NoWorker,
    /// An operator ended the turn.
    Operator,
    /// A reason that this program does not know.
    #[serde(other)]
    Other,
}
