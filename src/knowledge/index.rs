//! The local index of one process: all documents, their words and their vectors.
//!
//! The index is a projection of the stream: it is lost with the process and rebuilt.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tantivy::TantivyError;

use super::{
    document_fold::{DocumentChange, DocumentKey, WholeDocument},
    full_text::{FullTextIndex, TextHit},
    fusion::fuse,
    passage::Passage,
    reader::KnowledgeReader,
};
use crate::limits;

/// The index over words and vectors.
///
/// Readers never wait for words to be written: the slow part (a commit) happens outside the lock of the documents.
pub struct KnowledgeIndex {
    text: FullTextIndex,
    documents: RwLock<IndexedDocuments>,
}

#[derive(Default)]
struct IndexedDocuments {
    by_key: HashMap<DocumentKey, Arc<IndexedDocument>>,
    /// The documents of each organisation.
    by_org: HashMap<String, Vec<DocumentKey>>,
}

/// A document that can be found.
struct IndexedDocument {
    whole: WholeDocument,
    /// The unit vector of each chunk; empty where there is none.
    vectors: Vec<Vec<f32>>,
}

/// A search request.
pub struct PassageQuery<'a> {
    pub text: &'a str,
    /// The query's embedding, if there is a model for it.
    pub vector: Option<&'a [f32]>,
    pub rerank: bool,
}

impl KnowledgeIndex {
    pub fn new() -> Result<Self, TantivyError> {
        Ok(Self { text: FullTextIndex::new()?, documents: RwLock::default() })
    }

    /// Applies changes; they can be found when this returns. Computes for a while.
    pub fn apply(&self, changes: Vec<DocumentChange>) -> Result<(), TantivyError> {
        for change in &changes {
            match change {
                DocumentChange::Put(whole) => self.text.put(whole)?,
                DocumentChange::Gone(key) => self.text.remove(key),
            }
        }
        self.text.commit()?;
        let mut documents = self.write();
        for change in changes {
            match change {
                DocumentChange::Put(whole) => documents.put(*whole),
                DocumentChange::Gone(key) => documents.remove(&key),
            }
        }
        Ok(())
    }

    /// Removes all documents.
    pub fn clear(&self) -> Result<(), TantivyError> {
        *self.write() = IndexedDocuments::default();
        self.text.clear()
    }

    /// Returns whether an organisation has no document.
    pub fn is_empty(&self, org: &str) -> bool {
        self.read().by_org.get(org).is_none_or(Vec::is_empty)
    }

    /// Returns the number of documents and of passages.
    pub fn size(&self) -> (usize, usize) {
        let documents = self.read();
        (documents.by_key.len(), documents.by_key.values().map(|shown| shown.whole.chunks.len()).sum())
    }

    fn read(&self) -> RwLockReadGuard<'_, IndexedDocuments> {
        self.documents.read().expect("no panic happens under this lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, IndexedDocuments> {
        self.documents.write().expect("no panic happens under this lock")
    }

    /// Returns the best matching passages that the reader may read, best first.
    ///
    /// Scores are from 0 to 1; a passage that is first in every queried ranking has 1.
    pub fn search(
        &self,
        query: &PassageQuery,
        reader: &KnowledgeReader,
        limit: usize,
    ) -> Result<Vec<Passage>, TantivyError> {
        let words = self.text.search(query.text, reader, limits::CANDIDATES)?;
        let documents = self.read();
        let near = query.vector.map(|vector| documents.nearest(vector, reader, limits::CANDIDATES)).unwrap_or_default();
        let mut fused = fuse(&words, &near);
        if query.rerank {
            let best = limits::RERANKED.min(fused.len());
            self.rerank(&documents, query.text, &mut fused[..best]);
        }
        let passages = fused.into_iter().filter_map(|(hit, score)| {
            let shown = documents.by_key.get(&hit.key)?;
            // The text index has filtered already; the current document decides.
            let readable = reader.may_read(&hit.key.org, &shown.whole.head);
            readable.then(|| shown.passage(hit.chunk, score)).flatten()
        });
        Ok(passages.take(limit).collect())
    }

    /// Ranks passages by the share of the query's words that they hold; passages with equal shares keep their order.
    fn rerank(&self, documents: &IndexedDocuments, query: &str, ranked: &mut [(TextHit, f64)]) {
        let wanted = self.text.words(query);
        let coverage = |hit: &TextHit| {
            let passage = documents.by_key.get(&hit.key).and_then(|shown| shown.passage(hit.chunk, 0.0));
            let words = passage.map(|p| self.text.words(&format!("{} {}", p.title, p.text))).unwrap_or_default();
            wanted.iter().filter(|word| words.contains(word)).count()
        };
        let scores: Vec<f64> = ranked.iter().map(|(_, score)| *score).collect();
        ranked.sort_by_cached_key(|(hit, _)| std::cmp::Reverse(coverage(hit)));
        for ((_, score), of_rank) in ranked.iter_mut().zip(scores) {
            *score = of_rank;
        }
    }
}

impl IndexedDocuments {
    fn put(&mut self, whole: WholeDocument) {
        let vectors = whole.chunks.iter().map(|chunk| chunk.vector.as_ref().map_or_else(Vec::new, |v| unit(&v.0)));
        let (key, vectors) = (whole.key.clone(), vectors.collect());
        if self.by_key.insert(key.clone(), Arc::new(IndexedDocument { whole, vectors })).is_none() {
            self.by_org.entry(key.org.clone()).or_default().push(key);
        }
    }

    fn remove(&mut self, key: &DocumentKey) {
        if self.by_key.remove(key).is_some()
            && let Some(of_org) = self.by_org.get_mut(&key.org)
        {
            of_org.retain(|other| other != key);
        }
    }

    /// Returns the passages whose vectors are nearest to this one.
    ///
    /// Every readable vector is compared: exact, and fast enough for the amount that one process should hold.
    fn nearest(&self, vector: &[f32], reader: &KnowledgeReader, limit: usize) -> Vec<(TextHit, f32)> {
        let wanted = unit(vector);
        let mut found: Vec<(f32, &DocumentKey, usize)> = Vec::new();
        for key in self.by_org.get(&reader.org).into_iter().flatten() {
            let Some(shown) = self.by_key.get(key) else { continue };
            if !reader.may_read(&key.org, &shown.whole.head) {
                continue;
            }
            for (chunk, vector) in shown.vectors.iter().enumerate().filter(|(_, v)| v.len() == wanted.len()) {
                found.push((product(vector, &wanted), key, chunk));
            }
        }
        let nearer = |a: &(f32, &DocumentKey, usize), b: &(f32, &DocumentKey, usize)| b.0.total_cmp(&a.0);
        if found.len() > limit {
            found.select_nth_unstable_by(limit, nearer);
            found.truncate(limit);
        }
        found.sort_by(nearer);
        let near = found.into_iter().filter(|(likeness, ..)| *likeness > 0.0);
        near.map(|(likeness, key, chunk)| (TextHit { key: key.clone(), chunk }, likeness)).collect()
    }
}

impl IndexedDocument {
    fn passage(&self, chunk: usize, score: f64) -> Option<Passage> {
        let head = &self.whole.head;
        Some(Passage {
            document: head.id.clone(),
            title: head.title.clone(),
            url: head.url.clone(),
            text: self.whole.chunks.get(chunk)?.text.clone(),
            score,
        })
    }
}

fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|component| component * component).sum::<f32>().sqrt();
    if length > 0.0 { vector.iter().map(|component| component / length).collect() } else { Vec::new() }
}

/// Returns the scalar product of two vectors of one length, in several sums that the processor adds in parallel.
fn product(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0f32; LANES];
    for (x, y) in a_lanes.zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}
