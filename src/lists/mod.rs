//! Conversations by owner and by time: what lists of them are made of.
//!
//! The bucket INDEX has an entry for every conversation in which something was said. It is a projection of the log: deleting
//! it loses nothing. Its keys hold organisation, owner and day, so that the newest of many are found without reading the rest.
//!
//! - [`entry`]: what is kept of a conversation, and where.
//! - [`keep`]: keeps it current; workers do that.   - [`read`]: pages; edges do that.

pub mod entry;
pub mod keep;
pub mod read;

pub use entry::{Entry, Place};
pub use read::{Lists, Page};

/// The bucket, and the stream behind it.
pub const BUCKET: &str = "INDEX";
pub const STREAM: &str = "KV_INDEX";
