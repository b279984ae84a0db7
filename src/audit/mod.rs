//! The log as evidence: reading it in its order, telling it to people and programs, and proving that nobody changed it.
//!
//! - [`scan`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`walk`]: one conversation, however large the stream is.
//! - [`verify`]: follows the chain of digests.   - [`timeline`]: events in words.   - [`replay`]: their outside forms.
//! - [`open`]: opens what is sealed.         - [`redact`]: hides what auditors are not shown.   - [`seen`]: what is left.
//! - [`frames`]: events as what a client saw.   - [`pace`]: how fast that goes.   - [`page`]: that on a page.
//! - [`report`]: all of a conversation for a reader.   - [`view`], [`lanes`], [`changes`]: what a viewer shows of it.
//! - [`frames`]: events as what a client saw.   - [`pace`]: how fast that goes.   - [`page`]: that on a page.

pub mod changes;
pub mod frames;
pub mod lanes;
pub mod open;
pub mod pace;
pub mod page;
pub mod redact;
pub mod replay;
pub mod report;
pub mod scan;
pub mod seen;
pub mod timeline;
pub mod verify;
pub mod view;
pub mod walk;
