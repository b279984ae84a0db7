//! Knowledge: what organisations know, found for those who may read it.
//!
//! The stream KNOWLEDGE holds every document's last version. Each worker folds it into an index of its own, which is lost with
//! the process and made again; or an organisation's own search answers instead.
//!
//! - [`document`]: the stored forms.   - [`store`]: writing and listing.   - [`read`]: reading on, from any place.
//! - [`connector`]: where documents come from.   - [`runs`]: what ingest did.
//! - [`shelf`]: the fold.   - [`words`], [`text`], [`fusion`], [`index`]: words, vectors, both.   - [`follow`]: keeps the index current.
//! - [`bench`]: what it costs, and how well it finds.
//! - [`reader`]: who may read what.   - [`retrieve`]: the trait behind which all of it stands.   - [`passage`]: what is found.

pub mod bench;
pub mod connector;
pub mod demo;
pub mod document;
pub mod follow;
pub mod fusion;
pub mod index;
pub mod passage;
pub mod read;
pub mod reader;
pub mod retrieve;
pub mod runs;
pub mod shelf;
pub mod store;
pub mod text;
pub mod words;

pub use document::{Acl, Document, NewChunk, NewDocument};
pub use index::Index;
pub use passage::{GROUNDING_PASSAGES, Passage, distinct_citations};
pub use reader::Reader;
pub use retrieve::Retrieve;
pub use store::{Store, StoreError};

/// The document set of documents that name none.
pub const DEFAULT_SET: &str = "default";
