//! Agents: their configurations, and the version under which a turn runs.
//!
//! Contract: a configuration is a message in the bucket AGENTS, under organisation and agent. Every version stays in its
//! stream, so a turn that names a version finds it however late the turn ends: workers read the version named by the turn.
//! Edges learn of a change within a second. An agent without a configuration of its own has the one of its organisation's
//! agent [`DEFAULT`], if that exists.
//!
//! - [`config`]: the fields of a configuration, and their checks.
//! - [`store`]: reads and writes versions.
//! - [`current`]: follows the current versions.

pub mod config;
pub mod current;
pub mod store;

pub use config::{AgentConfig, AuthLevel};
pub use current::CurrentAgents;
pub use store::AgentStore;

/// The agent with the default configuration of its organisation.
pub const DEFAULT: &str = "default";
