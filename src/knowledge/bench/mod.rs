//! `turnstream knowledge bench`: the cost of the local index, and the quality of its results.
//!
//! - [`load`]: many generated documents through the real stream into a fresh index.
//! - [`quality`]: a labelled set of questions, by every way of ranking.

mod load;
mod quality;

use std::{fmt::Write, path::PathBuf};

use serde::Serialize;

use crate::{model::Gateway, nats::core::Client};

/// The options of a benchmark run.
pub struct KnowledgeBenchOptions {
    pub documents: usize,
    /// Components of the generated vectors; 0 = none.
    pub dimensions: usize,
    pub seed: u64,
    /// A gateway with an embedding model for the questions; without one, a built-in embedding by spelling alone.
    pub embedder: Option<(Gateway, String)>,
    /// A labelled set in a folder; without one, the built-in set.
    pub questions: Option<PathBuf>,
}

/// The results of a benchmark run.
#[derive(Serialize)]
pub struct KnowledgeBenchReport {
    pub load: load::LoadFigures,
    pub quality: Vec<quality::RankingQuality>,
    pub embedding: String,
}

/// Measures on a NATS server whose stream KNOWLEDGE is empty; calls `progress` for every document written.
pub async fn run(
    client: Client,
    options: &KnowledgeBenchOptions,
    progress: impl Fn(),
) -> anyhow::Result<KnowledgeBenchReport> {
    let embedding = match &options.embedder {
        Some((_, model)) => model.clone(),
        None => "letter trigrams (built in; not an embedding model)".into(),
    };
    let set = match &options.questions {
        Some(folder) => quality::LabelledSet::read(folder)?,
        None => quality::LabelledSet::built_in()?,
    };
    let quality = quality::measure(options.embedder.as_ref(), &set).await?;
    let load = load::measure(client, options, progress).await?;
    Ok(KnowledgeBenchReport { load, quality, embedding })
}

impl KnowledgeBenchReport {
    /// Formats the figures as two tables.
    pub fn table(&self) -> String {
        let load = &self.load;
        let mut table = format!(
            "{} documents, {} passages, vectors of {} components\n",
            load.documents, load.passages, load.dimensions
        );
        let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / (1024.0 * 1024.0));
        for (name, value) in [
            (
                "written",
                format!("{:.1} s, {:.0} documents a second", load.write_s, load.documents as f64 / load.write_s),
            ),
            ("stream", mib(load.stream_bytes)),
            ("a fresh index catches up", format!("{:.1} s", load.catch_up_s)),
            (
                "memory of the process, before / after",
                format!("{} / {}", mib(load.before_bytes), mib(load.after_bytes)),
            ),
            ("query by words, p50 / p99", load.words.to_string()),
            ("query by vectors, p50 / p99", load.vectors.to_string()),
            ("query by both, p50 / p99", load.both.to_string()),
            ("written to found, p50 / p99", load.fresh.to_string()),
        ] {
            let _ = writeln!(table, "  {name:40} {value}");
        }
        let _ = writeln!(table, "\nembedding: {}", self.embedding);
        for of_ranking in self.quality.chunk_by(|a, b| a.ranking == b.ranking) {
            let _ = writeln!(
                table,
                "\n  {:30} {:>9} {:>9} {:>9}",
                of_ranking[0].ranking, "questions", "recall@3", "nDCG@10"
            );
            for quality::RankingQuality { of, questions, recall, ndcg, .. } in of_ranking {
                let _ = writeln!(table, "    {of:28} {questions:>9} {recall:>9.3} {ndcg:>9.3}");
            }
        }
        table
    }
}
