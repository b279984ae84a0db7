//! `turnstream retain`: erases conversations at the end of their retention.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::ProgressBar;

use super::privacy::PrivacyContext;
use crate::{
    app,
    config::Config,
    limits,
    privacy::{
        ledger::ErasureExtent,
        sweep::{ExtentTally, RetentionSweep, SweepEvent},
    },
};

/// Interval of progress lines without a terminal.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Erase conversations at the end of their retention: SMOOTH_AGENT_RETAIN_DAYS, SMOOTH_AGENT_RETAIN_TOOLS_DAYS.
///
/// The next run completes an interrupted one. Exit code 1: some conversations, which are named, could not be erased.
#[derive(Args)]
pub struct Retain {
    /// Repeat after this many seconds; without it, run once.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// Treat this time (RFC 3339) as now: with --dry-run, a forecast.
    #[arg(long, value_name = "TIME", conflicts_with = "every")]
    as_of: Option<DateTime<Utc>>,
    /// Only list the conversations that would be erased.
    #[arg(long, conflicts_with = "every")]
    dry_run: bool,
    /// Conversations read and erased at a time.
    #[arg(long, value_name = "N", default_value_t = limits::RETAIN_BATCH as u64, value_parser = clap::value_parser!(u64).range(1..=limits::ERASE_BATCH as u64))]
    batch: u64,
}

/// Runs `turnstream retain`.
pub async fn retain(args: Retain, config: &Config) -> anyhow::Result<()> {
    let stop = app::StopSignal::new()?;
    let mut place = PrivacyContext::open(config).await?;
    if args.every.is_some() {
        app::operations::serve_command(config, "eraser", &place.nats).await?;
    }
    let sweeps = async {
        loop {
            let swept = sweep(&mut place, config, &args).await;
            let Some(every) = args.every else { return swept };
            // A later run may succeed.
            if let Err(error) = swept {
                eprintln!("the sweep failed: {error:#}");
            }
            tokio::time::sleep(Duration::from_secs(every)).await;
        }
    };
    tokio::select! {
        swept = sweeps => swept,
        () = stop.wait() => Ok(()),
    }
}

async fn sweep(place: &mut PrivacyContext, config: &Config, args: &Retain) -> anyhow::Result<()> {
    let sweep = RetentionSweep {
        log: &place.log,
        region: &place.region,
        privacy: &config.privacy,
        at: args.as_of.unwrap_or_else(Utc::now),
        dry_run: args.dry_run,
        batch: usize::try_from(args.batch).unwrap_or(limits::RETAIN_BATCH),
    };
    let (bar, said_at) = (ProgressBar::new(0), Cell::new(Instant::now()));
    let told = |told| match told {
        SweepEvent::Position { read, all } => {
            bar.set_length(all);
            bar.set_position(read);
            if bar.is_hidden() && said_at.get().elapsed() >= SAY_EVERY {
                eprintln!("read {read} of {all} keys");
                said_at.set(Instant::now());
            }
        }
        SweepEvent::Closed { conversation, cause } => bar.suspend(|| {
            eprintln!("{conversation}: an event can't be decrypted; the conversation is erased all the same: {cause}");
        }),
        SweepEvent::HeldNow { conversation } => bar.suspend(|| println!("{conversation} is now held")),
        SweepEvent::Failed { conversation, cause } => {
            bar.suspend(|| eprintln!("{conversation} can't be erased now: {cause}"));
        }
    };
    let swept = sweep.run(&mut place.ledger, &told).await;
    bar.finish_and_clear();
    let swept = swept?;
    for (extent, tally) in [(ErasureExtent::All, swept.all), (ErasureExtent::Tools, swept.tools)] {
        let ExtentTally { due, held, busy, .. } = tally;
        println!("{extent}: {due} conversations due, {held} of them held, {busy} with a turn that has not ended");
    }
    match swept.failed() {
        0 => Ok(()),
        failed => bail!("{failed} conversations could not be erased; the next run tries again"),
    }
}
