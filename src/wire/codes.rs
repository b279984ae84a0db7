//! The error codes for clients.

use schemars::JsonSchema;
use serde::Serialize;

/// The error codes for clients.
///
/// | code | retry helps | the action had an effect |
/// |---|---|---|
/// | `VALIDATION_ERROR`, `UNSUPPORTED_ACTION` | no: mend the frame | no |
/// | `SESSION_NOT_FOUND`, `CONVERSATION_NOT_FOUND` | no: open a session | no |
/// | `CONVERSATION_READ_ONLY` | no: a newer version's event is there | no |
/// | `TURN_IN_PROGRESS` | yes, after the turn | no |
/// | `NO_PENDING_CONFIRMATION`, `NO_PENDING_INTERACTION`, `INTERACTION_MISMATCH` | no | no |
/// | `SKILL_NOT_FOUND`, `LLM_UNAVAILABLE` | no: configuration | no |
/// | `OTP_SEND_FAILED` | yes, as a new message | the turn goes on |
/// | `RATE_LIMITED` | after `data.details.retryAfterSeconds` | no |
/// | `AGENT_NOT_AUTHORIZED`, `ORIGIN_NOT_ALLOWED` | no: the widget's policy | no |
/// | `AUTH_CONTEXT_INVALID` | with a new signature | no |
/// | `AGENT_ERROR` | yes, as a new message | the message is in the history |
/// | `STORAGE_ERROR` | yes, with the same requestId | unknown; the same requestId can't have it twice |
/// | `INTERNAL_ERROR` | perhaps | unknown |
/// | `INVALID_TOKEN` | with another token, on a new connection | no |
/// | `UNAUTHENTICATED`, `MISSING_ROLE`, `FORBIDDEN`, `NOT_FOUND`: only over HTTP | no | no |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    ValidationError,
    UnsupportedAction,
    SessionNotFound,
    ConversationNotFound,
    ConversationReadOnly,
    TurnInProgress,
    NoPendingConfirmation,
    NoPendingInteraction,
    InteractionMismatch,
    SkillNotFound,
    LlmUnavailable,
    AgentError,
    OtpSendFailed,
    StorageError,
    InternalError,
    RateLimited,
    AgentNotAuthorized,
    OriginNotAllowed,
    AuthContextInvalid,
    Unauthenticated,
    InvalidToken,
    MissingRole,
    Forbidden,
    NotFound,
}

impl ErrorCode {
    /// Returns the code as clients get it.
    pub fn name(self) -> String {
        stored_name(&self)
    }
}

/// Returns the name of a plain variant in its JSON form.
pub fn stored_name(value: &impl Serialize) -> String {
    let name = serde_json::to_value(value).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
