//! Turnstream: a server for AI-agent conversations, event-sourced over NATS JetStream.
//!
//! The log is the state: a conversation is a sequence of events on JetStream, and everything else is a projection of it or a
//! relay for it. The code map is in `src/README.md`.

pub mod admin;
pub mod agents;
pub mod app;
pub mod auth;
#[cfg(feature = "bench")]
pub mod bench;
pub mod calls;
pub mod cli;
pub mod config;
#[cfg(feature = "dev")]
pub mod demo;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domain;
pub mod edge;
pub mod encryption;
pub mod evidence;
pub mod extract;
pub mod fetch;
pub mod history;
pub mod host;
pub mod ids;
pub mod ingest;
pub mod knowledge;
pub mod limits;
pub mod lists;
pub mod live;
pub mod log;
pub mod metrics;
pub mod model;
pub mod nats;
pub mod otp;
pub mod permissions;
pub mod playback;
pub mod privacy;
pub mod secrets;
pub mod signing;
pub mod subjects;
pub mod tools;
pub mod wire;
pub mod worker;
