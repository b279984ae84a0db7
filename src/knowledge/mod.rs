//! Knowledge: organisations' documents, found for the readers that may read them.
//!
//! The stream KNOWLEDGE holds every document's last version. Each worker folds it into an index of its own, which is
//! lost with the process and rebuilt; or an organisation's own search answers instead.
//!
//! - [`document`]: the stored forms.   - [`store`]: writing and listing.   - [`cursor`]: reading on, from any sequence.
//! - [`connector`]: sources of documents.   - [`runs`]: the events of ingest runs.
//! - [`document_fold`]: the fold.   - [`tokenizer`], [`full_text`], [`fusion`], [`index`]: words, vectors, both.
//! - [`indexer`]: keeps the index current.
//! - [`local`]: retrieval from that index.
//! - [`bench`]: the cost of the index, and the quality of its results.
//! - [`reader`]: access control.   - [`retrieve`]: the trait in front of all of it.   - [`passage`]: search results.

#[cfg(feature = "bench")]
pub mod bench;
pub mod connector;
pub mod cursor;
pub mod demo;
pub mod document;
pub mod document_fold;
#[cfg(feature = "search")]
pub mod full_text;
#[cfg(feature = "search")]
pub mod fusion;
#[cfg(feature = "search")]
pub mod index;
#[cfg(feature = "search")]
pub mod indexer;
#[cfg(feature = "search")]
pub mod local;
pub mod passage;
pub mod reader;
pub mod retrieve;
pub mod runs;
pub mod store;
#[cfg(feature = "search")]
pub mod tokenizer;

pub use document::{Acl, Document, NewChunk, NewDocument};
#[cfg(feature = "search")]
pub use index::KnowledgeIndex;
pub use passage::{GROUNDING_PASSAGES, Passage, distinct_citations};
pub use reader::KnowledgeReader;
pub use retrieve::Retriever;
pub use store::{KnowledgeStore, KnowledgeStoreError};

/// The document set of documents that name none.
pub const DEFAULT_SET: &str = "default";
