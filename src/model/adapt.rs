//! Adapts a prompt to the dialect of one gateway.
//!
//! Contract: [`before`] runs ahead of [`super::normal`], [`after`] follows it; both apply the dialect and change
//! nothing else. Ids are mapped alike in calls and results, each to the same one every time.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::{
    dialect::Dialect,
    messages::{ChatMessage, ChatRequest, ToolSpec},
};

/// The description of a tool that was called and is no longer offered.
const GONE: &str = "Not available now.";
/// The length of the ids that some models require.
const SHORT_ID_CHARS: usize = 9;

/// Returns the messages for a model that takes no tools: calls and results become text.
pub(super) fn before(given: &[ChatMessage], dialect: Dialect) -> Cow<'_, [ChatMessage]> {
    if !dialect.no_tools {
        return Cow::Borrowed(given);
    }
    let mut told: Vec<ChatMessage> = Vec::new();
    let mut is_result = false;
    for message in given {
        let was_result = std::mem::replace(&mut is_result, matches!(message, ChatMessage::Tool { .. }));
        match message {
            ChatMessage::Assistant { text, tool_calls, .. } if !tool_calls.is_empty() => {
                let calls = tool_calls.iter().map(|call| format!("(Called {} with {}.)", call.name, call.arguments));
                let said = Some(text.clone()).filter(|text| !text.trim().is_empty());
                let text = said.into_iter().chain(calls).collect::<Vec<_>>().join("\n");
                told.push(ChatMessage::Assistant { text, tool_calls: vec![], opaque: None });
            }
            ChatMessage::Tool { content, .. } => match told.last_mut() {
                Some(ChatMessage::User(before)) if was_result => *before += &format!("\n\nResult: {content}"),
                _ => told.push(ChatMessage::User(format!("Result: {content}"))),
            },
            other => told.push(other.clone()),
        }
    }
    Cow::Owned(told)
}

/// Returns the messages without the fields that the gateway refuses, and with ids that it accepts.
pub(super) fn after(mut messages: Vec<ChatMessage>, dialect: Dialect) -> Vec<ChatMessage> {
    for message in &mut messages {
        match message {
            ChatMessage::Assistant { tool_calls, opaque, .. } => {
                if dialect.no_opaque {
                    *opaque = None;
                }
                for call in tool_calls {
                    if dialect.no_opaque {
                        call.opaque = None;
                    }
                    if dialect.short_ids {
                        call.id = short(&call.id);
                    }
                }
            }
            ChatMessage::Tool { call_id, .. } if dialect.short_ids => *call_id = short(call_id),
            _ => {}
        }
    }
    messages
}

/// Returns the tools of a request.
///
/// A request without tools lists the tools that were called, for gateways refuse calls without tools.
pub(super) fn tools(request: &ChatRequest, messages: &[ChatMessage], dialect: Dialect) -> Vec<ToolSpec> {
    if dialect.no_tools {
        return vec![];
    }
    if !request.tools.is_empty() {
        return request.tools.clone();
    }
    let calls = messages.iter().filter_map(|message| match message {
        ChatMessage::Assistant { tool_calls, .. } => Some(tool_calls),
        _ => None,
    });
    let mut names: Vec<&str> = calls.flatten().map(|call| call.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let bare = |name: &str| ToolSpec {
        name: name.into(),
        description: GONE.into(),
        parameters: serde_json::json!({ "type": "object", "properties": {} }),
    };
    names.into_iter().map(bare).collect()
}

/// Returns an id of nine letters and digits, derived from a longer one.
fn short(id: &str) -> String {
    if id.len() == SHORT_ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let hash = Sha256::digest(id);
    hash.iter().take(SHORT_ID_CHARS).map(|byte| char::from(DIGITS[usize::from(*byte) % DIGITS.len()])).collect()
}
