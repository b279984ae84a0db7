//! `turnstream audit export`: events as files.

use std::{
    cell::Cell,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use uuid::Uuid;

use super::checkpoint::{self, Interval};
use crate::{
    app,
    config::Config,
    evidence::export::{ExportFormat, ExportOptions, ExportProgress, bundle, manifest::ExportFilter, part::ExportPart},
    history::{event_reader::EventReader, formats::ReplayPoint, redact::Redaction},
    log::jetstream_log::NatsLog,
    signing::PublicKey,
};

/// Write events to files. A folder that already holds the export gets the new events.
#[derive(Args)]
pub struct Export {
    /// A folder, or a file with the extension .ndjson, .json, .parquet or .zst.
    #[arg(long, value_name = "DIR|FILE")]
    to: PathBuf,
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Compress lines.
    #[arg(long)]
    zstd: bool,
    /// Only this conversation.
    #[arg(long, conflicts_with = "org")]
    conversation: Option<Uuid>,
    /// Only this organisation.
    #[arg(long)]
    org: Option<String>,
    /// From this sequence, or from this time of storing (RFC 3339) on.
    #[arg(long, value_name = "SEQ|TIME")]
    since: Option<ReplayPoint>,
    /// Up to this sequence, or up to this time of storing.
    #[arg(long, value_name = "SEQ|TIME")]
    until: Option<ReplayPoint>,
    /// Decrypt payloads; needs the master key. Erased payloads stay as they are stored. Redaction
    /// (SMOOTH_AGENT_REDACT_ARGUMENTS) implies it.
    #[arg(long)]
    open: bool,
    /// Repeat at this interval until stopped: `1h`.
    #[arg(long, value_name = "TIME")]
    every: Option<Interval>,
    /// The public key to put into a bundle [default: that of SMOOTH_AGENT_AUDIT_KEY_FILE].
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Events a part.
    #[arg(long, hide = true)]
    part_events: Option<NonZeroU64>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// Each stored message as a line of JSON.
    Ndjson,
    /// Batches of CloudEvents in JSON (application/cloudevents-batch+json).
    Cloudevents,
    /// A row for each event, with columns for its headers and its payload.
    Parquet,
    /// Evidence: events, checkpoints, key and instructions. With SMOOTH_AGENT_AUDIT_KEY_FILE a checkpoint is signed first.
    Bundle,
}

impl Export {
    pub async fn run(self, config: &Config) -> anyhow::Result<()> {
        if self.format == Format::Parquet && !cfg!(feature = "parquet") {
            bail!("this build writes no Parquet: it is without the feature `parquet`");
        }
        let is_file = is_file(&self.to);
        let bundle = self.format == Format::Bundle;
        if bundle && (self.since.is_some() || self.until.is_some() || self.open || is_file) {
            bail!("a bundle is a folder with whole conversations as they are stored: without --since, --until, --open");
        }
        if is_file && self.every.is_some() {
            bail!("--every needs an export to a folder");
        }
        let nats = app::connect(config, "auditor").await?;
        let log = NatsLog::new(nats.client.clone());
        let event_reader = match !bundle && (self.open || !config.privacy.redact.is_empty()) {
            true => {
                Some(EventReader::new(app::log(config, &nats).await?, Redaction::new(config.privacy.redact.clone())))
            }
            false => None,
        };
        let options = self.options(&config.regions.home, event_reader);
        let Some(Interval(every)) = self.every else { return self.once(config, &log, &options).await };
        let stop = app::StopSignal::new()?;
        tokio::select! {
            () = self.for_ever(config, &log, &options, every) => {}
            () = stop.wait() => {}
        }
        Ok(())
    }

    async fn for_ever(&self, config: &Config, log: &NatsLog, options: &ExportOptions, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.once(config, log, options).await {
                tracing::error!(error = format!("{error:#}"), "the export failed; the next tick tries again");
            }
        }
    }

    async fn once(&self, config: &Config, log: &NatsLog, options: &ExportOptions) -> anyhow::Result<()> {
        let bar = Bar { bar: ProgressBar::new(0), events: Cell::new(0) };
        if is_file(&self.to) {
            let part = options.to_file(log, &self.to, &bar).await?;
            bar.bar.finish_and_clear();
            println!("{} events in {}", part.events, self.to.display());
            return Ok(());
        }
        if self.format == Format::Bundle {
            self.prepare_bundle(config, log).await?;
        }
        let manifest = options.to_folder(log, &self.to, &bar).await?;
        bar.bar.finish_and_clear();
        let events: u64 = manifest.parts.iter().map(|part| part.events).sum();
        let (parts, new) = (manifest.parts.len(), bar.events.get());
        println!("{events} events in {parts} parts, {new} of them new, up to event {}", manifest.scanned);
        Ok(())
    }

    /// Signs a checkpoint over new events if this process has a signing key, and puts the public key into the bundle.
    async fn prepare_bundle(&self, config: &Config, log: &NatsLog) -> anyhow::Result<()> {
        let mut key = None;
        if config.audit_key.is_some() {
            checkpoint::once(config, log).await.context("no checkpoint was signed")?;
            key = Some(checkpoint::signing_key(config)?.public());
        }
        if let Some(path) = &self.public_key {
            key = Some(PublicKey::read(path)?);
        }
        match key {
            Some(key) => bundle::put_key(&self.to, &key)?,
            None => tracing::warn!("the bundle holds no public key: give --public-key or SMOOTH_AGENT_AUDIT_KEY_FILE"),
        }
        Ok(())
    }

    fn options(&self, region: &str, event_reader: Option<EventReader>) -> ExportOptions {
        let text = |until: &Option<ReplayPoint>| until.as_ref().map(ReplayPoint::to_string);
        ExportOptions {
            region: region.to_string(),
            form: match self.format {
                Format::Ndjson => ExportFormat::Ndjson,
                Format::Cloudevents => ExportFormat::CloudEvents,
                Format::Parquet => ExportFormat::Parquet,
                Format::Bundle => ExportFormat::Bundle,
            },
            filter: ExportFilter {
                conversation: self.conversation,
                org: self.org.clone(),
                since: text(&self.since),
                until: text(&self.until),
            },
            since: self.since.clone(),
            until: self.until.clone(),
            zstd: self.zstd,
            event_reader,
            part_events: self.part_events.map(NonZeroU64::get),
        }
    }
}

/// Returns true if an export goes to a file and not to a folder.
fn is_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    !path.is_dir() && extension.is_some_and(|extension| ["ndjson", "json", "parquet", "zst"].contains(&extension))
}

/// A progress bar for people, and a line for each part.
struct Bar {
    bar: ProgressBar,
    events: Cell<u64>,
}

impl ExportProgress for Bar {
    fn at(&self, seq: u64, end: u64) {
        self.bar.set_length(end);
        self.bar.set_position(seq);
    }

    fn part(&self, part: &ExportPart) {
        self.events.set(self.events.get() + part.events);
        self.bar.suspend(|| println!("{}: {} events", part.file.file, part.events));
    }
}
