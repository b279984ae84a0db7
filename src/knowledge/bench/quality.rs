//! How well questions find their documents: a small labelled set, by every way of ranking.
//!
//! The set is of our own making: answers of an imaginary shop, and questions as customers ask them, with synonyms, other
//! word forms and typing errors. It tells rankings apart; it says nothing about anybody's own documents.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    knowledge::{
        Acl, DEFAULT_SET, Document, Index, Reader,
        document::{Chunk, Vector},
        index::Query,
        shelf::{Change, Key, Whole},
    },
    model::Gateway,
    subjects,
};

const ORG: &str = "bench";
const RECALL_AT: usize = 3;
const NDCG_AT: usize = 10;
/// Components of the built-in embedding.
const TRIGRAMS: usize = 512;

/// The quality of a ranking, over all questions.
#[derive(Serialize)]
pub struct Figures {
    pub ranking: &'static str,
    /// Share of the questions whose document is among the first three.
    pub recall: f64,
    /// Normalised discounted cumulative gain of the first ten, with one relevant document a question.
    pub ndcg: f64,
}

#[derive(Deserialize)]
struct Set {
    documents: Vec<Labelled>,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Labelled {
    id: String,
    title: String,
    text: String,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    document: String,
}

pub async fn measure(embedder: Option<&(Gateway, String)>) -> anyhow::Result<Vec<Figures>> {
    let set: Set = serde_json::from_str(include_str!("support.json"))?;
    let texts =
        set.documents.iter().map(|document| format!("{}\n{}", document.title, document.text)).collect::<Vec<_>>();
    let questions = set.questions.iter().map(|question| question.question.clone()).collect::<Vec<_>>();
    let (of_texts, of_questions) = (embed(embedder, &texts).await?, embed(embedder, &questions).await?);
    let index = Arc::new(Index::new()?);
    index.apply(set.documents.into_iter().zip(of_texts).map(|(document, vector)| whole(document, vector)).collect())?;

    let mut figures = Vec::new();
    for (ranking, words, vectors, rerank) in [
        ("words (BM25)", true, false, false),
        ("vectors", false, true, false),
        ("both, fused", true, true, false),
        ("words, reranked by words", true, false, true),
        ("both, fused, reranked by words", true, true, true),
    ] {
        let (mut recall, mut ndcg) = (0.0, 0.0);
        for (question, vector) in set.questions.iter().zip(&of_questions) {
            let text = if words { question.question.as_str() } else { "" };
            let query = Query { text, vector: vectors.then_some(vector), rerank };
            let reader = Reader { org: ORG.into(), ..Reader::default() };
            let found = index.search(&query, &reader, NDCG_AT)?;
            if let Some(rank) = found.iter().position(|passage| passage.document == question.document) {
                recall += f64::from(u8::from(rank < RECALL_AT));
                ndcg += 1.0 / (rank as f64 + 2.0).log2();
            }
        }
        let asked = set.questions.len() as f64;
        figures.push(Figures { ranking, recall: recall / asked, ndcg: ndcg / asked });
    }
    Ok(figures)
}

async fn embed(embedder: Option<&(Gateway, String)>, texts: &[String]) -> anyhow::Result<Vec<Vec<f32>>> {
    match embedder {
        Some((gateway, model)) => Ok(gateway.embed(model, texts).await?),
        None => Ok(texts.iter().map(|text| trigrams(text)).collect()),
    }
}

/// How often each run of three letters comes: an embedding that knows spelling and nothing of meaning.
fn trigrams(text: &str) -> Vec<f32> {
    let letters: Vec<char> = format!(" {} ", text.to_lowercase()).chars().collect();
    let mut vector = vec![0.0; TRIGRAMS];
    for run in letters.windows(3) {
        let number = run.iter().fold(7usize, |hash, letter| hash.wrapping_mul(31).wrapping_add(*letter as usize));
        vector[number % TRIGRAMS] += 1.0;
    }
    vector
}

fn whole(document: Labelled, vector: Vec<f32>) -> Change {
    let version = Uuid::nil();
    let key = Key { org: ORG.into(), token: subjects::knowledge_document(&document.id) };
    let head = Document {
        id: document.id,
        title: document.title,
        url: None,
        set: DEFAULT_SET.into(),
        source: "bench".into(),
        acl: Acl::Public,
        hash: String::new(),
        version,
        chunks: 1,
        embedding_model: None,
        updated_at: chrono::DateTime::UNIX_EPOCH,
        deleted: false,
    };
    let chunk = Chunk { version, headings: vec![], text: document.text, vector: Some(Vector(vector)) };
    Change::Put(Box::new(Whole { key, head, chunks: vec![chunk] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures move with the index; this only says that it finds at all, and that two rankings are no worse than one.
    #[tokio::test]
    async fn most_questions_find_their_document() {
        let figures = measure(None).await.unwrap();
        let recall = |name: &str| figures.iter().find(|f| f.ranking == name).unwrap().recall;
        assert!(recall("words (BM25)") > 0.5, "{}", recall("words (BM25)"));
        assert!(recall("both, fused") >= recall("vectors"));
    }
}
