//! The part of the public protocol that a load generator needs: actions to send, frames to read.
//!
//! Contract: frames are read leniently (unknown fields are skipped), since the bench measures delivery; the test suites check
//! exact shapes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// An action of a client.
#[derive(Clone, Copy, Serialize)]
#[serde(tag = "action", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum BenchAction<'a> {
    Ping,
    CreateConversationSession {
        agent_id: &'a str,
        user_name: &'a str,
    },
    RenameConversation {
        conversation_id: &'a str,
        title: &'a str,
    },
    GetSession {
        session_id: &'a str,
    },
    GetConversationMessages {
        session_id: &'a str,
        limit: u32,
    },
    SendMessage {
        session_id: &'a str,
        message: &'a str,
    },
    ListConversations {
        limit: u32,
    },
    ResumeSession {
        session_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<&'a str>,
    },
}

impl BenchAction<'_> {
    /// Returns the action's JSON text under this request id.
    pub fn text(&self, request_id: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct BenchRequest<'a> {
            request_id: &'a str,
            #[serde(flatten)]
            action: BenchAction<'a>,
        }
        // Strings and numbers always serialise.
        serde_json::to_string(&BenchRequest { request_id, action: *self }).unwrap_or_default()
    }
}

/// A frame as received.
#[derive(Deserialize)]
pub struct ReceivedFrame<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(rename = "requestId")]
    pub request_id: Option<String>,
    pub status: Option<u16>,
    /// The cursor of a turn's frame, on connections of the resume extension.
    pub seq: Option<String>,
    pub token: Option<String>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    pub error: Option<ErrorBody>,
}

/// The body of an `error` frame.
#[derive(Deserialize)]
pub struct ErrorBody {
    pub code: String,
    pub message: String,
}

/// `data` of a new session; the same fields as in `get_session`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SessionData {
    pub session_id: String,
    pub conversation_id: String,
}

/// `data` of a page of history.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageData {
    pub messages: Vec<MessageData>,
    pub next_cursor: Option<String>,
    pub has_more: bool,
}

/// One message of a page.
#[derive(Deserialize)]
pub struct MessageData {
    pub id: String,
    pub direction: String,
}

/// `data` of a list of conversations.
#[derive(Deserialize)]
pub struct ListData {
    pub conversations: Vec<IgnoredAny>,
}

/// `data` of an `eventual_response`.
#[derive(Deserialize)]
pub struct ReplyData {
    data: ReplyBody,
}

#[derive(Deserialize)]
struct ReplyBody {
    response: ReplyContent,
}

#[derive(Deserialize)]
struct ReplyContent {
    #[serde(rename = "responseParts")]
    parts: Vec<String>,
}

impl ReplyData {
    /// Returns the text of the reply.
    pub fn text(&self) -> String {
        self.data.response.parts.concat()
    }
}
