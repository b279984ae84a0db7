//! Agents: how each one is configured, and which version of that a turn runs under.
//!
//! Contract: a configuration is a message in the bucket AGENTS, under organisation and agent. Every version stays in its
//! stream, so a turn that names one finds it however late it ends: workers read the version that they are told. Edges know a
//! change within a second. An agent without a configuration of its own has that of its organisation's agent [`DEFAULT`], if there is one.
//!
//! - [`config`]: what may be configured, and its checks.   - [`store`]: reading and writing versions.
//! - [`current`]: the versions that are current, followed.

pub mod config;
pub mod current;
pub mod store;

pub use config::{AgentConfig, AuthLevel};
pub use current::Agents;
pub use store::Store;

/// The agent whose configuration others of its organisation have.
pub const DEFAULT: &str = "default";
