//! `turnstream knowledge`: what the index of knowledge costs.

use std::path::PathBuf;

use clap::Subcommand;
use indicatif::ProgressBar;

use crate::{
    app,
    config::{Config, NatsConfig},
    dev, knowledge,
    model::Gateway,
};

#[derive(Subcommand)]
pub enum Knowledge {
    /// Measure a local index of made-up documents, and how well questions find their answers, on a nats-server of its own.
    Bench {
        /// How many documents.
        #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
        documents: u32,
        /// Components of the documents' vectors; 0 = none.
        #[arg(long, default_value = "384")]
        dimensions: usize,
        /// The same seed makes the same documents.
        #[arg(long, default_value = "1")]
        seed: u64,
        /// Embed the questions at this gateway (…/v1), not with letter trigrams.
        #[arg(long, value_name = "URL", requires = "embedding_model")]
        gateway: Option<String>,
        /// The embedding model to ask the gateway for.
        #[arg(long, value_name = "NAME")]
        embedding_model: Option<String>,

        /// A folder with a labelled set of one's own: `documents`, and `questions.jsonl` with `question`, `language` and
        /// `relevant` (a document's path below `documents`: 2 for one that answers, 1 for one that helps). Without it, a small
        /// built-in set.
        #[arg(long, value_name = "FOLDER")]
        questions: Option<PathBuf>,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
}

/// Measures what was asked for.
pub async fn measure(command: Knowledge) -> anyhow::Result<()> {
    let Knowledge::Bench { documents, dimensions, seed, gateway, embedding_model, questions, json } = command;
    let embedder = match gateway.zip(embedding_model) {
        Some((url, model)) => Some((Gateway::new(&url, std::env::var("SMOOAI_GATEWAY_KEY").ok())?, model)),
        None => None,
    };
    let options = knowledge::bench::KnowledgeBenchOptions {
        documents: documents as usize,
        dimensions,
        seed,
        embedder,
        questions,
    };
    let store = std::env::temp_dir().join(format!("turnstream-bench-{}", std::process::id()));
    let server = dev::NatsServer::start(&store).await?;
    let config =
        Config { nats: NatsConfig { url: Some(server.url.clone()), ..NatsConfig::default() }, ..super::load()? };
    let measured = async {
        let nats = app::connect(&config, "bench").await?;
        app::apply_streams(&config, &nats, &app::ApplyOptions::default()).await?;
        let bar = ProgressBar::new(documents.into());
        let report = knowledge::bench::run(nats.client, &options, || bar.inc(1)).await;
        bar.finish_and_clear();
        report
    };
    let report = measured.await;
    server.stop().await;
    tokio::fs::remove_dir_all(&store).await?;
    let report = report?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}
