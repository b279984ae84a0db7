//! The live path: frames of running turns on their way from workers to connections.
//!
//! - [`relay`]: the worker's side; numbers frames and publishes them.
//! - [`hub`]: the edge's side; one NATS subscription per conversation, shared by the edge's connections.
//! - [`replay`]: the frames that the LIVE stream retains, for repairing gaps.

pub mod hub;
pub mod relay;
pub mod replay;
