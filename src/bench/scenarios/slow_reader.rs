//! slow-reader: sockets that ask for much and never read, beside healthy streams.
//!
//! Contract: healthy streams are measured three times: alone, while the slow sockets are being filled, and while they are full.
//! At last the slow sockets are read: each must have been closed, or must get every due frame in order. Silently dropped frames
//! are errors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    open_all,
    streams::{self, StreamLoad},
};
use crate::bench::{
    Bench,
    client::{BenchClient, ReadWindow},
    fault::{Fault, FaultLog},
    outcome::ScenarioOutcome,
    plan::TurnPlan,
    procs,
    turn::{BenchTurn, StreamTally},
};

const SOCKETS: usize = 100;
/// Each turn is some 600 KB on the socket, so together they exceed the kernel's buffer for one. The turns are of different
/// conversations, because a client that never reads can't run one turn after the other.
const TURNS_PER_SOCKET: usize = 6;
const SLOW_TOKENS: u32 = 100;
const SLOW_PAD: u32 = 2_000;

const HEALTHY_STREAMS: usize = 20;
const HEALTHY_TOKENS: u32 = 60;
const HEALTHY_RATE: u32 = 20;

/// Servers that pass on the back-pressure hold up the gateway; the wait ends then.
const FILL_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// A socket that does not read, with its turns.
struct Slow {
    client: BenchClient,
    turns: HashMap<Uuid, BenchTurn>,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<ScenarioOutcome>> {
    let sockets = bench.args.connections.unwrap_or(SOCKETS);
    let load = StreamLoad {
        streams: bench.args.streams.unwrap_or(HEALTHY_STREAMS),
        tokens: bench.args.tokens.unwrap_or(HEALTHY_TOKENS),
        rate: bench.args.rate.unwrap_or(HEALTHY_RATE),
        seconds: bench.args.seconds,
    };
    let alone = measure(bench, "slow-reader: alone", load).await?;

    let opened = open_all(sockets, || open(bench)).await?;
    let peak = procs::PeakMemory::start(&bench.watched);
    let slow = start(opened).await?;
    let ids: Vec<Uuid> = slow.iter().flat_map(|slow| slow.turns.keys().copied()).collect();
    let mut filling = measure(bench, "slow-reader: filling", load).await?;
    let give_up = Instant::now() + FILL_TIMEOUT;
    while bench.gateway.finished(&ids) < ids.len() && Instant::now() < give_up {
        sleep(LOOK).await;
    }
    let said = bench.gateway.finished(&ids);
    let mut full = measure(bench, "slow-reader: full", load).await?;

    for (process, growth_kib) in bench.watched.iter().zip(peak.growth_kib()) {
        filling.figure(&format!("{}_peak_growth_kib", process.name), growth_kib as f64);
    }
    filling.set("slow_sockets", sockets as u64);
    full.set("slow_sockets", sockets as u64).figure("slow_turns_said", said as f64);
    drain(slow, &mut full).await;
    for id in &ids {
        bench.gateway.take(id);
    }
    Ok(vec![alone, filling, full])
}

async fn measure(bench: &Bench, name: &str, load: StreamLoad) -> anyhow::Result<ScenarioOutcome> {
    let measured = streams::run(bench, name, load).await?;
    Ok(streams::outcome(name, load, measured))
}

/// Opens a connection with all its sessions, which still reads.
async fn open(bench: &Bench) -> Result<(BenchClient, Vec<String>), Fault> {
    let mut client = bench.connect(ReadWindow::Small).await?;
    let mut sessions = Vec::new();
    for _ in 0..TURNS_PER_SOCKET {
        sessions.push(client.create_session(&bench.agent).await?.0.session_id);
    }
    Ok((client, sessions))
}

async fn start(opened: Vec<(BenchClient, Vec<String>)>) -> anyhow::Result<Vec<Slow>> {
    let tally = Arc::new(StreamTally::default());
    let mut all = Vec::new();
    for (mut client, sessions) in opened {
        let mut turns = HashMap::new();
        for session in sessions {
            let plan = TurnPlan { pad: SLOW_PAD, ..TurnPlan::new(SLOW_TOKENS, 0) };
            let started = client.start_turn(&session, plan, &tally).await;
            turns.insert(plan.id, started.map_err(|fault| anyhow::anyhow!("{fault}"))?);
        }
        all.push(Slow { client, turns });
    }
    Ok(all)
}

/// Reads the slow sockets at last, and checks their turns.
async fn drain(slow: Vec<Slow>, outcome: &mut ScenarioOutcome) {
    let (mut closed, mut caught_up, mut faults) = (0, 0, FaultLog::default());
    for (was_closed, log) in join_all(slow.into_iter().map(drain_one)).await {
        closed += u32::from(was_closed);
        caught_up += u32::from(!was_closed);
        faults.merge(log);
    }
    outcome.figure("slow_closed", f64::from(closed)).figure("slow_caught_up", f64::from(caught_up)).faults(faults);
}

/// Returns whether the server had closed the socket, and the faults of its frames.
async fn drain_one(mut slow: Slow) -> (bool, FaultLog) {
    let read = slow.client.read_turns(&mut slow.turns, DRAIN_LIMIT).await;
    let was_closed = matches!(read, Err(Fault::Closed(_)));
    let mut faults = std::mem::take(&mut slow.client.faults);
    if let (Err(fault), false) = (&read, was_closed) {
        faults.add(fault);
    }
    for turn in slow.turns.values_mut() {
        if !was_closed {
            turn.finish();
        }
        turn.faults.iter().for_each(|fault| faults.add(fault));
    }
    (was_closed, faults)
}
