//! The request for a step: everything that an agent is told.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// A request for the next step of a turn: an answer, or calls of tools.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepRequest {
    pub turn: Uuid,
    pub org: String,
    pub conversation: Uuid,
    pub session: Uuid,
    /// The asking user, if the connection proved their identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the agent.
    pub agent: String,
    /// The claim under which the step runs. A step with a higher epoch of the same turn replaces one with a lower.
    pub epoch: u64,
    /// The step is given up at this time, in RFC 3339.
    pub expires: String,
    /// The model that the client or the agent's configuration names.
    pub model: String,
    /// The agent's configuration as instructions: persona, system prompt, greeting, workflow step, skill.
    pub instructions: String,
    /// Earlier messages, the oldest first.
    pub history: Vec<StepMessage>,
    /// Passages of documents that fit the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knowledge: Option<String>,
    /// The message to answer.
    pub message: String,
    /// Its pictures.
    pub images: Vec<StepImage>,
    /// Earlier steps of this turn with the results of their calls.
    pub steps: Vec<StepDone>,
    /// Tools that the agent may call.
    pub tools: Vec<StepTool>,
    /// The memo of the turn's last step.
    pub memo: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepMessage {
    pub role: StepRole,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StepRole {
    User,
    Agent,
}

/// A picture: an http or https URL, or a `data:` URL that holds it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepImage {
    pub url: String,
}

/// A step that is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepDone {
    pub text: String,
    pub calls: Vec<StepCall>,
}

/// A call of a recorded step, with its result.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepCall {
    pub id: String,
    pub name: String,
    pub arguments: Value,
    pub result: String,
    pub is_error: bool,
}

/// A tool that may be called. `parameters` is a JSON Schema.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepTool {
    pub name: String,
    pub description: String,
    pub parameters: Map<String, Value>,
}
