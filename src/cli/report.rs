//! `turnstream audit report`: one conversation as a page, or as JSON.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use uuid::Uuid;

use crate::{
    agents, app,
    config::Config,
    evidence::verify,
    history::{
        chain_reader::{self, ReadBounds, WholeConversation},
        event_reader::EventReader,
        redact::Redaction,
        report::{self, html::ReportPage},
    },
};

/// Write a conversation as a page: requests, steps of the model and the tools, decisions, and the state of the chain.
#[derive(Args)]
pub struct ReportArgs {
    /// The conversation's id.
    conversation: Uuid,
    /// The file to write [default: standard output].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write JSON instead of a page.
    #[arg(long)]
    json: bool,
}

pub async fn report(args: ReportArgs, config: &Config) -> anyhow::Result<()> {
    let nats = app::connect(config, "auditor").await?;
    let log = app::log(config, &nats).await?;
    let region = &config.regions.home;
    let Some(key) = chain_reader::find(&log, region, args.conversation).await? else {
        bail!("there is no conversation {} in the region `{region}`", args.conversation);
    };
    let WholeConversation::Read(messages) = chain_reader::whole(&log, &key, ReadBounds::NONE).await? else {
        bail!("conversation {} is too large", args.conversation);
    };
    let event_reader = EventReader::new(log.clone(), Redaction::new(config.privacy.redact.clone()));
    let (agents, chain) = (agents::AgentStore::new(log.clone()), verify::follow(&messages));
    let report = report::make(&event_reader, &agents, &key, messages, chain).await?;
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&report)?),
        false => ReportPage(&report).to_string(),
    };
    match args.out {
        Some(path) => std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display())),
        None => Ok(std::io::stdout().write_all(text.as_bytes())?),
    }
}
