//! sessions: new conversations, each durable before it is answered.

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
    let question = LoopAction::NewSession { agent: bench.agent.clone() };
    let workers = clients.into_iter().map(|client| (client, question.clone())).collect();
    let looped = closed_loop::run(bench, "sessions", workers).await;

    let mut outcome = ScenarioOutcome::new("sessions");
    outcome
        .set("connections", count as u64)
        .window(looped.used, looped.samples.count())
        .latency("session created", &looped.samples)
        .faults(looped.faults);
    outcome.faults(close_all(looped.clients).await);
    Ok(outcome)
}
