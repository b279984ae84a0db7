//! The log as evidence: reading it in its order, telling it to people and programs, and proving that nobody changed it.
//!
//! - [`scan`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`walk`]: one conversation, however large the stream is.   - [`opened`]: stored messages with what can be read of them.
//! - [`verify`]: follows the chain of digests.   - [`timeline`]: events in words.   - [`replay`]: their outside forms.
//! - [`report`]: all of a conversation for a reader.   - [`view`], [`lanes`], [`changes`]: what a viewer shows of it.

pub mod changes;
pub mod lanes;
pub mod opened;
pub mod replay;
pub mod report;
pub mod scan;
pub mod timeline;
pub mod verify;
pub mod view;
pub mod walk;
