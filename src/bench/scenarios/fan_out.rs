//! fan-out: one conversation that many connections watch, on any of the edges.
//!
//! Contract: every viewer sees every token once and in order, and the end; the viewers speak the resume extension, which
//! shows them the turns of others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::Bench;
use super::super::client::BenchClient;
use super::super::clock::now_ns;
use super::super::fault::{Fault, FaultLog};
use super::super::outcome::{Samples, ScenarioOutcome, ratio};
use super::super::plan::TurnPlan;
use super::super::procs;
use super::super::progress::ProgressLine;
use super::super::turn::{BenchTurn, StreamTally};
use super::super::wire::BenchAction;
use super::{close_all, idle, open_all};

const VIEWERS: usize = 1_000;
const TOKENS: u32 = 100;
const RATE: u32 = 20;
/// The number of the conversation's owner among the bench's users.
const OWNER: usize = 0;

pub async fn run(bench: &Bench) -> anyhow::Result<ScenarioOutcome> {
    let count = idle::affordable(bench.args.connections.unwrap_or(VIEWERS));
    let (tokens, rate) = (bench.args.tokens.unwrap_or(TOKENS), bench.args.rate.unwrap_or(RATE));
    let fault = |fault: Fault| anyhow::anyhow!("{fault}");
    let tally = Arc::new(StreamTally::default());
    let mut owner = bench.connect_as(OWNER).await.map_err(fault)?;
    let (session, _) = owner.create_session(&bench.agent).await.map_err(fault)?;
    // A conversation without a turn has nothing to resume.
    let first =
        owner.turn(&session.session_id, TurnPlan::new(1, 0), &tally, bench.args.grace()).await.map_err(fault)?;
    bench.gateway.take(&first.plan.id);
    let viewers = open_all(count, || view(bench, &session.session_id)).await?;

    let plan = TurnPlan::new(tokens, rate);
    let limit = Duration::from_secs(u64::from(tokens / rate.max(1))) + bench.args.grace();
    let _progress = ProgressLine::start("fan-out", limit.as_secs_f64());
    let window = procs::MeasureWindow::open(&bench.watched);
    let watching = viewers.into_iter().map(|viewer| watch(viewer, plan, &tally, limit));
    let (asked, watched) =
        tokio::join!(owner.turn(&session.session_id, plan, &tally, bench.args.grace()), join_all(watching));
    let used = window.close();
    bench.gateway.take(&plan.id);

    let mut outcome = ScenarioOutcome::new("fan-out");
    let (mut delays, mut faults, mut clients) = (Samples::new(), FaultLog::default(), vec![owner]);
    match asked {
        Ok(turn) => turn.faults.iter().for_each(|fault| faults.add(fault)),
        Err(fault) => faults.add(&fault),
    }
    for (viewer, turn) in watched {
        turn.token_delays_ns.iter().for_each(|ns| delays.add_ns(*ns));
        turn.faults.iter().for_each(|fault| faults.add(fault));
        clients.push(viewer);
    }
    let shown = delays.count() as f64;
    let cpu_us = used.cpu_ms() as f64 * 1_000.0;
    let is_watching = !used.processes.is_empty();
    outcome
        .set("viewers", count as u64)
        .set("tokens", u64::from(tokens))
        .set("rate", u64::from(rate))
        .window(used, delays.count())
        .latency("token added", &delays);
    if is_watching {
        outcome.figure("cpu_us_per_shown_token", ratio(cpu_us, shown));
    }
    outcome.faults(faults);
    outcome.faults(close_all(clients).await);
    Ok(outcome)
}

/// Connects another device of the conversation's owner.
async fn view(bench: &Bench, session: &str) -> Result<BenchClient, Fault> {
    let mut viewer = bench.connect_as(OWNER).await?;
    viewer.ask(BenchAction::ResumeSession { session_id: session, seq: None }).await?.must_be("immediate_response")?;
    Ok(viewer)
}

/// Reads a turn that another connection requests.
async fn watch(
    mut viewer: BenchClient,
    plan: TurnPlan,
    tally: &Arc<StreamTally>,
    limit: Duration,
) -> (BenchClient, BenchTurn) {
    let turn = BenchTurn::watched(plan, now_ns(), Arc::clone(tally));
    let mut turns = HashMap::from([(plan.id, turn)]);
    let read = viewer.read_turns(&mut turns, limit).await;
    let mut turn = turns.remove(&plan.id).expect("the turn was put there");
    match read {
        Ok(()) => turn.finish(),
        Err(fault) => turn.faults.push(fault),
    }
    (viewer, turn)
}
