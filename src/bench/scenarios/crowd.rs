//! crowd: many connections with sessions, of which a fifth stream at a reader's pace.

use std::time::Duration;

use super::super::Bench;
use super::super::outcome::ScenarioOutcome;
use super::super::procs;
use super::streams::{self, StreamLoad};
use super::{close_all, idle, open_all};

const CONNECTIONS: usize = 10_000;
/// Idle connections for each one that streams, and one.
const STREAMING_SHARE: usize = 5;
const TOKENS: u32 = 50;
const RATE: u32 = 5;
const QUIET_TIMEOUT: Duration = Duration::from_secs(30);

/// 1. Opens the connections that stay idle, and takes the memory that they cost.
/// 2. Runs the streams beside them.
pub async fn run(bench: &Bench) -> anyhow::Result<ScenarioOutcome> {
    // Each stream is a connection here and one of the gateway, which is in this process too.
    let wanted = bench.args.connections.unwrap_or(CONNECTIONS);
    let count = idle::affordable(wanted + wanted / STREAMING_SHARE).min(wanted);
    let streaming = bench.args.streams.unwrap_or((count / STREAMING_SHARE).max(1)).min(count);

    let window = procs::MeasureWindow::open(&bench.watched);
    let quiet = open_all(count - streaming, || idle::open(bench)).await?;
    idle::wait_until_quiet(bench, QUIET_TIMEOUT).await;
    let opened = window.close();

    let load = StreamLoad {
        streams: streaming,
        tokens: bench.args.tokens.unwrap_or(TOKENS),
        rate: bench.args.rate.unwrap_or(RATE),
        seconds: bench.args.seconds,
    };
    let measured = streams::run(bench, "crowd", load).await?;
    let mut outcome = streams::outcome("crowd", load, measured);
    idle::memory_each(&mut outcome, &opened, count - streaming);
    outcome.set("connections", count as u64).faults(close_all(quiet).await);
    Ok(outcome)
}
