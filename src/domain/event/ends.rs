//! The ends of a turn.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Citation, Participant, ReplyEnd, Response, Shown, Usage};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnCompleted {
    pub turn: Uuid,
    pub epoch: u64,
    pub request_id: String,
    pub message_id: Uuid,
    pub response: Response,
    /// Index of the model call whose streamed text is the answer; absent when the answer is not one call's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<u32>,
    pub needs_escalation: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation_reason: Option<String>,
    /// What the judge of the agent's workflow said of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<StepJudged>,
    /// What the visitor was told while the answer was awaited, when this is the turn's first model call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preamble: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub citations: Vec<Citation>,
    /// Over all model calls of the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// How the last reply ended; absent = no reply ended the turn, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<ReplyEnd>,
    pub user: Participant,
    pub agent: Participant,
    /// How the last model call was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
}

/// A step of an agent's workflow, judged after an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepJudged {
    pub step: String,
    pub done: bool,
    /// The step that the conversation is at from now on; absent = the workflow is over.
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
    /// How far the model call that failed had been shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
}

/// Why a turn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The model could not be reached, refused, or answered with something that is no answer.
    Model,
    /// The model's reply was cut off before it said anything.
    Cut,
    /// A content filter left nothing of the model's reply.
    Filtered,
    /// What happened is larger than an event may be.
    TooLarge,
    /// The agent's configuration that the turn names can't be found.
    NoConfiguration,
    /// No worker of the pool has a key for the gateway.
    NoGatewayKey,
    /// The turn was claimed again and again without getting further.
    Poison,
    /// The turn got no further within its limit, or was not over within the limit for all of it.
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
    /// The session that asked for it; zeros = an operator, or an edge that found no worker.
    pub by: Uuid,
    /// Absent = its user stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CancelReason>,
    /// Stored after this moment the event is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
}

/// Why a turn was ended that nobody stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// It waited for a person, and its visitor sent a new message instead. The tool that waited was not called.
    Superseded,
    /// It was queued, and no worker of its pool was there for as long as a turn may wait.
    NoWorker,
    /// An operator ended it.
    Operator,
    /// A reason that this program does not know.
    #[serde(other)]
    Other,
}
