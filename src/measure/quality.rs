//! How many of the right documents are found, on a small set of questions with labels.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use anyhow::Context;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::letters;
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
/// Questions of all kinds together.
const ALL: &str = "all";

#[derive(Deserialize)]
struct Labelled {
    documents: Vec<Text>,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Text {
    id: String,
    title: String,
    text: String,
}

#[derive(Deserialize)]
struct Question {
    kind: String,
    text: String,
    relevant: Vec<String>,
}

/// What was found out: by way of searching, then by kind of question.
#[derive(Debug, Serialize)]
pub struct Figures {
    vectors: String,
    ways: Vec<(&'static str, BTreeMap<String, Quality>)>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Quality {
    recall_at_3: f64,
    ndcg_at_10: f64,
    questions: u32,
}

/// Asks every question in every way.
pub async fn run(gateway: Option<&Gateway>, model: &str) -> anyhow::Result<Figures> {
    let data: Labelled = serde_json::from_str(include_str!("support.json")).context("the labelled set is malformed")?;
    let texts: Vec<String> = data.documents.iter().map(|d| format!("{}. {}", d.title, d.text)).collect();
    let questions: Vec<String> = data.questions.iter().map(|question| question.text.clone()).collect();
    let vectors = vectors(gateway, model, &texts).await?;
    let wanted = vectors_of_questions(gateway, model, &questions).await?;
    let index = Index::new()?;
    index.apply(data.documents.iter().zip(vectors).map(|(text, vector)| change(text, vector)).collect())?;

    let reader = Reader { org: ORG.into(), ..Reader::default() };
    let ways = [
        ("words", true, false, false),
        ("vectors", false, true, false),
        ("both", true, true, false),
        ("both, ranked again by words", true, true, true),
    ];
    let mut figures = Vec::new();
    for (name, by_words, by_vector, rerank) in ways {
        let mut by_kind: BTreeMap<String, Quality> = BTreeMap::new();
        for (question, vector) in data.questions.iter().zip(&wanted) {
            let text = if by_words { question.text.as_str() } else { "" };
            let query = Query { text, vector: by_vector.then_some(&vector[..]), rerank };
            let found: Vec<String> = index.search(&query, &reader, NDCG_AT)?.into_iter().map(|p| p.document).collect();
            for kind in [ALL, &question.kind] {
                let quality = by_kind.entry(kind.to_string()).or_default();
                quality.recall_at_3 += recall(&found, &question.relevant);
                quality.ndcg_at_10 += ndcg(&found, &question.relevant);
                quality.questions += 1;
            }
        }
        for quality in by_kind.values_mut() {
            quality.recall_at_3 /= f64::from(quality.questions);
            quality.ndcg_at_10 /= f64::from(quality.questions);
        }
        figures.push((name, by_kind));
    }
    let vectors = if gateway.is_some() { model.to_string() } else { "letter triples (no model)".to_string() };
    Ok(Figures { vectors, ways: figures })
}

async fn vectors(gateway: Option<&Gateway>, model: &str, texts: &[String]) -> anyhow::Result<Vec<Vec<f32>>> {
    match gateway {
        Some(gateway) => gateway.embed(model, texts).await.context("the gateway makes no embeddings"),
        None => Ok(texts.iter().map(|text| letters::vector(text)).collect()),
    }
}

/// One by one, as a worker asks for them.
async fn vectors_of_questions(
    gateway: Option<&Gateway>,
    model: &str,
    texts: &[String],
) -> anyhow::Result<Vec<Vec<f32>>> {
    let mut all = Vec::new();
    for text in texts {
        all.extend(vectors(gateway, model, std::slice::from_ref(text)).await?);
    }
    Ok(all)
}

fn change(text: &Text, vector: Vec<f32>) -> Change {
    let head = Document {
        id: text.id.clone(),
        title: text.title.clone(),
        url: None,
        set: DEFAULT_SET.into(),
        source: "bench".into(),
        acl: Acl::Public,
        hash: String::new(),
        version: Uuid::nil(),
        chunks: 1,
        embedding_model: None,
        updated_at: DateTime::UNIX_EPOCH,
        deleted: false,
    };
    let chunk = Chunk { version: Uuid::nil(), headings: vec![], text: text.text.clone(), vector: Some(Vector(vector)) };
    let key = Key { org: ORG.into(), token: subjects::knowledge_document(&text.id) };
    Change::Put(Box::new(Whole { key, head, chunks: vec![chunk] }))
}

/// The share of the right documents that stand among the first ones.
fn recall(found: &[String], relevant: &[String]) -> f64 {
    let among = found.iter().take(RECALL_AT).filter(|document| relevant.contains(document)).count();
    among as f64 / relevant.len() as f64
}

/// Normalised discounted cumulative gain: right documents count less the later they come; 1 = all of them first.
fn ndcg(found: &[String], relevant: &[String]) -> f64 {
    let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let ranks = found.iter().take(NDCG_AT).enumerate().filter(|(_, document)| relevant.contains(document));
    let best: f64 = (0..relevant.len().min(NDCG_AT)).map(gain).sum();
    ranks.map(|(rank, _)| gain(rank)).sum::<f64>() / best
}

pub fn table(figures: &Figures) -> String {
    let kinds: HashMap<&str, u32> = figures
        .ways
        .iter()
        .flat_map(|(_, by_kind)| by_kind.iter().map(|(kind, q)| (kind.as_str(), q.questions)))
        .collect();
    let mut kinds: Vec<(&str, u32)> = kinds.into_iter().collect();
    kinds.sort();
    let mut table = format!("vectors: {}\n| recall@3 / nDCG@10 |", figures.vectors);
    // Writing to a String cannot fail.
    for (kind, count) in &kinds {
        let _ = write!(table, " {kind} ({count}) |");
    }
    let _ = writeln!(table, "\n|---|{}", "---|".repeat(kinds.len()));
    for (way, by_kind) in &figures.ways {
        let _ = write!(table, "| {way} |");
        for (kind, _) in &kinds {
            let quality = by_kind.get(*kind).copied().unwrap_or_default();
            let _ = write!(table, " {:.2} / {:.2} |", quality.recall_at_3, quality.ndcg_at_10);
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| id.to_string()).collect()
    }

    #[test]
    fn measures_are_those_of_the_books() {
        let found = ids(&["a", "b", "c", "d"]);
        assert_eq!(recall(&found, &ids(&["a", "d"])), 0.5, "d is too late");
        assert_eq!(ndcg(&found, &ids(&["a"])), 1.0);
        assert!((ndcg(&found, &ids(&["b"])) - 0.6309).abs() < 1e-4);
        assert!((ndcg(&found, &ids(&["a", "c"])) - 1.5 / 1.6309).abs() < 1e-4);
        assert_eq!(ndcg(&[], &ids(&["a"])), 0.0);
    }

    #[tokio::test]
    async fn plain_questions_find_their_documents_and_misspelt_ones_need_letters() {
        let figures = run(None, "").await.unwrap();
        let of = |way: usize, kind: &str| figures.ways[way].1[kind];
        assert_eq!(of(0, ALL).questions, 85);
        assert!(of(0, "plain").recall_at_3 > 0.9, "{figures:?}");
        assert!(of(1, "typo").recall_at_3 > of(0, "typo").recall_at_3, "{figures:?}");
    }
}
