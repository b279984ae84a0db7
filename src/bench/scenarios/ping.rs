//! ping: the cost of a round trip that needs only the connection.

use super::{
    close_all,
    closed_loop::{self, LoopAction},
    open_all,
};
use crate::bench::{Bench, client::ReadWindow, outcome::ScenarioOutcome};

const CONNECTIONS: usize = 64;

pub async fn run(bench: &Bench) -> anyhow::Result<ScenarioOutcome> {
    let count = bench.args.connections.unwrap_or(CONNECTIONS);
    let clients = open_all(count, || bench.connect(ReadWindow::Normal)).await?;
    let workers = clients.into_iter().map(|client| (client, LoopAction::Ping)).collect();
    let looped = closed_loop::run(bench, "ping", workers).await;

    let mut outcome = ScenarioOutcome::new("ping");
    outcome
        .set("connections", count as u64)
        .window(looped.used, looped.samples.count())
        .latency("pong", &looped.samples)
        .faults(looped.faults);
    outcome.faults(close_all(looped.clients).await);
    Ok(outcome)
}
