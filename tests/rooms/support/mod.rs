//! What the tests of the inner rooms share: sample events, and a log on a real nats-server.

#[path = "../../it/support/nats.rs"]
mod nats;
#[path = "../../it/support/processes.rs"]
mod processes;
pub mod samples;
pub mod server;
pub mod spy;

use std::time::Duration;

/// How long an event may take before the test is failed.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
