//! Server frames: the exact shapes that clients accept. The published clients refuse a known frame with an unknown field.

use std::borrow::Cow;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

pub use super::codes::ErrorCode;
use super::prompts::{
    ConfirmationData, InteractionData, InvalidData, OtpInvalidData, OtpRequiredData, OtpSentData, OtpVerifiedData,
};
use crate::domain::{
    conversation::{Message, MessageBody},
    event::{Citation, Participant, Response, Usage},
};

/// A frame to a client. `timestamp` is Unix milliseconds; `requestId` echoes the action or names the turn's request.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Frame<'a> {
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
        timestamp: i64,
        data: PongData,
    },
    ImmediateResponse {
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
        timestamp: i64,
        status: u16,
        message: &'a str,
        #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
        data: Box<RawValue>,
    },
    StreamToken {
        request_id: &'a str,
        timestamp: i64,
        token: &'a str,
        data: TokenData<'a>,
    },
    StreamReasoning {
        request_id: &'a str,
        timestamp: i64,
        token: &'a str,
        data: TokenData<'a>,
    },
    StreamPreamble {
        request_id: &'a str,
        timestamp: i64,
        token: &'a str,
        data: TokenData<'a>,
    },
    StreamChunk {
        request_id: &'a str,
        timestamp: i64,
        node: &'a str,
        data: ChunkData<'a>,
    },
    EventualResponse {
        request_id: &'a str,
        timestamp: i64,
        status: u16,
        data: EventualData<'a>,
    },
    Cancelled {
        request_id: &'a str,
        timestamp: i64,
        status: u16,
        data: CancelledData<'a>,
    },
    WriteConfirmationRequired {
        request_id: &'a str,
        timestamp: i64,
        data: NestedData<'a, ConfirmationData<'a>>,
    },
    InteractionRequired {
        request_id: &'a str,
        timestamp: i64,
        data: NestedData<'a, InteractionData<'a>>,
    },
    InteractionInvalid {
        request_id: &'a str,
        timestamp: i64,
        data: NestedData<'a, InvalidData<'a>>,
    },
    OtpVerificationRequired {
        request_id: &'a str,
        timestamp: i64,
        data: NestedData<'a, OtpRequiredData<'a>>,
    },
    OtpSent {
        request_id: &'a str,
        timestamp: i64,
        data: NestedData<'a, OtpSentData<'a>>,
    },
    OtpVerified {
        request_id: &'a str,
        timestamp: i64,
        data: NestedData<'a, OtpVerifiedData<'a>>,
    },
    OtpInvalid {
        request_id: &'a str,
        timestamp: i64,
        data: NestedData<'a, OtpInvalidData<'a>>,
    },
    Keepalive {
        request_id: &'a str,
        timestamp: i64,
        data: KeepaliveData<'a>,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
        timestamp: i64,
        error: ErrorObject<'a>,
        data: ErrorData<'a>,
    },
}

impl Frame<'_> {
    /// Serialises the frame as a text message.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("frames are maps with string keys"))
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PongData {
    pub timestamp: i64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenData<'a> {
    pub request_id: &'a str,
    pub token: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChunkData<'a> {
    pub request_id: &'a str,
    pub node: &'a str,
    pub state: ChunkState<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChunkState<'a> {
    pub raw_response: RawResponse<'a>,
}

/// Tool activity.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum RawResponse<'a> {
    /// `arguments` is the model's JSON text.
    ToolCall {
        name: &'a str,
        arguments: &'a str,
    },
    ToolResult {
        name: &'a str,
        is_error: bool,
        result: &'a str,
    },
    /// A worker took the turn over and asks the model again: the frames streamed since the last tool activity are void.
    TurnRestarted {},
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Nested")]
pub struct NestedData<'a, T> {
    pub request_id: &'a str,
    pub data: T,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventualData<'a> {
    pub request_id: &'a str,
    pub status: u16,
    pub data: FinalAnswer<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Answer")]
pub struct FinalAnswer<'a> {
    pub message_id: Uuid,
    pub response: &'a Response,
    pub needs_escalation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalation_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub citations: &'a [Citation],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageData>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsageData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl From<Usage> for UsageData {
    fn from(usage: Usage) -> Self {
        Self {
            cost_usd: usage.cost_usd,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelledData<'a> {
    pub request_id: &'a str,
    pub status: u16,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepaliveData<'a> {
    pub request_id: &'a str,
}

#[derive(Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorObject<'a> {
    pub code: ErrorCode,
    pub message: Cow<'a, str>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    pub error: ErrorObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<ErrorDetails>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorDetails {
    /// The seconds after which the request may be tried again.
    pub retry_after_seconds: u64,
}

/// Builds an `error` frame.
pub fn error(request_id: Option<&str>, code: ErrorCode, message: &str, now: DateTime<Utc>) -> Bytes {
    let error = ErrorObject { code, message: Cow::Borrowed(message) };
    let data = ErrorData { request_id, error: error.clone(), details: None };
    Frame::Error { request_id, timestamp: now.timestamp_millis(), error, data }.to_bytes()
}

/// Builds an `error` frame for a request beyond a limit.
pub fn limited(request_id: Option<&str>, message: &str, retry_after_seconds: u64, now: DateTime<Utc>) -> Bytes {
    let error = ErrorObject { code: ErrorCode::RateLimited, message: Cow::Borrowed(message) };
    let details = Some(ErrorDetails { retry_after_seconds });
    let data = ErrorData { request_id, error: error.clone(), details };
    Frame::Error { request_id, timestamp: now.timestamp_millis(), error, data }.to_bytes()
}

/// Formats a time for clients.
pub fn shown_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Builds the answer to an action.
pub fn immediate(
    request_id: Option<&str>,
    status: u16,
    message: &str,
    data: impl Serialize,
    now: DateTime<Utc>,
) -> Bytes {
    let data = to_raw_value(&data).expect("answers are maps with string keys");
    Frame::ImmediateResponse { request_id, timestamp: now.timestamp_millis(), status, message, data }.to_bytes()
}

/// Adds a resume cursor to a frame: only for connections that asked for the resume extension.
pub fn with_seq(frame: &Bytes, seq: &str) -> Bytes {
    let Some(open) = frame.strip_suffix(b"}") else { return frame.clone() };
    Bytes::from([open, b",\"seq\":\"", seq.as_bytes(), b"\"}"].concat())
}

/// Builds a keepalive for a silent turn.
pub fn keepalive(request_id: &str, now: DateTime<Utc>) -> Bytes {
    Frame::Keepalive { request_id, timestamp: now.timestamp_millis(), data: KeepaliveData { request_id } }.to_bytes()
}

/// `data` of the answer to `create_conversation_session`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionCreated<'a> {
    pub session_id: Uuid,
    pub conversation_id: Uuid,
    pub agent_id: &'a str,
    pub agent_name: &'a str,
    pub user_participant_id: Uuid,
    pub agent_participant_id: Uuid,
}

/// `data` of the answer to `resume_session`: the state of the session. Missed frames follow.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Resumed")]
pub struct ResumeReply<'a> {
    pub session: SessionView<'a>,
    /// The active turn, if there is one.
    pub turn: Option<TurnView<'a>>,
}

/// An active turn. The prompt of a parked one follows as a frame of its own.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TurnView<'a> {
    pub request_id: &'a str,
    pub state: TurnState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// No worker has taken the turn yet.
    Queued,
    Running,
    /// The turn waits for a person.
    Parked,
}

/// `data` of the answer to `get_session`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionView<'a> {
    pub session_id: Uuid,
    pub conversation_id: Uuid,
    pub agent_id: &'a str,
    pub agent_name: &'a str,
    pub user_participant_id: Uuid,
    pub agent_participant_id: Uuid,
    pub thread_id: Uuid,
    pub status: SessionStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    Active,
    Idle,
    Ended,
}

/// `data` of the answer to `get_conversation_messages`, newest message first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessagePage {
    #[schemars(with = "Vec<HistoryMessage>")]
    pub messages: Vec<Box<RawValue>>,
    pub next_cursor: Option<String>,
    pub has_more: bool,
}

/// `data` of the answer to `list_conversations`, most recent first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConversationPage {
    pub conversations: Vec<ListedConversation>,
    pub next_cursor: Option<String>,
    pub has_more: bool,
}

/// A conversation in a list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListedConversation {
    pub conversation_id: Uuid,
    pub title: String,
    /// The time of the last message: RFC 3339, UTC.
    pub updated_at: String,
    #[schemars(range(min = 1))]
    pub message_count: u64,
}

/// `data` of the answer to `rename_conversation`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Renamed")]
pub struct RenameReply<'a> {
    pub conversation_id: Uuid,
    /// The title as it is stored.
    pub title: &'a str,
}

/// `data` of the answer to `confirm_tool_action`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Confirmed")]
pub struct ConfirmReply {
    pub session_id: Uuid,
    pub approved: bool,
}

/// A message in the history.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HistoryMessage {
    pub id: Uuid,
    pub direction: Direction,
    pub content: MessageContent,
    pub from: Party,
    pub to: Party,
    /// RFC 3339, UTC.
    pub created_at: String,
}

#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Inbound,
    Outbound,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Content")]
pub struct MessageContent {
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_response: Option<Response>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Party {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: PartyKind,
    pub name: String,
}

#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PartyKind {
    User,
    AiAgent,
}

impl HistoryMessage {
    /// Serialises the message for a [`MessagePage`].
    pub fn to_json(&self) -> Box<RawValue> {
        to_raw_value(self).expect("messages are maps with string keys")
    }
}

impl From<&Message> for HistoryMessage {
    fn from(message: &Message) -> Self {
        let party =
            |participant: &Participant, kind| Party { id: participant.id, kind, name: participant.name.clone() };
        let (direction, structured_response, from, to) = match &message.body {
            MessageBody::User(_) => (Direction::Inbound, None, PartyKind::User, PartyKind::AiAgent),
            MessageBody::Agent(response) => {
                (Direction::Outbound, Some(response.clone()), PartyKind::AiAgent, PartyKind::User)
            }
        };
        Self {
            id: message.id,
            direction,
            content: MessageContent { text: message.text(), structured_response },
            from: party(&message.from, from),
            to: party(&message.to, to),
            created_at: shown_time(message.at),
        }
    }
}
