//! The log as evidence: reading it in order, showing it to people and programs, and proving that it was not changed.
//!
//! - [`stream_reader`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`chain_reader`]: one conversation, at a cost independent of the stream's size.
//! - [`verify`]: follows the chain of digests and checks it against checkpoints.   - [`timeline`]: events in words.
//! - [`replay`]: the external formats of events.   - [`export`]: files of events.   - [`bundle`]: verifies such files offline.
//! - [`signer`]: signs checkpoints.   - [`checkpoint`]: their content.   - [`merkle_tree`]: the Merkle tree over all heads.
//! - [`event_reader`]: decrypts payloads.   - [`redact`]: hides arguments from auditors.   - [`message_view`]: the events that remain visible.
//! - [`report`]: a whole conversation for a reader.   - [`view`], [`swim_lanes`], [`changes`]: the data of a viewer.
//! - [`frames`]: events as a client's frames.   - [`playback_speed`]: playback speed.   - [`page`]: playback in a browser.

pub mod bundle;
pub mod chain_reader;
pub mod changes;
pub mod checkpoint;
pub mod event_reader;
pub mod export;
pub mod frames;
pub mod merkle_tree;
pub mod message_view;
pub mod page;
pub mod playback_speed;
pub mod redact;
pub mod replay;
pub mod report;
pub mod signer;
pub mod stream_reader;
pub mod swim_lanes;
pub mod timeline;
pub mod verify;
pub mod view;

pub use crate::signing as keys;
