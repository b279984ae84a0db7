//! A passage that answers a query, and the citations that passages become.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::domain::event::Citation;

/// The number of passages that the model is given with a message.
pub const GROUNDING_PASSAGES: usize = 3;
/// The most citations in an answer, from the protocol.
pub const CITATIONS_MAX: usize = 8;
/// The longest snippet of a citation, from the protocol.
const SNIPPET_MAX_CHARS: usize = 280;

/// A part of a document that answers a query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Passage {
    pub document: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub text: String,
    /// The relevance, 0 to 1.
    pub score: f64,
}

impl Passage {
    /// Returns the passage as a citation.
    pub fn citation(&self) -> Citation {
        Citation {
            id: self.document.clone(),
            title: self.title.clone(),
            url: self.url.clone(),
            snippet: snippet(&self.text),
            score: self.score,
        }
    }
}

/// Returns the beginning of a text, cut between words.
fn snippet(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((end, _)) = text.char_indices().nth(SNIPPET_MAX_CHARS) else { return text };
    let Some((end_of_mark, _)) = text[..end].char_indices().next_back() else { return text };
    let cut = &text[..end_of_mark];
    format!("{}…", cut.rfind(' ').map_or(cut, |space| &cut[..space]))
}

/// Returns the best citation of each document, best first.
pub fn distinct_citations(mut citations: Vec<Citation>) -> Vec<Citation> {
    citations.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut seen = HashSet::new();
    citations.retain(|citation| seen.insert(citation.id.clone()));
    citations.truncate(CITATIONS_MAX);
    citations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_cited_once_by_its_best_passage() {
        let citation =
            |id: &str, score| Citation { id: id.into(), title: id.into(), url: None, snippet: String::new(), score };
        let distinct = distinct_citations(vec![citation("a", 0.2), citation("b", 0.5), citation("a", 0.9)]);
        assert_eq!(distinct.iter().map(|c| (c.id.as_str(), c.score)).collect::<Vec<_>>(), [("a", 0.9), ("b", 0.5)]);
    }

    #[test]
    fn a_snippet_is_short_and_ends_at_a_word() {
        for text in ["é".repeat(400), "word ".repeat(100), format!("{} end", "x".repeat(278))] {
            let snippet = snippet(&text);
            assert!(snippet.chars().count() <= SNIPPET_MAX_CHARS && snippet.ends_with('…'), "{snippet}");
        }
        assert_eq!(snippet(" two\n words "), "two words");
    }
}
