//! The model request for the next call of a turn.

use std::sync::Arc;

use super::{Worker, profile::TurnProfile, reply_extractor};
use crate::{
    domain::{Conversation, Turn, conversation::MessageBody, event::Citation},
    knowledge::{GROUNDING_PASSAGES, Passage},
    limits,
    model::{ChatMessage, ChatRequest, ToolCall, ToolSpec},
    nats::ReadError,
    subjects::ConversationKey,
};

/// A model request, with the documents in it.
pub(super) struct ModelPrompt {
    pub request: ChatRequest,
    pub grounding: Vec<Citation>,
}

/// Builds the next model request of the active turn: instructions, earlier messages, knowledge, the user's message, and the
/// turn's tool calls with their results.
///
/// `None`: no turn is active.
pub(super) async fn build(
    worker: &Arc<Worker>,
    key: &ConversationKey,
    profile: &TurnProfile,
    state: &Conversation,
) -> Result<Option<ModelPrompt>, ReadError> {
    let Some(turn) = &state.turn else { return Ok(None) };
    let before = Some(turn.requested_seq);
    let (earlier, has_older) = worker.conversations.messages(key, state, before, limits::MODEL_MESSAGES).await?;
    let mut messages = vec![ChatMessage::System(instructions(profile, state, turn, earlier.is_empty()))];
    messages.extend(earlier.iter().rev().map(|message| match &message.body {
        MessageBody::User(text) => ChatMessage::User(text.clone()),
        MessageBody::Agent(_) => ChatMessage::Assistant { text: message.text(), tool_calls: vec![], opaque: None },
    }));
    let passages = passages(worker, key, profile, turn).await;
    if !passages.is_empty() {
        messages.push(ChatMessage::System(knowledge_section(&passages)));
    }
    messages.push(ChatMessage::User(turn.request.message.clone()));
    messages.extend(tool_exchange(turn));
    let tools = profile.offered(key, state, has_older).into_iter().map(|tool| ToolSpec {
        name: tool.name,
        description: tool.description,
        parameters: tool.parameters,
    });
    let request = ChatRequest {
        model: profile.model(turn),
        messages,
        tools: tools.collect(),
        max_tokens: profile.max_tokens(),
        metadata: profile.gateway_metadata(),
    };
    // The passages are the same at every call of the turn, so they are recorded once.
    let grounding = if turn.replies.is_empty() { passages.iter().map(Passage::citation).collect() } else { vec![] };
    Ok(Some(ModelPrompt { request, grounding }))
}

/// Builds the system prompt: the persona, then the instructions of this turn.
///
/// No part of it is stored with the visitor's message.
fn instructions(profile: &TurnProfile, state: &Conversation, turn: &Turn, is_first: bool) -> String {
    let greeting = profile.greeting().filter(|_| is_first);
    let greeting = greeting.map(|greeting| {
        format!("This is the beginning of the conversation. Begin your answer with this greeting, in the visitor's language: {greeting}")
    });
    let step = profile.workflow_step(state).map(|(at, all, step)| {
        format!("You are at step {} of {all} of this conversation. {}", at + 1, step.instructions)
    });
    let skill = turn.request.skill.as_ref().map(|skill| skill.body.clone());
    let suggest = profile.suggests_replies().then(|| reply_extractor::CONTRACT.to_string());
    let more = profile.system_prompt().map(str::to_string);
    let parts = [Some(profile.persona().to_string()), more, greeting, step, skill, suggest];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// Retrieves passages. An answer is possible without them, so a failed search is only a warning.
async fn passages(worker: &Worker, key: &ConversationKey, profile: &TurnProfile, turn: &Turn) -> Vec<Passage> {
    if worker.knowledge.is_empty(&key.org) {
        return vec![];
    }
    let reader = profile.reader(key, turn);
    let found = worker.knowledge.retrieve(&turn.request.message, &reader, GROUNDING_PASSAGES).await;
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, turn = %turn.request.turn, "a turn goes on without knowledge");
        vec![]
    })
}

fn knowledge_section(passages: &[Passage]) -> String {
    let mut section = String::from("Relevant knowledge:\n");
    for (n, passage) in passages.iter().enumerate() {
        section.push_str(&format!("[{}] {}\n{}\n\n", n + 1, passage.title, passage.text));
    }
    section
}

/// Returns the turn's model replies with the results of their tool calls, in the model's order.
fn tool_exchange(turn: &Turn) -> Vec<ChatMessage> {
    let mut messages = Vec::new();
    for reply in &turn.replies {
        let calls = reply.calls.iter().map(|call| ToolCall {
            id: call.request.id.clone(),
            name: call.request.name.clone(),
            arguments: call.request.arguments.clone(),
            opaque: call.request.opaque.clone(),
        });
        messages.push(ChatMessage::Assistant {
            text: reply.text.clone(),
            tool_calls: calls.collect(),
            opaque: reply.opaque.clone(),
        });
        messages.extend(reply.calls.iter().filter_map(|call| {
            let result = call.result.as_ref()?;
            let content = if result.is_error { format!("Error: {}", result.text) } else { result.text.clone() };
            Some(ChatMessage::Tool { call_id: call.request.id.clone(), content })
        }));
    }
    messages
}
