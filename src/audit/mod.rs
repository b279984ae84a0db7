//! The log as evidence: reading it in its order, telling it to people and programs, and proving that nobody changed it.
//!
//! - [`scan`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`verify`]: follows the chain of digests, and holds it to checkpoints.   - [`timeline`]: events in words.
//! - [`replay`]: their outside forms.   - [`export`]: files of them.   - [`bundle`]: verifies such files, with nothing else there.
//! - [`seal`]: signs checkpoints.   - [`checkpoint`]: what they say.   - [`tree`]: over where all conversations stand.
//! - [`open`]: opens what is sealed.         - [`redact`]: hides what auditors are not shown.

pub mod bundle;
pub mod checkpoint;
pub mod export;
pub mod keys;
pub mod open;
pub mod redact;
pub mod replay;
pub mod scan;
pub mod seal;
pub mod timeline;
pub mod tree;
pub mod verify;
