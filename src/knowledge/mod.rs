//! Knowledge: organisations' documents, found for the readers that may read them.
//!
//! The stream KNOWLEDGE holds every document's last version. Each worker folds it into an index of its own, which is
//! lost with the process and rebuilt; or an organisation's own search answers instead.
//!
//! - [`document`]: the stored forms.   - [`store`]: writing and listing.   - [`read`]: reading on, from any sequence.
//! - [`connector`]: sources of documents.   - [`runs`]: the events of ingest runs.
//! - [`shelf`]: the fold.   - [`words`], [`text`], [`fusion`], [`index`]: words, vectors, both.
//! - [`follow`]: keeps the index current.
//! - [`local`]: retrieval from that index.
//! - [`bench`]: the cost of the index, and the quality of its results.
//! - [`reader`]: access control.   - [`retrieve`]: the trait in front of all of it.   - [`passage`]: search results.

#[cfg(feature = "bench")]
pub mod bench;
pub mod connector;
pub mod demo;
pub mod document;
#[cfg(feature = "search")]
pub mod follow;
#[cfg(feature = "search")]
pub mod fusion;
#[cfg(feature = "search")]
pub mod index;
#[cfg(feature = "search")]
pub mod local;
pub mod passage;
pub mod read;
pub mod reader;
pub mod retrieve;
pub mod runs;
pub mod shelf;
pub mod store;
#[cfg(feature = "search")]
pub mod text;
#[cfg(feature = "search")]
pub mod words;

pub use document::{Acl, Document, NewChunk, NewDocument};
#[cfg(feature = "search")]
pub use index::Index;
pub use passage::{GROUNDING_PASSAGES, Passage, distinct_citations};
pub use reader::Reader;
pub use retrieve::Retrieve;
pub use store::{Store, StoreError};

/// The document set of documents that name none.
pub const DEFAULT_SET: &str = "default";
