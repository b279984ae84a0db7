//! The index of conversations, by owner and by time: the source of lists.
//!
//! The bucket INDEX has an entry for every conversation with a message. The index is a projection of the log: deleting it
//! loses nothing. Its keys hold organisation, owner and day, so that the newest of many are found without reading the rest.
//!
//! - [`entry`]: the entry of a conversation, and its key.
//! - [`keep`]: the indexer, in workers.   - [`read`]: pages, for edges.

pub mod entry;
pub mod keep;
pub mod read;

pub use entry::{Entry, Place};
pub use read::{Lists, Page};

/// The bucket, and the stream behind it.
pub const BUCKET: &str = "INDEX";
pub const STREAM: &str = "KV_INDEX";
