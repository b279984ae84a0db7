//! The fields of a chat completion request that the demo model reads.
//!
//! Contract: unknown fields are ignored; a missing or odd field of a message reads as empty.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Deserialize)]
pub struct Request {
    pub model: String,
    pub messages: Vec<Message>,
    #[serde(default)]
    pub tools: Vec<Tool>,
    #[serde(default)]
    pub stream: bool,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[serde(alias = "developer")]
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Deserialize)]
pub struct Message {
    pub role: Role,
    #[serde(default, deserialize_with = "text_of")]
    pub content: String,
    #[serde(default)]
    pub tool_calls: Vec<Call>,
    #[serde(default)]
    pub tool_call_id: String,
}

#[derive(Deserialize)]
pub struct Call {
    pub id: String,
    pub function: CallFunction,
}

#[derive(Deserialize)]
pub struct CallFunction {
    pub name: String,
    pub arguments: String,
}

#[derive(Deserialize)]
pub struct Tool {
    pub function: ToolFunction,
}

#[derive(Deserialize)]
pub struct ToolFunction {
    pub name: String,
    #[serde(default)]
    pub parameters: Value,
}

impl Request {
    pub fn tool(&self, name: &str) -> Option<&ToolFunction> {
        let functions = self.tools.iter().map(|tool| &tool.function);
        functions.into_iter().find(|function| function.name == name)
    }

    /// Returns the last message of the user, or an empty text.
    pub fn last_user_text(&self) -> &str {
        let mut users = self.messages.iter().filter(|m| m.role == Role::User);
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
