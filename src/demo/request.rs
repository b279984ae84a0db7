//! The fields of a chat completion request that the demo model reads.
//!
//! Contract: unknown fields are ignored; a missing or odd field of a message reads as empty.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Deserialize)]
pub struct CompletionRequest {
    pub model: String,
    pub messages: Vec<PromptMessage>,
    #[serde(default)]
    pub tools: Vec<PromptTool>,
    #[serde(default)]
    pub stream: bool,
    #[serde(default)]
    pub stream_options: Option<CompletionStreamOptions>,
}

#[derive(Deserialize)]
pub struct CompletionStreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum PromptRole {
    #[serde(alias = "developer")]
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Deserialize)]
pub struct PromptMessage {
    pub role: PromptRole,
    #[serde(default, deserialize_with = "text_of")]
    pub content: String,
    #[serde(default)]
    pub tool_calls: Vec<PromptCall>,
    #[serde(default)]
    pub tool_call_id: String,
}

#[derive(Deserialize)]
pub struct PromptCall {
    pub id: String,
    pub function: PromptCallFunction,
}

#[derive(Deserialize)]
pub struct PromptCallFunction {
    pub name: String,
    pub arguments: String,
}

#[derive(Deserialize)]
pub struct PromptTool {
    pub function: PromptToolFunction,
}

#[derive(Deserialize)]
pub struct PromptToolFunction {
    pub name: String,
    #[serde(default)]
    pub parameters: Value,
}

impl CompletionRequest {
    pub fn tool(&self, name: &str) -> Option<&PromptToolFunction> {
        let functions = self.tools.iter().map(|tool| &tool.function);
        functions.into_iter().find(|function| function.name == name)
    }

    /// Returns the last message of the user, or an empty text.
    pub fn last_user_text(&self) -> &str {
        let mut users = self.messages.iter().filter(|m| m.role == PromptRole::User);
        users.next_back().map_or("", |message| &message.content)
    }
}

/// Reads a message's text: a string, or the text parts of a list of parts.
fn text_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    })
}
