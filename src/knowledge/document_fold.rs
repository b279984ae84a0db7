//! The fold of the stream of knowledge: its complete documents.
//!
//! Pure: messages in, changes out. A document is complete when its head and all chunks of the head's version have come,
//! in any order; until then the version before it stays.

use std::collections::{BTreeMap, HashMap};

use super::document::{Chunk, Document};
use crate::subjects::parse_knowledge;

/// A document's key: organisation and token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey {
    pub org: String,
    pub token: String,
}

/// A document with all its passages.
#[derive(Debug, PartialEq)]
pub struct WholeDocument {
    pub key: DocumentKey,
    pub head: Document,
    pub chunks: Vec<Chunk>,
}

/// The effect of a message on the documents.
#[derive(Debug, PartialEq)]
pub enum DocumentChange {
    Put(Box<WholeDocument>),
    Gone(DocumentKey),
}

/// Documents that are not complete yet.
#[derive(Default)]
pub struct DocumentFold {
    waiting: HashMap<DocumentKey, PartialDocument>,
}

#[derive(Default)]
struct PartialDocument {
    head: Option<Document>,
    chunks: BTreeMap<usize, Chunk>,
}

impl DocumentFold {
    /// Takes the next message of the stream.
    pub fn take(&mut self, subject: &str, payload: &[u8]) -> Option<DocumentChange> {
        let (org, token, part) = parse_knowledge(subject)?;
        let key = DocumentKey { org, token: token.to_string() };
        let waiting = self.waiting.entry(key.clone()).or_default();
        let read = match part {
            Some(n) => serde_json::from_slice(payload).map(|chunk| drop(waiting.chunks.insert(n, chunk))),
            None => serde_json::from_slice(payload).map(|head| waiting.head = Some(head)),
        };
        if let Err(error) = read {
            tracing::error!(%error, subject, "a knowledge message is malformed and is skipped");
            return None;
        }
        if !waiting.is_whole() {
            return None;
        }
        let PartialDocument { head, mut chunks } = self.waiting.remove(&key)?;
        let head = head?;
        if head.deleted {
            return Some(DocumentChange::Gone(key));
        }
        chunks.retain(|_, chunk| chunk.version == head.version);
        let chunks = chunks.into_values().take(head.chunks as usize).collect();
        Some(DocumentChange::Put(Box::new(WholeDocument { key, chunks, head })))
    }
}

impl PartialDocument {
    fn is_whole(&self) -> bool {
        let Some(head) = &self.head else { return false };
        let of_head = |n: usize| self.chunks.get(&n).is_some_and(|chunk| chunk.version == head.version);
        head.deleted || (0..head.chunks as usize).all(of_head)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::{knowledge::document::Acl, subjects};

    fn head(version: u128, chunks: u32) -> Document {
        Document {
            id: "a.md".into(),
            title: "A".into(),
            url: None,
            set: "default".into(),
            source: "test".into(),
            acl: Acl::Public,
            hash: String::new(),
            version: Uuid::from_u128(version),
            chunks,
            embedding_model: None,
            updated_at: DateTime::UNIX_EPOCH,
            deleted: false,
        }
    }

    fn chunk(version: u128, text: &str) -> Chunk {
        Chunk { version: Uuid::from_u128(version), headings: vec![], text: text.into(), vector: None }
    }

    fn take(fold: &mut DocumentFold, part: Option<usize>, value: &impl serde::Serialize) -> Option<Vec<String>> {
        let subject = subjects::knowledge("org", &subjects::knowledge_document("a.md"), part);
        match fold.take(&subject, &serde_json::to_vec(value).unwrap())? {
            DocumentChange::Put(whole) => Some(whole.chunks.into_iter().map(|chunk| chunk.text).collect()),
            DocumentChange::Gone(_) => Some(vec!["gone".into()]),
        }
    }

    #[test]
    fn a_document_is_indexed_when_it_is_complete() {
        let fold = &mut DocumentFold::default();
        assert_eq!(take(fold, Some(0), &chunk(1, "one")), None);
        assert_eq!(take(fold, Some(1), &chunk(1, "two")), None);
        assert_eq!(take(fold, None, &head(1, 2)), Some(vec!["one".into(), "two".into()]));
        // The chunks of the next version come one by one; left-overs of the first version are ignored.
        assert_eq!(take(fold, Some(0), &chunk(2, "new")), None);
        assert_eq!(take(fold, Some(5), &chunk(1, "old")), None);
        assert_eq!(take(fold, None, &head(2, 1)), Some(vec!["new".into()]));
    }

    #[test]
    fn messages_arrive_in_any_order_and_versions_never_mix() {
        let fold = &mut DocumentFold::default();
        assert_eq!(take(fold, None, &head(2, 2)), None);
        assert_eq!(take(fold, Some(1), &chunk(1, "of the past")), None);
        assert_eq!(take(fold, Some(0), &chunk(2, "one")), None);
        assert_eq!(take(fold, Some(1), &chunk(2, "two")), Some(vec!["one".into(), "two".into()]));
        assert_eq!(take(fold, None, &head(3, 0)), Some(vec![]), "an empty document is whole");
        assert_eq!(take(fold, None, &Document { deleted: true, ..head(4, 0) }), Some(vec!["gone".into()]));
    }
}
