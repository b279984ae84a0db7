//! ping: the cost of a round trip that needs only the connection.

use super::super::Bench;
use super::super::client::Window;
use super::super::report::Outcome;
use super::closed_loop::{self, Question};
use super::{close_all, open_all};

const CONNECTIONS: usize = 64;

pub async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let count = bench.args.connections.unwrap_or(CONNECTIONS);
    let clients = open_all(count, || bench.connect(Window::Normal)).await?;
    let workers = clients.into_iter().map(|client| (client, Question::Ping)).collect();
    let looped = closed_loop::run(bench, "ping", workers).await;

    let mut outcome = Outcome::new("ping");
    outcome
        .set("connections", count as u64)
        .window(looped.used, looped.samples.count())
        .latency("pong", &looped.samples)
        .faults(looped.faults);
    outcome.faults(close_all(looped.clients).await);
    Ok(outcome)
}
