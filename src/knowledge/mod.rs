//! Knowledge: the passages that ground an answer.
//!
//! For now an index in memory over the demo documents, ranked by shared words (rare ones count more). What the rest of the
//! program uses, [`Index::search`], is the seam behind which a real index comes.
//!
//! - [`document`]: documents as they are stored.
//! - [`store`]: documents on their stream: writing, deleting, what is there.   - [`read`]: reading on, from any place.
//! - [`runs`]: what ingest did, on a stream of its own.

pub mod document;
pub mod read;
pub mod runs;
pub mod store;

use std::collections::{HashMap, HashSet};

pub use document::{Acl, Document, NewChunk, NewDocument};
pub use store::{Store, StoreError};

use crate::domain::event::Citation;

/// The document set of documents that name none.
pub const DEFAULT_SET: &str = "default";
/// Passages that are put before the model for a message.
pub const GROUNDING_PASSAGES: usize = 3;
/// Most citations in an answer, from the protocol.
pub const CITATIONS_MAX: usize = 8;
/// Longest snippet of a citation, from the protocol.
const SNIPPET_MAX_CHARS: usize = 280;

/// A part of a document that answers a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    pub document: String,
    pub title: String,
    pub text: String,
    /// Share of the query's weight that the passage holds, 0 to 1.
    pub score: f64,
}

impl Passage {
    /// The passage as a citation.
    pub fn citation(&self) -> Citation {
        let snippet = self.text.chars().take(SNIPPET_MAX_CHARS).collect();
        Citation { id: self.document.clone(), title: self.title.clone(), url: None, snippet, score: self.score }
    }
}

/// The best citation of each document, best first.
pub fn distinct_citations(mut citations: Vec<Citation>) -> Vec<Citation> {
    citations.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut seen = HashSet::new();
    citations.retain(|citation| seen.insert(citation.id.clone()));
    citations.truncate(CITATIONS_MAX);
    citations
}

/// A searchable set of documents.
#[derive(Default)]
pub struct Index {
    passages: Vec<(Passage, HashSet<String>)>,
}

impl Index {
    /// The two demo documents of `SMOOTH_AGENT_SEED_KB`.
    pub fn demo() -> Self {
        let documents = [
            ("returns.md", "Returns policy", include_str!("demo/returns.md")),
            ("shipping.md", "Shipping", include_str!("demo/shipping.md")),
        ];
        let mut index = Self::default();
        for (id, title, text) in documents {
            for paragraph in text.split("\n\n").map(str::trim).filter(|p| !p.is_empty() && !p.starts_with('#')) {
                let passage = Passage {
                    document: id.into(),
                    title: title.into(),
                    text: paragraph.split_whitespace().collect::<Vec<_>>().join(" "),
                    score: 0.0,
                };
                let words = words(&format!("{title} {paragraph}")).collect();
                index.passages.push((passage, words));
            }
        }
        index
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.passages.is_empty()
    }

    /// The `limit` best passages for a query, best first.
    pub fn search(&self, query: &str, limit: usize) -> Vec<Passage> {
        let wanted: HashSet<String> = words(query).collect();
        let weights: HashMap<&String, f64> = wanted.iter().map(|word| (word, self.rarity(word))).collect();
        let total: f64 = weights.values().sum();
        let mut found: Vec<Passage> = Vec::new();
        for (passage, words) in &self.passages {
            let score =
                weights.iter().filter(|(word, _)| words.contains(**word)).map(|(_, weight)| weight).sum::<f64>();
            if score > 0.0 {
                found.push(Passage { score: score / total, ..passage.clone() });
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(limit);
        found
    }

    fn rarity(&self, word: &String) -> f64 {
        let holding = self.passages.iter().filter(|(_, words)| words.contains(word)).count();
        (1.0 + self.passages.len() as f64 / (1.0 + holding as f64)).ln()
    }
}

/// The words of a text that carry meaning, lower-cased and without plural endings.
fn words(text: &str) -> impl Iterator<Item = String> {
    const COMMON: &[&str] = &[
        "the", "and", "for", "you", "your", "how", "what", "is", "are", "can", "does", "long", "my", "our", "have",
        "has", "was", "were", "will", "with", "this", "that", "from", "not", "but", "please", "order",
    ];
    let split = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 1).map(str::to_lowercase);
    split.filter(|word| !COMMON.contains(&word.as_str())).map(|word| match word.strip_suffix('s') {
        Some(stem) if stem.len() > 3 => stem.to_string(),
        _ => word,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_documents_answer_their_questions() {
        let index = Index::demo();
        assert!(index.search("How long is your return window?", 1)[0].text.contains("17 days"));
        assert!(index.search("how long does shipping take", 1)[0].text.contains("5–7 business days"));
        assert!(index.search("quantum chromodynamics", 3).is_empty());
    }

    #[test]
    fn a_document_is_cited_once_by_its_best_passage() {
        let citation =
            |id: &str, score| Citation { id: id.into(), title: id.into(), url: None, snippet: String::new(), score };
        let distinct = distinct_citations(vec![citation("a", 0.2), citation("b", 0.5), citation("a", 0.9)]);
        assert_eq!(distinct.iter().map(|c| (c.id.as_str(), c.score)).collect::<Vec<_>>(), [("a", 0.9), ("b", 0.5)]);
    }
}
