//! The log as evidence: reading it in order, showing it to people and programs, and proving that it was not changed.
//!
//! - [`scan`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`walk`]: one conversation, at a cost independent of the stream's size.
//! - [`verify`]: follows the chain of digests and checks it against checkpoints.   - [`timeline`]: events in words.
//! - [`replay`]: the external formats of events.   - [`export`]: files of events.   - [`bundle`]: verifies such files offline.
//! - [`seal`]: signs checkpoints.   - [`checkpoint`]: their content.   - [`tree`]: the Merkle tree over all heads.
//! - [`open`]: decrypts payloads.   - [`redact`]: hides arguments from auditors.   - [`seen`]: the events that remain visible.
//! - [`report`]: a whole conversation for a reader.   - [`view`], [`lanes`], [`changes`]: the data of a viewer.
//! - [`frames`]: events as a client's frames.   - [`pace`]: playback speed.   - [`page`]: playback in a browser.

pub mod bundle;
pub mod changes;
pub mod checkpoint;
pub mod export;
pub mod frames;
pub mod lanes;
pub mod open;
pub mod pace;
pub mod page;
pub mod redact;
pub mod replay;
pub mod report;
pub mod scan;
pub mod seal;
pub mod seen;
pub mod timeline;
pub mod tree;
pub mod verify;
pub mod view;
pub mod walk;

pub use crate::signing as keys;
