//! The log as evidence: reading it in its order, telling it to people and programs, and proving that nobody changed it.
//!
//! - [`scan`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`verify`]: follows the chain of digests.   - [`timeline`]: events in words.   - [`replay`]: their outside forms.
//! - [`open`]: opens what is sealed.         - [`redact`]: hides what auditors are not shown.
//! - [`frames`]: events as what a client saw.   - [`pace`]: how fast that goes.   - [`page`]: that on a page.

pub mod frames;
pub mod open;
pub mod pace;
pub mod page;
pub mod redact;
pub mod replay;
pub mod scan;
pub mod timeline;
pub mod verify;
