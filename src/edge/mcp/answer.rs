//! Answers to calls: a text, and the same with its ids as structured content.

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use crate::{
    edge::client::WatchError,
    nats::ReadError,
    wire::{actions::BadFrame, stored::SessionRecord},
};

/// A call without an agent's answer: the protocol's error code and message.
pub struct CallRefusal {
    code: String,
    message: String,
}

impl CallRefusal {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// Returns the code and message of an `error` frame.
    pub fn of(frame: &Value) -> Self {
        let text = |name: &str| frame["error"][name].as_str().map(str::to_owned);
        let message = text("message").unwrap_or_else(|| "something went wrong on our side".into());
        Self { code: text("code").unwrap_or_else(|| "INTERNAL_ERROR".into()), message }
    }

    /// Returns the code and message of the first `error` frame.
    pub fn among(frames: &[Value]) -> Self {
        Self::of(frames.iter().find(|frame| frame["type"] == "error").unwrap_or(&Value::Null))
    }

    pub fn result(self, record: Option<&SessionRecord>) -> CallToolResult {
        let content = json!({ "status": "failed", "code": self.code });
        match record {
            Some(record) => result(self.message, with_ids(record, content), true),
            None => result(self.message, content, true),
        }
    }
}

impl From<BadFrame> for CallRefusal {
    fn from(bad: BadFrame) -> Self {
        let code = json!(bad.code);
        Self::new(code.as_str().unwrap_or_default(), bad.message)
    }
}

/// Converts errors to the codes and messages of `error` frames.
macro_rules! as_frames_say {
    ($($error:ty),*) => {$(
        impl From<$error> for CallRefusal {
            fn from(error: $error) -> Self {
                BadFrame::from(error).into()
            }
        }
    )*};
}

as_frames_say!(ReadError, WatchError);

/// Builds the answer of an agent; `data` is that of its `eventual_response`.
pub fn answered(record: &SessionRecord, data: &Value) -> CallToolResult {
    let parts = data["response"]["responseParts"].as_array().into_iter().flatten();
    let text = parts.filter_map(Value::as_str).collect::<Vec<_>>().join("\n\n");
    let citations = data.get("citations").cloned().unwrap_or_else(|| json!([]));
    let mut content = json!({ "status": "answered", "citations": citations });
    if data["needsEscalation"] == true {
        content["needsEscalation"] = true.into();
    }
    result(text, with_ids(record, content), false)
}

/// Builds the answer for a turn that waits for a person.
pub fn waiting(record: &SessionRecord, words: String, waiting_for: Value) -> CallToolResult {
    result(words, with_ids(record, json!({ "status": "waiting", "waitingFor": waiting_for })), false)
}

fn with_ids(record: &SessionRecord, mut content: Value) -> Value {
    content["conversationId"] = json!(record.conversation);
    content["sessionId"] = json!(record.session);
    content
}

/// Puts the structured content behind the words as text, too: some clients show their model nothing else.
fn result(words: String, content: Value, is_error: bool) -> CallToolResult {
    let blocks = vec![ContentBlock::text(words), ContentBlock::text(content.to_string())];
    let mut result = if is_error { CallToolResult::error(blocks) } else { CallToolResult::success(blocks) };
    result.structured_content = Some(content);
    result
}
