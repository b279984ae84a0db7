//! A step that another program answers: its request made of the model request, and its reply.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use crate::{
    domain::Turn,
    host::{
        AgentStream, STEP_MAX_MS,
        request::{StepCall, StepDone, StepImage, StepMessage, StepRequest, StepRole, StepTool},
    },
    model::{ChatMessage, ChatRequest, ChatStream, ModelError, ModelReply, ReplyDelta},
    subjects::ConversationKey,
};

/// The streamed reply of a step: of a model, or of an agent that is another program.
pub(super) enum StepStream {
    Model(Box<ChatStream>),
    Agent(Box<AgentStream>),
}

impl StepStream {
    /// Returns the next deltas; `None` after the end of the reply.
    pub async fn next(&mut self) -> Result<Option<Vec<ReplyDelta>>, ModelError> {
        match self {
            Self::Model(stream) => stream.next().await,
            Self::Agent(stream) => stream.next().await,
        }
    }

    /// Returns the whole reply, and the ids of the calls for which an agent demands approval.
    pub fn into_reply(self) -> (ModelReply, Vec<String>) {
        match self {
            Self::Model(stream) => (stream.into_reply(), vec![]),
            Self::Agent(stream) => stream.into_reply(),
        }
    }
}

/// Returns the request for the next step of a turn, made of its model request.
pub(super) fn request(key: &ConversationKey, turn: &Turn, prompt: ChatRequest, now: DateTime<Utc>) -> StepRequest {
    let mut parts = PromptParts::default();
    prompt.messages.into_iter().for_each(|message| parts.take(message));
    // The last message of the user is the one to answer; calls and results follow it.
    let message = parts.messages.pop_if(|last| last.role == StepRole::User).map(|last| last.text).unwrap_or_default();
    let tools = prompt.tools.into_iter().map(|tool| StepTool {
        name: tool.name,
        description: tool.description,
        parameters: match tool.parameters {
            Value::Object(schema) => schema,
            _ => Default::default(),
        },
    });
    StepRequest {
        turn: turn.request.turn,
        org: key.org.clone(),
        conversation: key.conversation,
        session: turn.request.session,
        user: turn.request.asker.as_ref().map(|asker| asker.user.clone()),
        agent: turn.request.agent.name.clone(),
        epoch: turn.epoch.unwrap_or_default(),
        expires: (now + TimeDelta::milliseconds(STEP_MAX_MS as i64)).to_rfc3339_opts(SecondsFormat::Millis, true),
        model: prompt.model,
        instructions: parts.instructions.unwrap_or_default(),
        history: parts.messages,
        knowledge: parts.knowledge,
        message,
        images: parts.images,
        steps: steps(turn),
        tools: tools.collect(),
        memo: memo(turn),
    }
}

/// The messages of a model request, told apart.
#[derive(Default)]
struct PromptParts {
    instructions: Option<String>,
    knowledge: Option<String>,
    messages: Vec<StepMessage>,
    images: Vec<StepImage>,
}

impl PromptParts {
    fn take(&mut self, message: ChatMessage) {
        let said = |role, text| StepMessage { role, text };
        match message {
            ChatMessage::System(text) if self.instructions.is_none() => self.instructions = Some(text),
            ChatMessage::System(text) => self.knowledge = Some(text),
            ChatMessage::User(text) => self.messages.push(said(StepRole::User, text)),
            ChatMessage::Picture { text, images } => {
                self.images = images.into_iter().map(|image| StepImage { url: image.url }).collect();
                self.messages.push(said(StepRole::User, text));
            }
            ChatMessage::Assistant { text, tool_calls, .. } if tool_calls.is_empty() => {
                self.messages.push(said(StepRole::Agent, text));
            }
            // The turn's own steps come from its fold, with ids and errors.
            ChatMessage::Assistant { .. } | ChatMessage::Tool { .. } => {}
        }
    }
}

/// Returns the turn's recorded steps.
fn steps(turn: &Turn) -> Vec<StepDone> {
    let step = |reply: &crate::domain::turn::ToolRound| {
        let calls = reply.calls.iter().filter_map(|call| {
            let result = call.result.as_ref()?;
            Some(StepCall {
                id: call.request.id.clone(),
                name: call.request.name.clone(),
                arguments: serde_json::from_str(&call.request.arguments).unwrap_or_default(),
                result: result.text.clone(),
                is_error: result.is_error,
            })
        });
        StepDone { text: reply.text.clone(), calls: calls.collect() }
    };
    turn.replies.iter().map(step).collect()
}

/// Returns the memo of the turn's last step.
fn memo(turn: &Turn) -> Value {
    let opaque = turn.replies.last().and_then(|reply| reply.opaque.as_deref());
    let fields = opaque.and_then(|opaque| serde_json::from_str::<Value>(opaque).ok());
    fields.and_then(|mut fields| Some(fields.get_mut("memo")?.take())).unwrap_or_default()
}
