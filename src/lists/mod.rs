//! The index of conversations, by owner and by time: the source of lists.
//!
//! The bucket INDEX has an entry for every conversation with a message. The index is a projection of the log: deleting it
//! loses nothing. Its keys hold organisation, owner and day, so that the newest of many are found without reading the rest.
//!
//! - [`entry`]: the entry of a conversation, and its key.
//! - [`indexer`]: the indexer, in workers.   - [`query`]: pages, for edges.

pub mod entry;
pub mod indexer;
pub mod query;

pub use entry::{ListEntry, ListPosition};
pub use query::{ConversationLists, ListPage};

/// The bucket, and the stream behind it.
pub const BUCKET: &str = "INDEX";
pub const STREAM: &str = "KV_INDEX";
