//! The log as evidence: reading it in its order, telling it to people and programs, and proving that nobody changed it.
//!
//! - [`scan`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`walk`]: one conversation, however large the stream is.
//! - [`verify`]: follows the chain of digests, and holds it to checkpoints.   - [`timeline`]: events in words.
//! - [`replay`]: their outside forms.   - [`export`]: files of them.   - [`bundle`]: verifies such files, with nothing else there.
//! - [`seal`]: signs checkpoints.   - [`checkpoint`]: what they say.   - [`tree`]: over where all conversations stand.
//! - [`open`]: opens what is sealed.         - [`redact`]: hides what auditors are not shown.   - [`seen`]: what is left.
//! - [`report`]: all of a conversation for a reader.   - [`view`], [`lanes`], [`changes`]: what a viewer shows of it.
//! - [`frames`]: events as what a client saw.   - [`pace`]: how fast that goes.   - [`page`]: that on a page.

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
