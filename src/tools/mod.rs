//! Tools that the model may call.
//!
//! - [`registry`]: the current tools, as a list in a fixed order.
//! - [`discovery`]: finds the endpoints of NATS micro services that are tools.
//! - [`claims`]: decides which declarations of tools count.
//! - [`schema`]: tools' arguments, in the form that models' interfaces take.
//! - [`canonical`]: a call's arguments in the one form that is shown and sent.
//! - [`tool`]: a tool, its backend and conditions.   - [`context`], [`outcome`]: the input of a call, and its outcome.
//! - [`call`]: calls one tool; every outcome becomes a result.
//! - [`files`]: gives a tool the files that came with its call.
//! - [`builtin`]: the built-in tools: [`fetch_url`], [`web_search`], [`github_search`], [`history`], [`interactions`].
//! - [`mcp`]: tools of MCP servers.
//! - [`demo`]: the write tool of `SMOOTH_AGENT_SEED_KB`, itself a NATS micro service.

pub mod builtin;
pub mod call;
pub mod canonical;
pub mod claims;
pub mod context;
pub mod demo;
pub mod discovery;
pub mod fetch_url;
pub mod files;
pub mod github_search;
pub mod history;
pub mod interactions;
pub mod mcp;
pub mod outcome;
pub mod registry;
pub mod schema;
pub mod tool;
pub mod web_search;

pub use builtin::Builtins;
pub use context::{CallContext, MessageHistory, PastMessage, PastMessages};
pub use files::ReadFiles;
pub use mcp::McpTools;
pub use outcome::{ToolCallOutcome, ToolResult};
pub use registry::ToolRegistry;
pub use tool::{BuiltinOffer, Tool, ToolBackend};
