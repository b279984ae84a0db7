//! Concurrent turns: each stream is a connection that runs one turn after the other.
//!
//! Contract: rates and CPU are taken within a window in which all streams run; latencies are of all measured turns, each of
//! which is read to its end and checked. A stream warms up with a short turn that is checked and not measured.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::open_all;
use crate::bench::{
    Bench,
    client::{BenchClient, ReadWindow},
    clock::now_ns,
    fault::{Fault, FaultLog},
    gateway::{GatewayLog, ModelTiming},
    outcome::{Samples, ScenarioOutcome, ratio},
    plan::TurnPlan,
    procs::{self, WindowUse},
    progress::ProgressLine,
    turn::{BenchTurn, StreamTally},
};

/// Turns after which a stream starts a fresh conversation: each turn sends the earlier ones to the model again, and their
/// growth is not measured here.
const TURNS_PER_SESSION: u64 = 4;
const WARM_UP_TOKENS: u32 = 5;
/// The streams start one after another over this time, or a fifth of the window if that is less, so that first tokens do not
/// all queue behind each other.
const RAMP_MAX_SECONDS: f64 = 1.0;
const RAMP_SHARE: f64 = 0.2;

#[derive(Clone, Copy)]
pub struct StreamLoad {
    pub streams: usize,
    pub tokens: u32,
    pub rate: u32,
    pub seconds: f64,
}

/// The results of a load.
pub struct LoadResult {
    pub used: WindowUse,
    pub turns: u64,
    pub extra_model_calls: u64,
    pub tokens_in_window: u64,
    pub frames_in_window: u64,
    pub times: TurnLatencies,
    pub faults: FaultLog,
}

/// The latencies of a load's turns.
pub struct TurnLatencies {
    /// From the gateway's write to the client's read.
    pub token: Samples,
    /// From message to first token, without the gateway's own time.
    pub first_token: Samples,
    /// From message to terminal frame, without the gateway's own time.
    pub turn: Samples,
    /// From message to 202.
    pub accepted: Samples,
}

impl TurnLatencies {
    fn new() -> TurnLatencies {
        TurnLatencies {
            token: Samples::new(),
            first_token: Samples::new(),
            turn: Samples::new(),
            accepted: Samples::new(),
        }
    }

    fn add(&mut self, turn: &BenchTurn, timing: &ModelTiming) {
        let took = |ended: Option<u64>| ended.map(|ended_ns| ended_ns.saturating_sub(turn.sent_ns));
        let model = |wrote: Option<u64>| wrote.map(|ns| ns.saturating_sub(timing.received_ns));
        let without = |took: Option<u64>, model: Option<u64>| Some(took?.saturating_sub(model?));

        let added = without(took(turn.first_token_ns), model(timing.first_write_ns));
        added.into_iter().for_each(|ns| self.first_token.add_ns(ns));
        let overhead = without(took(turn.ended_ns), model(timing.last_write_ns));
        overhead.into_iter().for_each(|ns| self.turn.add_ns(ns));
        let accepted = took(turn.accepted_ns);
        accepted.into_iter().for_each(|ns| self.accepted.add_ns(ns));
        turn.token_delays_ns.iter().for_each(|ns| self.token.add_ns(*ns));
    }
}

/// The state shared by all streams of a load.
struct Shared {
    load: StreamLoad,
    agent: String,
    grace: Duration,
    until_ns: u64,
    gateway: Arc<GatewayLog>,
    tally: Arc<StreamTally>,
    times: Mutex<TurnLatencies>,
}

#[derive(Default)]
struct StreamEnd {
    turns: u64,
    extra_model_calls: u64,
    faults: FaultLog,
}

/// Runs the load.
///
/// 1. Connects and warms up.
/// 2. Starts the streams along the ramp.
/// 3. Measures the window.
/// 4. Lets every stream finish its turn and close.
pub async fn run(bench: &Bench, label: &str, load: StreamLoad) -> anyhow::Result<LoadResult> {
    let ready = open_all(load.streams, || warm_up(bench)).await?;
    let _progress = ProgressLine::start(label, load.seconds);
    let ramp = Duration::from_secs_f64((load.seconds * RAMP_SHARE).min(RAMP_MAX_SECONDS));
    let window_length = Duration::from_secs_f64(load.seconds);
    let running_ns = u64::try_from((ramp + window_length).as_nanos())?;
    let shared = Arc::new(Shared {
        load,
        agent: bench.agent.clone(),
        grace: bench.args.grace(),
        until_ns: now_ns() + running_ns,
        gateway: Arc::clone(&bench.gateway),
        tally: Arc::default(),
        times: Mutex::new(TurnLatencies::new()),
    });

    let (started, step) = (Instant::now(), ramp / u32::try_from(load.streams)?);
    let streams = ready.into_iter().zip(0_u32..).map(|((client, session), number)| {
        let begin = started + step * number;
        tokio::spawn(stream(client, session, begin, Arc::clone(&shared)))
    });
    let streams: Vec<_> = streams.collect();

    sleep(ramp).await;
    let window = procs::MeasureWindow::open(&bench.watched);
    let before = totals(&shared.tally);
    sleep(window_length).await;
    let after = totals(&shared.tally);
    let used = window.close();

    let mut all = StreamEnd::default();
    for ended in join_all(streams).await {
        // A task that panicked has reported it already, but its turns are lost.
        let failed = |_| StreamEnd::failed(&Fault::Unexpected("a client task failed".to_owned()));
        all.merge(ended.unwrap_or_else(failed));
    }
    let mut times = shared.times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(LoadResult {
        used,
        turns: all.turns,
        extra_model_calls: all.extra_model_calls,
        tokens_in_window: after.0 - before.0,
        frames_in_window: after.1 - before.1,
        times: std::mem::replace(&mut times, TurnLatencies::new()),
        faults: all.faults,
    })
}

impl StreamEnd {
    fn failed(fault: &Fault) -> StreamEnd {
        let mut end = StreamEnd::default();
        end.faults.add(fault);
        end
    }

    fn merge(&mut self, other: StreamEnd) {
        self.turns += other.turns;
        self.extra_model_calls += other.extra_model_calls;
        self.faults.merge(other.faults);
    }
}

fn totals(tally: &StreamTally) -> (u64, u64) {
    (tally.tokens.load(Ordering::Relaxed), tally.frames.load(Ordering::Relaxed))
}

async fn warm_up(bench: &Bench) -> Result<(BenchClient, String), Fault> {
    let mut client = bench.connect(ReadWindow::Normal).await?;
    let (session, _) = client.create_session(&bench.agent).await?;
    let plan = TurnPlan::new(WARM_UP_TOKENS, 0);
    let tally = Arc::new(StreamTally::default());
    let turn = client.turn(&session.session_id, plan, &tally, bench.args.grace()).await?;
    bench.gateway.take(&plan.id);
    turn.faults.iter().for_each(|fault| client.faults.add(fault));
    Ok((client, session.session_id))
}

/// Runs one stream, from its position on the ramp to the end of its last turn.
async fn stream(mut client: BenchClient, mut session: String, begin: Instant, shared: Arc<Shared>) -> StreamEnd {
    let mut end = StreamEnd::default();
    sleep_until(begin).await;
    loop {
        let plan = TurnPlan::new(shared.load.tokens, shared.load.rate);
        match client.turn(&session, plan, &shared.tally, shared.grace).await {
            Ok(turn) => {
                end.turns += 1;
                end.judge(&turn, &shared);
                if turn.faults.iter().any(Fault::ends_connection) {
                    break;
                }
            }
            Err(fault) => {
                end.faults.add(&fault);
                break;
            }
        }
        if now_ns() >= shared.until_ns {
            break;
        }
        if end.turns.is_multiple_of(TURNS_PER_SESSION) {
            match client.create_session(&shared.agent).await {
                Ok((fresh, _)) => session = fresh.session_id,
                Err(fault) => {
                    end.faults.add(&fault);
                    break;
                }
            }
        }
    }
    end.faults.merge(client.close().await);
    end
}

impl StreamEnd {
    fn judge(&mut self, turn: &BenchTurn, shared: &Shared) {
        turn.faults.iter().for_each(|fault| self.faults.add(fault));
        match shared.gateway.take(&turn.plan.id) {
            Some(timing) => {
                self.extra_model_calls += u64::from(timing.calls.saturating_sub(1));
                let times = &mut shared.times.lock().unwrap_or_else(PoisonError::into_inner);
                times.add(turn, &timing);
            }
            None if turn.faults.is_empty() => self.faults.add(&Fault::NoModelCall),
            None => {}
        }
    }
}

/// Builds the outcome of a load of streams.
pub fn outcome(name: &str, load: StreamLoad, measured: LoadResult) -> ScenarioOutcome {
    let LoadResult { used, turns, tokens_in_window, frames_in_window, times, .. } = measured;
    let (tokens, frames) = (tokens_in_window as f64, frames_in_window as f64);
    let cpu_us = used.cpu_ms() as f64 * 1000.0;
    let (seconds, is_watching) = (used.seconds, !used.processes.is_empty());
    let mut outcome = ScenarioOutcome::new(name);
    outcome
        .set("streams", load.streams as u64)
        .set("tokens", u64::from(load.tokens))
        .set("rate", u64::from(load.rate))
        .window(used, turns)
        .figure("tokens_per_s", ratio(tokens, seconds))
        .figure("frames_per_s", ratio(frames, seconds))
        .figure("tokens_per_frame", ratio(tokens, frames))
        .figure("extra_model_calls", measured.extra_model_calls as f64)
        .latency("accepted", &times.accepted)
        .latency("first token added", &times.first_token)
        .latency("turn overhead", &times.turn);
    if load.rate > 0 {
        // Flat out, a token waits behind all those before it, which is not a latency of the server.
        outcome.latency("token added", &times.token);
    }
    if is_watching {
        outcome.figure("cpu_us_per_token", ratio(cpu_us, tokens));
    }
    outcome.faults(measured.faults);
    outcome
}
