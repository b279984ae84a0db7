//! `turnstream bench knowledge` and `turnstream bench retrieval`: how large a local index may grow, and how well it finds.
//!
//! Unlike `bench`, which knows only the public protocol, this measures the rooms of knowledge from inside.

mod corpus;
mod letters;
mod load;
mod quality;

use std::path::{Path, PathBuf};

use anyhow::Context;
use async_nats::Client;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::model::Gateway;

/// What can be measured of knowledge.
#[derive(Subcommand)]
pub enum Measure {
    /// Write documents to the stream of NATS_URL, which must hold none yet, then build an index of them and ask it.
    Knowledge(KnowledgeArgs),
    /// Ask the labelled questions and tell how many of the right documents are found.
    Retrieval(RetrievalArgs),
}

#[derive(Args)]
pub struct KnowledgeArgs {
    /// How many documents, of three passages each.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub documents: u32,

    /// Components of each passage's vector; 0 = no vectors.
    #[arg(long, value_name = "N", default_value = "384", value_parser = clap::value_parser!(u32).range(0..=4_096))]
    pub dimensions: u32,

    /// How many queries of each kind.
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub queries: u32,

    /// The same seed makes the same documents.
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Write the figures as JSON to this file, or to standard output with `-`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
pub struct RetrievalArgs {
    /// A gateway that serves /embeddings, without that part of the address. Without one the vectors count letter triples,
    /// which is no model of meaning.
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,

    /// The embedding model that the gateway is asked for.
    #[arg(long, value_name = "NAME", default_value = "all-MiniLM-L6-v2")]
    pub model: String,

    /// Write the figures as JSON to this file, or to standard output with `-`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Measures writing, building and asking an index.
pub async fn knowledge(args: KnowledgeArgs, client: Client) -> anyhow::Result<()> {
    let figures = load::run(&args, client).await?;
    publish(&load::table(&figures), &serde_json::to_value(&figures)?, args.json.as_deref())
}

/// Measures how well the ways of searching find.
pub async fn retrieval(args: RetrievalArgs) -> anyhow::Result<()> {
    let key = std::env::var("SMOOAI_GATEWAY_KEY").ok();
    let gateway = args.gateway.as_deref().map(|url| Gateway::new(url, key)).transpose()?;
    let figures = quality::run(gateway.as_ref(), &args.model).await?;
    publish(&quality::table(&figures), &serde_json::to_value(&figures)?, args.json.as_deref())
}

/// Prints the table and writes the JSON. On standard output there is only one of them.
fn publish(table: &str, figures: &Value, json: Option<&Path>) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(figures)?;
    match json {
        Some(path) if path == Path::new("-") => {
            eprint!("{table}");
            println!("{text}");
        }
        Some(path) => {
            print!("{table}");
            std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => print!("{table}"),
    }
    Ok(())
}
