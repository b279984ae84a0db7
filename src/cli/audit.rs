//! `turnstream audit`: the log for auditors.

use anyhow::bail;
use clap::Subcommand;
use indicatif::ProgressBar;
use uuid::Uuid;

use super::report::{self, Report};
use crate::{
    app,
    audit::{scan::Scan, verify::Verifier},
    config::Config,
    log::nats::NatsLog,
};

/// Prove that nobody changed the log.
#[derive(Subcommand)]
pub enum Audit {
    /// Follow the chain of digests; exit code 1 if an event does not follow from the one before it.
    Verify {
        /// Only this conversation.
        #[arg(long)]
        conversation: Option<Uuid>,
        /// Print JSON instead of words.
        #[arg(long)]
        json: bool,
    },
    Report(Report),
}

/// Does what was asked of the log as a whole.
pub async fn audit(command: Audit, config: &Config) -> anyhow::Result<()> {
    match command {
        Audit::Verify { conversation, json } => verify(conversation, json, config).await,
        Audit::Report(args) => report::report(args, config).await,
    }
}

async fn verify(conversation: Option<Uuid>, json: bool, config: &Config) -> anyhow::Result<()> {
    let bus = app::connect(config, "auditor").await?;
    let mut scan = Scan::new(NatsLog::new(bus.client.clone()), &config.regions.home, conversation);
    let bar = ProgressBar::new(scan.last().await?);
    let mut verifier = Verifier::default();
    while let Some(message) = scan.next().await? {
        verifier.take(&message);
        bar.set_position(message.seq);
    }
    bar.finish_and_clear();
    if json {
        println!("{}", serde_json::to_string_pretty(&verifier.report)?);
    } else {
        println!("{}", verifier.report);
    }
    if verifier.report.broken > 0 {
        bail!("the log is not as it was written");
    }
    Ok(())
}
