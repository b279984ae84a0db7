//! `turnstream telemetry`: exports turns as traces, from the log.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::ProgressBar;
use uuid::Uuid;

use crate::{
    app,
    config::Config,
    history::{event_reader::EventReader, formats::ReplayPoint, redact::Redaction, stream_reader::StreamReader},
    subjects::ConversationKey,
    telemetry::{
        otlp::{BATCH, SpanExporter},
        projection::SpanProjection,
        span::Span,
    },
};

/// Pause between two looks for new events.
const FOLLOW_EVERY_MS: u64 = 1_000;

/// Export turns as traces, by the GenAI conventions of OpenTelemetry, to a collector of OTLP over HTTP.
///
/// The spans come from the log: a turn is exported with its end, past ones too, and the ids are the same each time. Needs the
/// permissions of an auditor.
#[derive(Args)]
pub struct TelemetryArgs {
    /// Only this conversation.
    conversation: Option<Uuid>,
    /// Only this organisation.
    #[arg(long, conflicts_with = "conversation")]
    org: Option<String>,
    /// Begin with the turns requested at this sequence, or at this time (RFC 3339).
    #[arg(long, value_name = "SEQ|TIME")]
    since: Option<ReplayPoint>,
    /// Stop at this sequence, or at this time (RFC 3339).
    #[arg(long, value_name = "SEQ|TIME")]
    until: Option<ReplayPoint>,
    /// Continue with new turns as they end.
    #[arg(long, conflicts_with = "until")]
    follow: bool,
    /// The collector's URL for traces [default: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_EXPORTER_OTLP_ENDPOINT and /v1/traces].
    #[arg(long, value_name = "URL")]
    to: Option<String>,
}

/// Runs `turnstream telemetry`.
pub async fn telemetry(args: TelemetryArgs, config: &Config) -> anyhow::Result<()> {
    let mut telemetry = config.telemetry.clone();
    telemetry.traces = args.to.clone().or(telemetry.traces);
    let region = &config.regions.home;
    let exporter = SpanExporter::new(&telemetry, region)?;
    let nats = app::connect(config, "auditor").await?;
    let log = app::log(config, &nats).await?;
    if args.follow {
        app::operations::serve_command(config, "telemetry", &nats).await?;
    }
    let mut stream = match &args.org {
        Some(org) => StreamReader::of_org(log.clone(), region, org),
        None => StreamReader::new(log.clone(), region, args.conversation),
    };
    match &args.since {
        Some(ReplayPoint::Seq(seq)) => stream.begin_at(*seq),
        Some(ReplayPoint::Time(time)) => stream.begin_at_time(*time).await?,
        None => {}
    }
    let events = EventReader::new(log, Redaction::new(config.privacy.redact.clone()));
    let (projection, bar) = (SpanProjection::new(telemetry.has_text), ProgressBar::new(stream.last().await?));
    let export = Export { args, stream, events, projection, exporter, bar };
    let stop = app::StopSignal::new()?;
    tokio::select! {
        exported = export.run() => exported,
        () = stop.wait() => Ok(()),
    }
}

/// A running export.
struct Export {
    args: TelemetryArgs,
    stream: StreamReader,
    events: EventReader,
    projection: SpanProjection,
    exporter: SpanExporter,
    bar: ProgressBar,
}

impl Export {
    /// Reads to the end of the log, and on if it follows; exports the spans of turns that have ended.
    async fn run(mut self) -> anyhow::Result<()> {
        let (mut pending, mut turns, mut spans): (Vec<Span>, u64, usize) = (vec![], 0, 0);
        loop {
            let next = self.stream.next().await?;
            let next = next.filter(|message| self.args.until.as_ref().is_none_or(|until| until.ends_with(message)));
            let is_at_end = next.is_none();
            if let Some(message) = next {
                self.bar.set_position(message.seq);
                let org = ConversationKey::parse_event(&message.subject).map(|key| key.org).unwrap_or_default();
                let ended = self.projection.take(&org, &self.events.read(message).await?.stored);
                turns += u64::from(!ended.is_empty());
                pending.extend(ended);
            }
            if pending.len() >= BATCH || (is_at_end && !pending.is_empty()) {
                self.exporter.export(&pending).await.context("not all spans were exported; run it again")?;
                spans += pending.len();
                pending.clear();
            }
            if is_at_end && !self.args.follow {
                break;
            }
            if is_at_end {
                tokio::time::sleep(Duration::from_millis(FOLLOW_EVERY_MS)).await;
            }
        }
        self.bar.finish_and_clear();
        let open = self.projection.open_turns();
        ensure!(turns > 0 || open > 0 || self.args.conversation.is_none(), "there is no turn of this conversation");
        println!("exported {spans} spans of {turns} turns; {open} turns have not ended");
        Ok(())
    }
}
