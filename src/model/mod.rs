//! The model client: streamed chat completions from any OpenAI-compatible gateway.
//!
//! Contract: [`Gateway::chat`] sends one request, retrying it while nothing has been streamed, and returns a
//! [`ChatStream`]. Its deltas come in the order the model wrote them, none twice and none lost; a reply counts only
//! when the gateway has ended it properly, so a cut connection, an error page or a stalled stream is an error and never
//! a shorter answer, and the reply holds its ending. Dropping the stream aborts the request. Everything a gateway can
//! send is bounded in size and in time.
//!
//! Gateways differ in every detail: `spec/guide/providers.md` decides on their oddities. Requests are in the one form
//! that every back end takes ([`normal`]), except for the parts that a gateway has refused ([`dialect`]).
//!
//! Architecture invariant: this room knows nothing of conversations, turns or NATS; it imports nothing of the rest of
//! the crate.

mod adapt;
mod chunk;
mod content;
mod dialect;
mod error;
mod finish_reason;
mod gateway;
mod json_repair;
mod messages;
mod normal;
mod opaque;
mod plain;
mod raw;
mod reply;
mod request;
mod retry;
mod sse;
mod stream;
#[cfg(test)]
mod tests;
mod timeouts;
mod tool_calls;
mod vectors;

pub use error::{GatewayConfigError, ModelError};
pub use finish_reason::FinishReason;
pub use gateway::Gateway;
pub use messages::{ChatMessage, ChatRequest, ImageUrl, ToolCall, ToolSpec};
pub use reply::{ModelReply, ReplyDelta, TokenUsage};
pub use stream::ChatStream;
pub use timeouts::Timeouts;
