//! The support of the fault tests: parts shared with the flow tests, and clients, processes and a view of the log that
//! tolerate faults.

pub mod client;
pub mod cluster;
pub mod ground;
pub mod link;
pub mod log;
pub mod probe;
pub mod provider;
pub mod proxy;
pub mod skew;
pub mod stage;

#[path = "../../it/support/encrypted.rs"]
pub mod encrypted;
#[path = "../../it/support/frames.rs"]
pub mod frames;
#[path = "../../it/support/gateway/mod.rs"]
pub mod gateway;
#[path = "../../it/support/nats.rs"]
pub mod nats;
#[path = "../../it/support/processes.rs"]
pub mod processes;
#[path = "../../it/support/roles.rs"]
pub mod roles;
#[path = "../../it/support/schema.rs"]
pub mod schema;
#[path = "../../it/support/validate.rs"]
pub mod validate;

/// The timeout of an event, after which the test fails. A worker's death is noticed after seconds.
pub const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(60);
