//! The two outside formats: the frames of clients, and the messages stored in the log.
//!
//! - [`actions`]: client frames in, checked field by field.
//! - [`frames`], [`prompts`]: server frames out.   - [`codes`]: error codes.
//! - [`render`]: events as frames, in one place for workers and edges.
//! - [`stored`]: events as stored messages, with their versions.
//! - [`live`]: the header that numbers the frames of a turn between worker and edge.
//! - [`presence`]: advertisements of workers and edges.

pub mod actions;
pub mod codes;
pub mod frames;
pub mod live;
pub mod presence;
pub mod prompts;
pub mod render;
pub mod stored;
