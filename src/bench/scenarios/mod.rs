//! The scenarios, one a file, and the two kinds of load that most of them share.
//!
//! Contract: a scenario that can't be run is an outcome with an error, and the next one still runs.

mod closed_loop;
mod crowd;
mod fan_out;
mod flat_out;
mod growth;
mod history;
mod idle;
mod not_yours;
mod paced;
mod ping;
mod sessions;
mod slow_reader;
mod streams;

use std::future::Future;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Bench,
    args::Scenario,
    client::BenchClient,
    fault::{Fault, FaultLog},
    outcome::ScenarioOutcome,
};

/// Connections opened at the same time; more would measure the listen queue.
const OPENING_AT_ONCE: usize = 32;

/// Runs one scenario, in all its variants.
pub async fn run(bench: &Bench, scenario: Scenario) -> Vec<ScenarioOutcome> {
    let (name, result) = match scenario {
        Scenario::Ping => ("ping", one(ping::run(bench)).await),
        Scenario::Sessions => ("sessions", one(sessions::run(bench)).await),
        Scenario::Paced => ("paced", paced::run(bench).await),
        Scenario::FlatOut => ("flat-out", one(flat_out::run(bench)).await),
        Scenario::Idle => ("idle", one(idle::run(bench)).await),
        Scenario::History => ("history", history::run(bench).await),
        Scenario::SlowReader => ("slow-reader", slow_reader::run(bench).await),
        Scenario::NotYours => ("not-yours", not_yours::run(bench).await),
        Scenario::Crowd => ("crowd", one(crowd::run(bench)).await),
        Scenario::FanOut => ("fan-out", one(fan_out::run(bench)).await),
        Scenario::Growth => ("growth", growth::run(bench).await),
    };
    result.unwrap_or_else(|error| vec![ScenarioOutcome::failed(name, &error)])
}

async fn one(scenario: impl Future<Output = anyhow::Result<ScenarioOutcome>>) -> anyhow::Result<Vec<ScenarioOutcome>> {
    Ok(vec![scenario.await?])
}

/// Opens `count` connections, a bounded number at a time.
async fn open_all<T, F>(count: usize, open: impl Fn() -> F) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = Result<T, Fault>>,
{
    let opening = stream::iter(0..count).map(|_| open()).buffer_unordered(OPENING_AT_ONCE);
    opening.try_collect().await.map_err(|fault| anyhow::anyhow!("{fault}"))
}

/// Closes connections in order, and returns all their faults.
async fn close_all(clients: Vec<BenchClient>) -> FaultLog {
    let closing = stream::iter(clients).map(BenchClient::close).buffer_unordered(OPENING_AT_ONCE);
    let merge = |mut all: FaultLog, log| async {
        all.merge(log);
        all
    };
    closing.fold(FaultLog::default(), merge).await
}
