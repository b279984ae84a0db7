//! Client frames: the actions of clients, and the checks that need nothing but the frame.
//!
//! A frame is read in two steps, because the protocol orders checks of the frame and checks of the state: [`read`] yields the
//! action's name, its requestId and its fields; the action's own file then takes field after field out of them. The structs
//! with `JsonSchema` describe the accepted shapes for `spec/`; unknown fields are ignored.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::frames::ErrorCode;
use crate::limits;

/// The action that a client frame requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Ping,
    CreateConversationSession,
    GetSession,
    GetConversationMessages,
    ListConversations,
    RenameConversation,
    SendMessage,
    ConfirmToolAction,
    SubmitInteraction,
    VerifyOtp,
    Cancel,
    /// Only for connections that asked for the resume extension.
    ResumeSession,
}

impl Action {
    pub const ALL: [(Action, &'static str); 12] = [
        (Action::Ping, "ping"),
        (Action::CreateConversationSession, "create_conversation_session"),
        (Action::GetSession, "get_session"),
        (Action::GetConversationMessages, "get_conversation_messages"),
        (Action::ListConversations, "list_conversations"),
        (Action::RenameConversation, "rename_conversation"),
        (Action::SendMessage, "send_message"),
        (Action::ConfirmToolAction, "confirm_tool_action"),
        (Action::SubmitInteraction, "submit_interaction"),
        (Action::VerifyOtp, "verify_otp"),
        (Action::Cancel, "cancel"),
        (Action::ResumeSession, "resume_session"),
    ];
}

/// A frame that can't be served: the error code, and a message that tells the fault.
#[derive(Debug, PartialEq, Eq)]
pub struct BadFrame {
    pub code: ErrorCode,
    pub message: String,
}

/// A frame with a known action; its fields are not checked yet.
#[derive(Debug)]
pub struct ClientRequest {
    pub action: Action,
    pub request_id: Option<String>,
    pub fields: FrameFields,
}

impl ClientRequest {
    /// Returns the requestId, which the action must have.
    pub fn required_id(&self) -> Result<&str, BadFrame> {
        let id = self.request_id.as_deref().filter(|id| !id.trim().is_empty());
        id.ok_or_else(|| invalid("`requestId` is required"))
    }
}

/// Parses a text frame. An error comes with the requestId, if the frame had one.
pub fn read(text: &str) -> Result<ClientRequest, (Option<String>, BadFrame)> {
    let value: Value = serde_json::from_str(text).map_err(|_| (None, invalid("the frame is not valid JSON")))?;
    let Value::Object(fields) = value else {
        return Err((None, invalid("a frame is a JSON object")));
    };
    let request_id = fields.get("requestId").and_then(Value::as_str).map(str::to_string);
    if request_id.as_ref().is_some_and(|id| id.len() > limits::REQUEST_ID_MAX_BYTES) {
        return Err((None, invalid("`requestId` is too long")));
    }
    match fields.get("action") {
        Some(Value::String(name)) => match Action::ALL.iter().find(|(_, known)| known == name) {
            Some((action, _)) => Ok(ClientRequest { action: *action, request_id, fields: FrameFields(fields) }),
            None => Err((request_id, unsupported())),
        },
        Some(_) => Err((request_id, invalid("`action` must be a string"))),
        None => Err((request_id, invalid("`action` is missing"))),
    }
}

/// Returns an `UNSUPPORTED_ACTION`.
pub fn unsupported() -> BadFrame {
    BadFrame { code: ErrorCode::UnsupportedAction, message: "this action is not supported".into() }
}

/// Returns a `VALIDATION_ERROR`.
pub fn invalid(message: impl Into<String>) -> BadFrame {
    BadFrame { code: ErrorCode::ValidationError, message: message.into() }
}

/// The fields of a frame, taken out one by one. `null` counts as absent.
#[derive(Debug)]
pub struct FrameFields(Map<String, Value>);

impl FrameFields {
    /// Wraps the fields of a request that came another way.
    pub fn of(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Returns the field unchanged, `null` too.
    pub fn raw(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns true if the field is present, with any value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns a string, or `None` if the field is absent.
    pub fn text(&self, name: &str) -> Result<Option<&str>, BadFrame> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("`{name}` must be a string"))),
        }
    }

    /// Returns a string that is present and not blank.
    pub fn required_text(&self, name: &str) -> Result<&str, BadFrame> {
        match self.text(name)? {
            Some(text) if !text.trim().is_empty() => Ok(text),
            _ => Err(invalid(format!("`{name}` is required"))),
        }
    }

    /// Returns the session id of the frame, if it is well-formed.
    pub fn session(&self) -> Option<Uuid> {
        self.get("sessionId")?.as_str()?.parse().ok()
    }

    /// Returns the required session id. An id that is not a UUID can't exist, which the caller answers as "not found".
    pub fn required_session(&self) -> Result<Option<Uuid>, BadFrame> {
        Ok(self.required_text("sessionId")?.parse().ok())
    }

    /// Returns a real boolean that is present.
    pub fn required_bool(&self, name: &str) -> Result<bool, BadFrame> {
        match self.get(name) {
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(invalid(format!("`{name}` must be true or false"))),
            None => Err(invalid(format!("`{name}` is required"))),
        }
    }

    /// Returns a boolean, or `default` if the field is absent.
    pub fn bool_or(&self, name: &str, default: bool) -> Result<bool, BadFrame> {
        if self.get(name).is_none() { Ok(default) } else { self.required_bool(name) }
    }

    /// Returns a page size: bad and non-positive ones fall back to `default`, larger ones are capped.
    pub fn limit(&self, default: usize, max: usize) -> usize {
        match self.get("limit").and_then(Value::as_u64) {
            Some(n) if n > 0 => usize::try_from(n).unwrap_or(max).min(max),
            _ => default,
        }
    }

    /// Returns a page size clamped to its bounds; a value that is no whole number becomes `default`.
    pub fn clamped_limit(&self, default: usize, max: usize) -> usize {
        match self.get("limit").and_then(Value::as_number) {
            Some(n) if n.is_u64() => n.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(max).clamp(1, max),
            Some(n) if n.is_i64() => 1,
            _ => default,
        }
    }

    /// Returns a JSON object, or `None` if the field is absent.
    pub fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, BadFrame> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(invalid(format!("`{name}` must be an object"))),
        }
    }

    /// Returns a list of strings, or `None` if the field is absent.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, BadFrame> {
        let wrong = || invalid(format!("`{name}` must be a list of strings"));
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_string).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// Takes the images of a message out of the frame, since they can be large; malformed entries are dropped.
    pub fn take_images(&mut self) -> Vec<GivenImage> {
        self.take_entries("images", |image| {
            let detail = take_text(image, "detail").filter(|detail| ["low", "high", "auto"].contains(&detail.as_str()));
            Some(GivenImage { url: take_text(image, "url")?, detail })
        })
    }

    /// Takes the files of a message out of the frame; malformed entries are dropped.
    pub fn take_files(&mut self) -> Vec<GivenFile> {
        self.take_entries("files", |file| {
            let (name, url) = (take_text(file, "name")?, take_text(file, "url")?);
            Some(GivenFile { name, mime_type: take_text(file, "mimeType"), url })
        })
    }

    fn take_entries<T>(&mut self, name: &str, read: impl Fn(&mut Map<String, Value>) -> Option<T>) -> Vec<T> {
        let Some(Value::Array(mut list)) = self.0.remove(name) else { return vec![] };
        list.iter_mut().filter_map(|entry| read(entry.as_object_mut()?)).collect()
    }
}

/// An image as a client gives it.
#[derive(Debug)]
pub struct GivenImage {
    pub url: String,
    pub detail: Option<String>,
}

/// A file as a client gives it.
#[derive(Debug)]
pub struct GivenFile {
    pub name: String,
    pub mime_type: Option<String>,
    pub url: String,
}

/// Takes a text that is not blank.
fn take_text(entry: &mut Map<String, Value>, name: &str) -> Option<String> {
    match entry.remove(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Some(text),
        _ => None,
    }
}

/// `ping`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    pub request_id: Option<String>,
}

/// `create_conversation_session`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateConversationSession {
    pub request_id: Option<String>,
    #[schemars(length(min = 1))]
    pub agent_id: Option<String>,
    pub user_name: Option<String>,
    pub user_email: Option<String>,
    pub browser_fingerprint: Option<String>,
    pub metadata: Option<Map<String, Value>>,
    pub supports: Option<Vec<String>>,
    /// The host's signed assertion about its user, `{userId, signature, timestamp}`: must be valid where the agent has a policy.
    pub auth_context: Option<Value>,
    pub conversation_id: Option<String>,
    /// A session of that conversation, which shows that the client has been there. A visitor without a token needs it where the
    /// conversation's id alone opens nothing.
    pub session_id: Option<String>,
}

/// `get_session`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GetSession {
    pub request_id: Option<String>,
    #[schemars(length(min = 1))]
    pub session_id: String,
}

/// `get_conversation_messages`. A bad or non-positive `limit` counts as 50, a larger one than 100 as 100.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GetConversationMessages {
    pub request_id: Option<String>,
    #[schemars(length(min = 1))]
    pub session_id: String,
    pub limit: Option<Value>,
    pub cursor: Option<String>,
    pub before: Option<String>,
}

/// `list_conversations`. A `limit` is clamped to 1 to 200; a value that is no whole number counts as 50.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListConversations {
    pub request_id: Option<String>,
    pub limit: Option<Value>,
    pub cursor: Option<String>,
    /// Only conversations with this text in their title, in any case.
    pub query: Option<String>,
}

/// `rename_conversation`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenameConversation {
    pub request_id: Option<String>,
    #[schemars(length(min = 1))]
    pub conversation_id: String,
    #[schemars(length(min = 1))]
    pub title: String,
}

/// `send_message`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendMessage {
    #[schemars(length(min = 1))]
    pub request_id: String,
    #[schemars(length(min = 1))]
    pub session_id: String,
    #[schemars(length(max = 10_000))]
    pub message: Option<String>,
    pub stream: Option<bool>,
    pub model: Option<String>,
    pub skill: Option<String>,
    pub images: Option<Value>,
    pub files: Option<Value>,
}

/// `confirm_tool_action`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmToolAction {
    pub request_id: Option<String>,
    #[schemars(length(min = 1))]
    pub session_id: String,
    pub approved: bool,
}

/// `submit_interaction`: either `values` or `declined: true`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmitInteraction {
    #[schemars(length(min = 1))]
    pub request_id: String,
    #[schemars(length(min = 1))]
    pub session_id: String,
    pub interaction_id: String,
    pub kind: Option<String>,
    pub values: Option<Map<String, Value>>,
    pub declined: Option<bool>,
}

/// `verify_otp`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyOtp {
    #[schemars(length(min = 1))]
    pub request_id: String,
    #[schemars(length(min = 1))]
    pub session_id: String,
    #[schemars(length(min = 1))]
    pub code: String,
}

/// `cancel`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    pub request_id: Option<String>,
    pub session_id: Option<String>,
}

/// `resume_session`, of the resume extension. `seq` is the cursor of the last frame that the client has of a turn.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeSession {
    pub request_id: Option<String>,
    #[schemars(length(min = 1))]
    pub session_id: String,
    pub seq: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_size_is_capped_and_a_bad_one_is_the_default() {
        let limit = |limit: &str| {
            let request = read(&format!(r#"{{"action":"get_conversation_messages","limit":{limit}}}"#)).unwrap();
            request.fields.limit(50, 100)
        };
        assert_eq!([limit("1"), limit("100"), limit("101"), limit("18446744073709551615")], [1, 100, 100, 100]);
        assert_eq!([limit("0"), limit("-1"), limit("1.5"), limit("\"7\""), limit("null")], [50; 5]);
        let clamped = |limit: &str| {
            let request = read(&format!(r#"{{"action":"list_conversations","limit":{limit}}}"#)).unwrap();
            request.fields.clamped_limit(50, 200)
        };
        assert_eq!([clamped("0"), clamped("-7"), clamped("7"), clamped("201")], [1, 1, 7, 200]);
        assert_eq!([clamped("18446744073709551615"), clamped("1.5"), clamped("\"7\"")], [200, 50, 50]);
    }
}
