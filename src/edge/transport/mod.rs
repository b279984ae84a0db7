//! From a socket to whole messages: listening, the handshake, frames within bounds of bytes, time and memory.
//!
//! - [`server`]: listening, routes, drain.   - [`handshake`]: identifies clients.   - [`socket`]: one WebSocket.
//! - [`frame_limiter`], [`budget`]: limits on a client's bytes before they form a message.

pub mod budget;
pub mod frame_limiter;
pub mod handshake;
pub mod peer;
pub mod server;
pub mod socket;
