//! The two outside forms: what clients send and see, and what the log stores.
//!
//! - [`actions`]: client frames in, checked field by field.
//! - [`frames`], [`prompts`]: server frames out.   - [`codes`]: what can go wrong.
//! - [`render`]: events as frames, in one place for workers and edges.
//! - [`stored`]: events as stored messages, with their versions.
//! - [`live`]: the header that numbers the frames of a turn between worker and edge.
//! - [`presence`]: what workers and edges say of themselves.

pub mod actions;
pub mod codes;
pub mod frames;
pub mod live;
pub mod presence;
pub mod prompts;
pub mod render;
pub mod stored;
