//! The listed documents of a source.

use std::path::PathBuf;

/// A listed document that is not read yet.
#[derive(Clone, Debug)]
pub struct SourceItem {
    /// Path relative to the folder, or URL.
    pub id: String,
    pub url: Option<String>,
    /// A fingerprint of the content that is known without reading the document.
    pub content: Option<String>,
    pub place: ItemLocation,
}

/// The place where an item is read.
#[derive(Clone, Debug)]
pub enum ItemLocation {
    File {
        path: PathBuf,
        within: Option<PathBuf>,
    },
    Page(String),
    /// A raw blob of GitHub's API.
    Blob(String),
}

/// The current contents of a source.
#[derive(Debug, Default)]
pub struct SourceListing {
    pub items: Vec<SourceItem>,
    /// Parts that could not be listed. Documents that are missing from the listing may still exist then.
    pub failures: Vec<(String, String)>,
    /// Entries that were left out, and are no reason to doubt the rest.
    pub notes: Vec<String>,
    pub cursor: Option<String>,
}

impl SourceListing {
    /// Returns a listing that holds only a failure.
    pub fn failed(what: &str, why: impl std::fmt::Display) -> Self {
        Self { failures: vec![(what.to_string(), why.to_string())], ..Self::default() }
    }
}
