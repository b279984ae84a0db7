//! Shared parts for tests of the inner rooms: sample events, and a log on a real nats-server.

#[path = "../../it/support/nats.rs"]
mod nats;
#[path = "../../it/support/processes.rs"]
mod processes;
pub mod samples;
pub mod server;
pub mod source;
pub mod spy;

use std::time::Duration;

/// Time limit for an event before the test fails.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
