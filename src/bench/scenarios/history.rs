//! history: reading a conversation and its session back.

use std::sync::Arc;
use std::time::Duration;

use super::{
    close_all,
    closed_loop::{self, LoopAction},
    open_all,
};
use crate::bench::{
    Bench,
    client::{BenchClient, ReadWindow},
    fault::Fault,
    outcome::ScenarioOutcome,
    plan::TurnPlan,
    turn::StreamTally,
    wire::SessionData,
};

/// One connection, since the figure of interest is the time of a read, without queueing.
const CONNECTIONS: usize = 1;
/// Each turn is two messages.
const TURNS: u64 = 30;
const PAGE: u32 = 50;
const TOKENS: u32 = 20;

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<ScenarioOutcome>> {
    let count = bench.args.connections.unwrap_or(CONNECTIONS);
    let prepared = open_all(count, || converse(bench)).await?;
    let (mut clients, sessions): (Vec<BenchClient>, Vec<SessionData>) = prepared.into_iter().unzip();

    let mut outcomes = Vec::new();
    for (name, latency) in [("history", "page of 50 messages"), ("get-session", "session")] {
        let ask = |session: &SessionData| match name {
            "history" => LoopAction::Page { session: session.session_id.clone(), limit: PAGE },
            _ => LoopAction::Session(session.clone()),
        };
        let workers = clients.into_iter().zip(sessions.iter().map(ask)).collect();
        let looped = closed_loop::run(bench, name, workers).await;
        clients = looped.clients;
        let mut outcome = ScenarioOutcome::new(name);
        outcome
            .set("connections", count as u64)
            .set("messages", TURNS * 2)
            .window(looped.used, looped.samples.count())
            .latency(latency, &looped.samples)
            .faults(looped.faults);
        outcomes.push(outcome);
    }
    let late = close_all(clients).await;
    if let Some(last) = outcomes.last_mut() {
        last.faults(late);
    }
    Ok(outcomes)
}

/// Opens a connection with a conversation of 60 messages.
async fn converse(bench: &Bench) -> Result<(BenchClient, SessionData), Fault> {
    let mut client = bench.connect(ReadWindow::Normal).await?;
    let (session, _) = client.create_session(&bench.agent).await?;
    let tally = Arc::new(StreamTally::default());
    let grace: Duration = bench.args.grace();
    for _ in 0..TURNS {
        let plan = TurnPlan::new(TOKENS, 0);
        let turn = client.turn(&session.session_id, plan, &tally, grace).await?;
        bench.gateway.take(&plan.id);
        if let Some(fault) = turn.faults.into_iter().next() {
            return Err(fault);
        }
    }
    Ok((client, session))
}
