//! The messages and tools of a request to the model.

use std::fmt;

use serde::Serialize;

/// One call of the model.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<ChatMessage>,
    pub tools: Vec<ToolSpec>,
    pub max_tokens: u32,
    /// Metadata for the gateway's accounting.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A message of the prompt, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatMessage {
    System(String),
    User(String),
    /// A user's message with pictures.
    Picture {
        text: String,
        images: Vec<ImageUrl>,
    },
    Assistant {
        text: String,
        tool_calls: Vec<ToolCall>,
        /// Opaque fields of the provider, which go back with this message, see [`super::ModelReply`].
        opaque: Option<String>,
    },
    Tool {
        call_id: String,
        content: String,
    },
}

/// A picture: an http or https URL, or a `data:` URL that holds it.
#[derive(Clone, PartialEq, Serialize)]
pub struct ImageUrl {
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl fmt::Debug for ImageUrl {
    /// Formats the size alone: the content is private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageUrl({} bytes)", self.url.len())
    }
}

/// A tool that the model may call; `parameters` is a JSON Schema.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    pub parameters: serde_json::Value,
}

/// A call that the model made.
///
/// `arguments` is the model's own JSON text, not checked here; a call without any arguments has `{}`. `id` is the
/// gateway's, or `call_{index}_{random}` where the gateway gave none, since the tool's result must refer to one.
/// `opaque` holds the fields that the provider wants back with the call: the JSON text of an object, in which
/// `function` holds the fields of the function.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub arguments: String,
    pub opaque: Option<String>,
}
