//! The event catalogue. Each variant's doc names the fact and its writer; all exist since schema version 1.
//!
//! The stored names are the constants in [`kind`]; they are never derived from Rust names and never reused. The JSON form
//! of the payloads is pinned by golden samples under `spec/`.

mod ending;
mod ends;
mod shown;
mod void;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use super::{
    answer::{Citation, Resolution, ResolutionStatus, Response, Usage},
    request::{AgentVersion, AttachmentContent, File, Image, Object, Requester, Skill},
    session::{EmailProof, IdentificationMethod, OtpChallenge, OtpChannel, OtpPurpose, OtpSent},
};
pub use ending::*;
pub use ends::*;
pub use void::*;

use super::{
    elicitation::{Elicitation, WaitingCall},
    frame_trace::FrameTrace,
    interaction::Form,
};

/// Stored names: the last two tokens of an event's subject, and the end of its CloudEvents type.
pub mod kind {
    pub const SESSION_OPENED: &str = "session.opened";
    pub const SESSION_IDENTIFIED: &str = "session.identified";
    pub const CONVERSATION_RENAMED: &str = "conversation.renamed";
    pub const TURN_REQUESTED: &str = "turn.requested";
    pub const TURN_STARTED: &str = "turn.started";
    pub const TURN_RELEASED: &str = "turn.released";
    pub const TURN_MODEL_REPLIED: &str = "turn.model_replied";
    pub const TURN_TOOL_CALLED: &str = "turn.tool_called";
    pub const TURN_TOOL_RETURNED: &str = "turn.tool_returned";
    pub const TURN_PARKED: &str = "turn.parked";
    pub const TURN_RESUMED: &str = "turn.resumed";
    pub const TURN_COMPLETED: &str = "turn.completed";
    pub const TURN_FAILED: &str = "turn.failed";
    pub const TURN_CANCELLED: &str = "turn.cancelled";

    pub const ALL: [&str; 14] = [
        SESSION_OPENED,
        SESSION_IDENTIFIED,
        CONVERSATION_RENAMED,
        TURN_REQUESTED,
        TURN_STARTED,
        TURN_RELEASED,
        TURN_MODEL_REPLIED,
        TURN_TOOL_CALLED,
        TURN_TOOL_RETURNED,
        TURN_PARKED,
        TURN_RESUMED,
        TURN_COMPLETED,
        TURN_FAILED,
        TURN_CANCELLED,
    ];
}

/// A fact in a conversation's history.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A client opened a session; the first one also starts the conversation. Written by an edge.
    SessionOpened(SessionOpened),
    /// The session's user proved to be reachable at the session's contact. Written by an edge.
    SessionIdentified(SessionIdentified),
    /// The conversation got a title. Written by an edge (a person named it) or a worker (a model did).
    ConversationRenamed(ConversationRenamed),
    /// A user message was accepted and waits for a worker. Written by an edge; a work item.
    TurnRequested(TurnRequested),
    /// A worker claimed the turn's work item; the event's sequence is the turn's epoch. Written by that worker.
    TurnStarted(TurnStarted),
    /// A stopping worker released the turn: its epoch is over and its claim does not count against the turn.
    ///
    /// Written by that worker. The worker of a cancelled turn writes it too, to record the frames that it had shown; that
    /// changes nothing.
    TurnReleased(TurnReleased),
    /// The model answered with tool calls. Written by the worker. The answer that ends a turn is in `TurnCompleted`.
    TurnModelReplied(ModelReplied),
    /// A tool is about to be called: the intent. Written by the worker before the call.
    TurnToolCalled(ToolCalled),
    /// A tool call has its result, real or stated ("refused", "outcome unknown"). Written by the worker.
    TurnToolReturned(ToolReturned),
    /// The turn waits for a person. Written by the worker, which then releases the turn.
    TurnParked(TurnParked),
    /// The wait is over. Written by an edge (a decision) or a worker (a deadline); a work item.
    TurnResumed(TurnResumed),
    /// The turn ended with an answer. Written by the worker. Terminal.
    TurnCompleted(TurnCompleted),
    /// The turn ended without an answer. Written by the worker. Terminal.
    TurnFailed(TurnFailed),
    /// The turn was stopped: by its user, by a newer message, for want of a worker, or by an operator.
    ///
    /// Written by an edge, or by the command that ends a turn. Terminal.
    TurnCancelled(TurnCancelled),
    /// An event of this stored name with erased content: only the fact that it happened is known. Never written.
    Erased(&'static str),
    /// An event that this program can't read. Never written.
    ///
    /// It keeps its place in the chain and changes nothing, unless it is critical: then the conversation is read-only for
    /// this program.
    Unreadable(Unreadable),
}

/// Name of [`Event::Unreadable`], which is not a stored name.
const UNREADABLE: &str = "unreadable";

impl Event {
    /// Returns the stored name.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::SessionOpened(_) => kind::SESSION_OPENED,
            Event::SessionIdentified(_) => kind::SESSION_IDENTIFIED,
            Event::ConversationRenamed(_) => kind::CONVERSATION_RENAMED,
            Event::TurnRequested(_) => kind::TURN_REQUESTED,
            Event::TurnStarted(_) => kind::TURN_STARTED,
            Event::TurnReleased(_) => kind::TURN_RELEASED,
            Event::TurnModelReplied(_) => kind::TURN_MODEL_REPLIED,
            Event::TurnToolCalled(_) => kind::TURN_TOOL_CALLED,
            Event::TurnToolReturned(_) => kind::TURN_TOOL_RETURNED,
            Event::TurnParked(_) => kind::TURN_PARKED,
            Event::TurnResumed(_) => kind::TURN_RESUMED,
            Event::TurnCompleted(_) => kind::TURN_COMPLETED,
            Event::TurnFailed(_) => kind::TURN_FAILED,
            Event::TurnCancelled(_) => kind::TURN_CANCELLED,
            Event::Erased(kind) => kind,
            Event::Unreadable(_) => UNREADABLE,
        }
    }

    /// Returns the turn that the event belongs to.
    pub fn turn(&self) -> Option<Uuid> {
        match self {
            Event::SessionOpened(_)
            | Event::SessionIdentified(_)
            | Event::ConversationRenamed(_)
            | Event::Erased(_)
            | Event::Unreadable(_) => None,
            Event::TurnRequested(e) => Some(e.turn),
            Event::TurnStarted(e) => Some(e.turn),
            Event::TurnReleased(e) => Some(e.turn),
            Event::TurnModelReplied(e) => Some(e.turn),
            Event::TurnToolCalled(e) => Some(e.turn),
            Event::TurnToolReturned(e) => Some(e.turn),
            Event::TurnParked(e) => Some(e.turn),
            Event::TurnResumed(e) => Some(e.turn),
            Event::TurnCompleted(e) => Some(e.turn),
            Event::TurnFailed(e) => Some(e.turn),
            Event::TurnCancelled(e) => Some(e.turn),
        }
    }

    /// Returns the worker pool of an event that is a work item.
    pub fn pool(&self) -> Option<&str> {
        match self {
            Event::TurnRequested(e) => Some(&e.pool),
            Event::TurnResumed(e) => Some(&e.pool),
            _ => None,
        }
    }
}

/// A person or agent that takes part in a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    pub id: Uuid,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionOpened {
    pub session: Uuid,
    pub agent_id: String,
    pub user: Participant,
    pub agent: Participant,
    /// Capabilities that the client can render; absent = as the conversation declared last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supports: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_email: Option<String>,
    /// The proof of the address. Absent in events older than this field: their address owned the conversation without
    /// proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_proof: Option<EmailProof>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser_fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Stored after this moment the event is void: its client was told of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConversationRenamed {
    pub title: String,
    /// The session in which the title was given; absent = named by a model, or by a caller without a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Uuid>,
    /// Stored after this moment the event is void; absent = named by a model, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionIdentified {
    pub session: Uuid,
    pub method: IdentificationMethod,
    /// The challenge that was met, with the address or number that its password was sent to. Absent in events older than
    /// these fields, which proved the contact that the session had then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The purpose of the password; absent in events older than this field, which were for tools.
    #[serde(default, skip_serializing_if = "OtpPurpose::is_tool")]
    pub purpose: OtpPurpose,
    /// Stored after this moment the event is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnRequested {
    /// Hash of conversation, session, requestId and message; in events of earlier versions without the message.
    pub turn: Uuid,
    pub session: Uuid,
    pub request_id: String,
    pub message_id: Uuid,
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// The model that the client requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// False: the client wants no `stream_*` frames.
    pub stream: bool,
    pub pool: String,
    pub user: Participant,
    pub agent: Participant,
    /// Group of some hundred client addresses that the client's is in, for counting messages sent on its behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The asking user, if the connection proved their identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asker: Option<Requester>,
    /// Version of the agent's configuration for the whole turn; absent = only the worker's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_config: Option<AgentVersion>,
    /// Instructions that the client chose for this turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<Skill>,
    /// Stored after this moment the event is void: its client was told of an error.
    pub not_after: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnStarted {
    pub turn: Uuid,
    pub worker: Uuid,
    /// Sequence of the claimed work item.
    pub item: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnReleased {
    pub turn: Uuid,
    pub epoch: u64,
    /// Record of the frames shown of the model call that was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<FrameTrace>,
}

/// A tool call that the model asked for, with the tool's properties at that time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallRequested {
    pub id: String,
    pub name: String,
    /// The model's JSON text, unparsed.
    pub arguments: String,
    /// The call waits for a person's approval.
    pub confirm: bool,
    /// The call may be repeated with the same idempotency key after a crash.
    pub idempotent: bool,
    /// Description of the effect, in words for a visitor.
    pub description: String,
    /// The question that the call asks the visitor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<Ask>,
    /// Provider fields returned to the provider with the call: the JSON text of an object with their values unchanged.
    /// `function` holds the fields that stood in the function. Absent in events older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
}

impl CallRequested {
    /// Returns whether the turn waits for a person before the call has a result.
    pub fn waits(&self) -> bool {
        self.confirm || self.ask.as_ref().is_some_and(|ask| ask.parks)
    }
}

/// A question to the visitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    pub form: Form,
    pub reason: String,
    /// The client shows forms, so the turn waits; otherwise the model asks in words.
    pub parks: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelReplied {
    pub turn: Uuid,
    pub epoch: u64,
    /// Preamble shown to the visitor while the answer was awaited, on the turn's first call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preamble: Option<String>,
    pub text: String,
    pub calls: Vec<CallRequested>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The way the reply ended; absent in events older than this field, in which every reply counts as whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<ReplyEnd>,
    /// Provider fields returned to the provider with this message, reasoning among them: the JSON text of an object with
    /// their values unchanged. Absent in events older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
    /// Documents in the model request of this call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grounding: Vec<Citation>,
    /// Times of the model call; absent = no call was made for it, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<ReplyTiming>,
    /// Record of the call's frames; absent = its client wanted no stream, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<FrameTrace>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolCalled {
    pub turn: Uuid,
    pub epoch: u64,
    pub call: String,
    pub name: String,
    /// The task that the server made of the call: a worker that takes over asks for it instead of calling again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolReturned {
    pub turn: Uuid,
    pub epoch: u64,
    pub call: String,
    pub name: String,
    pub is_error: bool,
    pub result: String,
    /// Documents in the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grounding: Vec<Citation>,
    /// Checked values of a form that the visitor answered in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Map<String, Value>>,
    /// The tool was refused until the visitor proves their identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otp: Option<OtpChallenge>,
    /// The call that asks the visitor first, on a client without forms: the model asks in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Box<WaitingCall>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnParked {
    pub turn: Uuid,
    pub epoch: u64,
    pub park: Uuid,
    pub prompt: Prompt,
    pub deadline: DateTime<Utc>,
    /// The questions of the calls that ended with some, the first one's in the prompt. Questions that an earlier park brought are
    /// not said again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elicited: Vec<Elicitation>,
}

/// A prompt to a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Prompt {
    /// Asks whether the tool may be called.
    Approval { call: String, tool: String, arguments: String, description: String },
    /// A form for the visitor to fill in; the park's id is the interaction's id.
    Interaction { call: String, tool: String, arguments: String, form: Form, reason: String },
    /// A question of the tool's server, in the middle of the call; the park's id is the interaction's.
    Elicitation { call: String, tool: String, form: Form, reason: String },
    /// Nothing: the turn waits for the task that a server made of the call, and looks again at the deadline.
    Task { call: String, tool: String },
}

impl Prompt {
    /// Returns the id of the tool call that waits for the answer.
    pub fn call(&self) -> &str {
        match self {
            Self::Approval { call, .. }
            | Self::Interaction { call, .. }
            | Self::Elicitation { call, .. }
            | Self::Task { call, .. } => call,
        }
    }

    /// Returns the kind of wait, as metrics and traces name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Approval { .. } => "approval",
            Self::Interaction { .. } => "form",
            Self::Elicitation { .. } => "question",
            Self::Task { .. } => "task",
        }
    }

    /// Whether a person is asked.
    pub fn is_for_a_person(&self) -> bool {
        !matches!(self, Self::Task { .. })
    }

    /// The form that is shown, if it is one.
    pub fn form(&self) -> Option<&Form> {
        match self {
            Self::Approval { .. } | Self::Task { .. } => None,
            Self::Interaction { form, .. } | Self::Elicitation { form, .. } => Some(form),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnResumed {
    pub turn: Uuid,
    pub park: Uuid,
    pub resolution: Resolution,
    /// The submitted values, checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Map<String, Value>>,
    /// The session that decided; absent = the deadline passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Uuid>,
    pub pool: String,
    /// Stored after this moment the event is void and the turn waits on; absent = the deadline passed, or the event is
    /// older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
}
