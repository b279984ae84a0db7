//! sessions: new conversations, each durable before it is answered.

use super::super::Bench;
use super::super::client::ReadWindow;
use super::super::report::ScenarioOutcome;
use super::closed_loop::{self, LoopAction};
use super::{close_all, open_all};

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
