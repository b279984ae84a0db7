//! idle: the memory of a connection with a session while it is idle.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{close_all, open_all};
use crate::bench::{
    Bench,
    client::{BenchClient, ReadWindow},
    fault::Fault,
    outcome::{ScenarioOutcome, ratio},
    procs,
    progress::ProgressLine,
};

const CONNECTIONS: usize = 2_000;
/// Files besides the connections: standard streams, the gateway, the runtime, some reserve.
const OTHER_FILES: usize = 256;
/// Opened and closed before the baseline, so that one-time allocations are not counted.
const WARM_UP_CONNECTIONS: usize = 64;

/// The servers are quiet when all watched processes together use less CPU time than this in one interval.
const LOOK: Duration = Duration::from_millis(500);
const QUIET_CPU_MS: u64 = 20;
const QUIET_TIMEOUT: Duration = Duration::from_secs(15);

pub async fn run(bench: &Bench) -> anyhow::Result<ScenarioOutcome> {
    let count = affordable(bench.args.connections.unwrap_or(CONNECTIONS));
    let _progress = ProgressLine::start("idle", QUIET_TIMEOUT.as_secs_f64());

    let first = open_all(WARM_UP_CONNECTIONS.min(count), || open(bench)).await?;
    let mut faults = close_all(first).await;
    wait_until_quiet(bench, QUIET_TIMEOUT).await;

    let window = procs::MeasureWindow::open(&bench.watched);
    let clients = open_all(count, || open(bench)).await?;
    wait_until_quiet(bench, QUIET_TIMEOUT).await;
    let used = window.close();
    faults.merge(close_all(clients).await);

    let mut outcome = ScenarioOutcome::new("idle");
    memory_each(&mut outcome, &used, count);
    outcome.set("connections", count as u64).window(used, count as u64).faults(faults);
    Ok(outcome)
}

/// Returns the number of connections that this process may open, `wanted` at most.
pub fn affordable(wanted: usize) -> usize {
    let limit = procs::open_files_limit().unwrap_or(usize::MAX);
    wanted.min(limit.saturating_sub(OTHER_FILES)).max(1)
}

/// Adds the growth of each watched process in a window as memory a connection.
pub fn memory_each(outcome: &mut ScenarioOutcome, used: &procs::WindowUse, connections: usize) {
    let growth_kib = |used: &procs::ProcessUse| used.rss_after_kib as f64 - used.rss_before_kib as f64;
    let mut all_kib = 0.0;
    for process in &used.processes {
        all_kib += growth_kib(process);
        let name = format!("{}_kib_per_connection", process.name);
        outcome.figure(&name, ratio(growth_kib(process), connections as f64));
    }
    if !used.processes.is_empty() {
        outcome.figure("kib_per_connection", ratio(all_kib, connections as f64));
    }
}

/// Opens a connection with a session.
pub async fn open(bench: &Bench) -> Result<BenchClient, Fault> {
    let mut client = bench.connect(ReadWindow::Normal).await?;
    client.create_session(&bench.agent).await?;
    Ok(client)
}

/// Waits until the watched processes are quiet, or until `most` has passed.
pub async fn wait_until_quiet(bench: &Bench, most: Duration) {
    let give_up = Instant::now() + most;
    let mut before_ms = procs::total_cpu_ms(&bench.watched);
    while Instant::now() < give_up {
        sleep(LOOK).await;
        let now_ms = procs::total_cpu_ms(&bench.watched);
        if now_ms.saturating_sub(before_ms) < QUIET_CPU_MS {
            return;
        }
        before_ms = now_ms;
    }
}
