//! Policies for clients: rights, usage limits, the opening of sessions.
//!
//! - [`access`]: rights of visitors without proof.   - [`quota`]: usage limits.   - [`admission`]: sessions and messages.

pub mod access;
pub mod admission;
pub mod quota;
