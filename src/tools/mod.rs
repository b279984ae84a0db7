//! Tools: what the model may call.
//!
//! - [`registry`]: which tools there are now, as a list in a fixed order.
//! - [`discovery`]: finds the endpoints of NATS micro services that are tools.
//! - [`call`]: calls one tool and makes a result of whatever happens.
//! - [`demo`]: the write tool of `SMOOTH_AGENT_SEED_KB`, itself a NATS micro service.

pub mod call;
pub mod demo;
pub mod discovery;
pub mod registry;

pub use call::{CallContext, ToolResult};
pub use registry::{Registry, Tool};
