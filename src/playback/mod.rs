//! A conversation as its client saw it.
//!
//! - [`frames`]: events as a client's frames.   - [`speed`]: playback speed.   - [`page`]: playback in a browser.

pub mod frames;
pub mod page;
pub mod speed;
