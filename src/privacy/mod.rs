//! Erasing what people said, and holding against it.
//!
//! - [`person`]: who is in a conversation.   - [`ledger`]: what was held and erased, beside the log.
//! - [`erase`]: finding conversations and destroying their keys.   - [`retain`]: which are kept long enough.   - [`sweep`]: erases those.
//!
//! Contract: a conversation is erased when its keys are destroyed. Its events stay, sealed for good, and with them the chain of
//! digests. What is asked is recorded before it is done, so that it is done by somebody else when this process dies; a legal
//! hold that is in the ledger by then prevents it.

pub mod erase;
pub mod ledger;
pub mod person;
mod retain;
pub mod sweep;
