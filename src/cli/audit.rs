//! `turnstream replay` and `turnstream audit`: the log for people and auditors.

use std::{io::Write, time::Duration};

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use uuid::Uuid;

use super::{
    export::Export,
    report::{self, Report},
    seal::{Keygen, Seal},
    verify::Verify,
};
use crate::{
    app,
    audit::{
        open::{Opened, Opener},
        redact::Redaction,
        replay::{self, Until},
        scan::Scan,
        timeline::Timeline,
    },
    config::Config,
    domain::Conversation,
};

/// How often a replay that follows looks for what is new.
const FOLLOW_EVERY_MS: u64 = 250;

/// Tell what happened in a conversation, from the log.
#[derive(Args)]
pub struct Replay {
    /// The conversation's id.
    conversation: Uuid,
    #[arg(long, value_enum, default_value = "timeline")]
    format: Format,
    /// Stop at this sequence, or at this time (RFC 3339).
    #[arg(long)]
    until: Option<Until>,
    /// Print the state that the events add up to, instead of the events.
    #[arg(long, conflicts_with = "follow")]
    state: bool,
    /// Go on with what happens from now on.
    #[arg(long)]
    follow: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// A line of words for each event.
    Timeline,
    /// Each stored message as a line of JSON: sequence, time, subject, headers, payload.
    Ndjson,
    /// Each event as a CloudEvent in JSON, a line each.
    Cloudevents,
}

/// Prove that nobody changed the log, and take it out as evidence.
#[derive(Subcommand)]
pub enum Audit {
    Verify(Verify),
    Keygen(Keygen),
    Seal(Seal),
    Export(Export),
    Report(Report),
}

/// Replays a conversation.
pub async fn replay(args: Replay, config: &Config) -> anyhow::Result<()> {
    let bus = app::connect(config, "auditor").await?;
    let log = app::log(config, &bus).await?;
    let opener = Opener::new(log.clone(), Redaction::new(config.privacy.redact.clone()));
    let mut scan = Scan::new(log, &config.regions.home, Some(args.conversation));
    let (mut state, mut timeline, mut out) = (Conversation::default(), Timeline::default(), std::io::stdout());
    loop {
        let Some(message) = scan.next().await? else {
            if !args.follow {
                break;
            }
            tokio::time::sleep(Duration::from_millis(FOLLOW_EVERY_MS)).await;
            continue;
        };
        if args.until.as_ref().is_some_and(|until| !until.includes(&message)) {
            break;
        }
        let Opened { stored, message } = opener.open(message).await?;
        state.evolve(&stored.recorded);
        if args.state {
            continue;
        }
        let line = match args.format {
            Format::Ndjson => replay::raw(&message).to_string(),
            Format::Cloudevents => replay::cloud_event(&message).to_string(),
            Format::Timeline => timeline.line(&stored),
        };
        writeln!(out, "{line}")?;
    }
    if state.last_seq == 0 {
        bail!("there is no conversation {} in the region `{}`", args.conversation, config.regions.home);
    }
    if args.state {
        writeln!(out, "{}", serde_json::to_string_pretty(&state)?)?;
    }
    Ok(())
}

/// Does what was asked of the log as a whole.
pub async fn audit(command: Audit) -> anyhow::Result<()> {
    match command {
        Audit::Verify(args) => args.run().await,
        Audit::Keygen(args) => args.run(),
        Audit::Seal(args) => args.run(&super::load()?).await,
        Audit::Export(args) => args.run(&super::load()?).await,
        Audit::Report(args) => report::report(args, &super::load()?).await,
    }
}
