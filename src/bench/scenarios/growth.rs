//! growth: the cost of the same four requests with a thousand conversations, and with very many.
//!
//! Contract: every conversation is made as visitors make it, by a session and a turn, and belongs to one of many users. Each
//! size gets the same load: turns of new conversations, a herd of clients that lose their connections in the middle of a turn
//! and resume all at once, pages of conversations and lists of users chosen evenly from all.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::idle::wait_until_quiet;
use crate::bench::{
    Bench,
    client::BenchClient,
    clock::now_ns,
    fault::{Fault, FaultLog},
    outcome::{Samples, ScenarioOutcome, ratio},
    plan::TurnPlan,
    procs::MeasureWindow,
    progress::ProgressLine,
    turn::{BenchTurn, StreamTally},
    wire::{BenchAction, ListData, PageData, SessionData},
};

/// The measured sizes, up to the requested one.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Conversations of each user.
const OF_USER: usize = 20;
/// Users made at the same time.
const AT_ONCE: usize = 24;
/// Indexing of new conversations may last this long, and is not part of the measurement.
const QUIET_TIMEOUT: Duration = Duration::from_secs(900);
/// Turns, pages and lists measured at each size.
const ROUNDS: usize = 300;
/// Clients that resume at once.
const HERD: usize = 500;
/// The turn of a herd client, which lasts for some seconds, and the tokens read before the connection is lost.
const HERD_TOKENS: u32 = 40;
const HERD_RATE: u32 = 10;
const HERD_READ: usize = 3;

/// One session of each user.
type Kept = Vec<SessionData>;

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<ScenarioOutcome>> {
    let wanted = bench.args.conversations;
    let sizes = SIZES.into_iter().filter(|size| *size < wanted).chain([wanted]);
    let (mut kept, mut outcomes) = (Kept::new(), Vec::new());
    for size in sizes {
        let users = size.div_ceil(OF_USER);
        fill(bench, &mut kept, users).await?;
        wait_until_quiet(bench, QUIET_TIMEOUT).await;
        let mut outcome = ScenarioOutcome::new("growth");
        outcome.set("conversations", (users * OF_USER) as u64);
        turns(bench, &mut outcome, users).await?;
        herd(bench, &mut outcome, users).await?;
        reads(bench, &mut outcome, &kept).await?;
        outcomes.push(outcome);
    }
    compare(&mut outcomes);
    Ok(outcomes)
}

/// Makes users with their conversations, up to this number.
async fn fill(bench: &Bench, kept: &mut Kept, users: usize) -> anyhow::Result<()> {
    let _progress = ProgressLine::start(&format!("growth, to {} conversations", users * OF_USER), 0.0);
    let making = stream::iter(kept.len()..users).map(|user| make(bench, user)).buffered(AT_ONCE);
    let made: Kept = making.try_collect().await.map_err(failed)?;
    kept.extend(made);
    Ok(())
}

/// Makes a user with conversations of one turn each.
async fn make(bench: &Bench, user: usize) -> Result<SessionData, Fault> {
    let mut client = bench.connect_as(user).await?;
    let mut last = None;
    for _ in 0..OF_USER {
        last = Some(converse(bench, &mut client).await?.0);
    }
    let late = client.close().await;
    match late.first.into_iter().next() {
        Some(fault) => Err(Fault::BadAnswer(fault)),
        None => last.ok_or(Fault::NoTerminal),
    }
}

/// Makes a new conversation with a turn, and returns the turn's time.
async fn converse(bench: &Bench, client: &mut BenchClient) -> Result<(SessionData, u64), Fault> {
    let (session, _) = client.create_session(&bench.agent).await?;
    let plan = TurnPlan::new(1, 0);
    let turn = client.turn(&session.session_id, plan, &Arc::new(StreamTally::default()), bench.args.grace()).await?;
    bench.gateway.take(&plan.id);
    match (turn.faults.first(), turn.ended_ns) {
        (Some(fault), _) => Err(fault.clone()),
        (None, Some(ended_ns)) => Ok((session, ended_ns.saturating_sub(turn.sent_ns))),
        (None, None) => Err(Fault::NoTerminal),
    }
}

/// Measures turns one after the other, including the servers' work that follows.
async fn turns(bench: &Bench, outcome: &mut ScenarioOutcome, users: usize) -> anyhow::Result<()> {
    let mut client = bench.connect_as(users).await.map_err(failed)?;
    converse(bench, &mut client).await.map_err(failed)?;
    let (window, mut samples) = (MeasureWindow::open(&bench.watched), Samples::new());
    for _ in 0..ROUNDS {
        samples.add_ns(converse(bench, &mut client).await.map_err(failed)?.1);
    }
    wait_until_quiet(bench, QUIET_TIMEOUT).await;
    let used = window.close();
    for process in &used.processes {
        let name = format!("{}_cpu_us_per_turn", process.name);
        outcome.figure(&name, ratio(process.cpu_ms as f64 * 1_000.0, ROUNDS as f64));
    }
    outcome.latency("turn", &samples).window(used, ROUNDS as u64);
    outcome.faults(client.close().await);
    Ok(())
}

/// Drops connections in the middle of their turns, all at once, and resumes them all at once.
async fn herd(bench: &Bench, outcome: &mut ScenarioOutcome, users: usize) -> anyhow::Result<()> {
    let count = bench.args.connections.unwrap_or(HERD);
    let beginning = stream::iter(0..count).map(|n| begin(bench, users + 1 + n)).buffer_unordered(AT_ONCE);
    let begun: Vec<Begun> = beginning.try_collect().await.map_err(failed)?;
    let reading = begun.into_iter().map(|begun| begun.lose(bench));
    let lost: Vec<Lost> = join_all(reading).await.into_iter().collect::<Result<_, _>>().map_err(failed)?;
    let (mut samples, mut faults) = (Samples::new(), FaultLog::default());
    for resumed in join_all(lost.into_iter().map(|lost| lost.resume(bench))).await {
        match resumed {
            Ok((took_ns, log)) => {
                samples.add_ns(took_ns);
                faults.merge(log);
            }
            Err(fault) => faults.add(&fault),
        }
    }
    outcome.set("herd", count as u64).latency("resume", &samples).faults(faults);
    Ok(())
}

/// A client of the herd with a running turn.
struct Begun {
    user: usize,
    client: BenchClient,
    session: SessionData,
    turn: BenchTurn,
}

/// A client of the herd without a connection.
struct Lost {
    user: usize,
    session: SessionData,
    turn: BenchTurn,
    seq: Option<String>,
}

async fn begin(bench: &Bench, user: usize) -> Result<Begun, Fault> {
    let mut client = bench.connect_as(user).await?;
    let (session, _) = client.create_session(&bench.agent).await?;
    let plan = TurnPlan::new(HERD_TOKENS, HERD_RATE);
    let turn = client.start_turn(&session.session_id, plan, &Arc::new(StreamTally::default())).await?;
    Ok(Begun { user, client, session, turn })
}

impl Begun {
    /// Reads the beginning of the turn and drops the connection.
    async fn lose(mut self, bench: &Bench) -> Result<Lost, Fault> {
        self.client.read_tokens(&mut self.turn, HERD_READ, bench.args.grace()).await?;
        Ok(Lost { user: self.user, session: self.session, turn: self.turn, seq: self.client.seq.take() })
    }
}

impl Lost {
    /// Connects and resumes, and returns the time until the answer. The turn is read to its end and checked.
    async fn resume(mut self, bench: &Bench) -> Result<(u64, FaultLog), Fault> {
        let begun_ns = now_ns();
        let mut client = bench.connect_as(self.user).await?;
        let resume = BenchAction::ResumeSession { session_id: &self.session.session_id, seq: self.seq.as_deref() };
        client.ask(resume).await?.must_be("immediate_response")?;
        let took_ns = now_ns() - begun_ns;
        let limit = Duration::from_secs(u64::from(HERD_TOKENS / HERD_RATE)) + bench.args.grace();
        client.read_tokens(&mut self.turn, usize::MAX, limit).await?;
        self.turn.finish();
        bench.gateway.take(&self.turn.plan.id);
        let mut log = client.close().await;
        self.turn.faults.iter().for_each(|fault| log.add(fault));
        Ok((took_ns, log))
    }
}

/// Measures a page and a list, for users spread evenly over all.
async fn reads(bench: &Bench, outcome: &mut ScenarioOutcome, kept: &Kept) -> anyhow::Result<()> {
    let (mut pages, mut lists, mut faults) = (Samples::new(), Samples::new(), FaultLog::default());
    for round in 0..ROUNDS {
        let user = round * kept.len() / ROUNDS;
        let mut client = bench.connect_as(user).await.map_err(failed)?;
        match read(&mut client, &kept[user]).await {
            Ok((page_ns, list_ns)) => {
                pages.add_ns(page_ns);
                lists.add_ns(list_ns);
            }
            Err(fault) => faults.add(&fault),
        }
        faults.merge(client.close().await);
    }
    outcome.latency("page", &pages).latency("list", &lists).faults(faults);
    Ok(())
}

async fn read(client: &mut BenchClient, session: &SessionData) -> Result<(u64, u64), Fault> {
    let page = client.ask(BenchAction::GetConversationMessages { session_id: &session.session_id, limit: 50 }).await?;
    let list = client.ask(BenchAction::ListConversations { limit: 50 }).await?;
    let (messages, conversations) = (page.data::<PageData>()?.messages, list.data::<ListData>()?.conversations);
    if messages.len() != 2 || conversations.len() < OF_USER {
        let found = format!("{} messages in a page, {} conversations", messages.len(), conversations.len());
        return Err(Fault::BadAnswer(found));
    }
    Ok((page.took_ns, list.took_ns))
}

/// Adds the ratios of the last size's figures to the first size's.
fn compare(outcomes: &mut [ScenarioOutcome]) {
    let [first, .., last] = outcomes else { return };
    for (name, before) in &first.latencies {
        if let Some(after) = last.latencies.get(name) {
            let times = ratio(after.p50_ms, before.p50_ms);
            last.figures.insert(format!("{name}_times_the_first"), times);
        }
    }
    let cpu: Vec<_> = first.figures.iter().filter(|(name, _)| name.ends_with("_cpu_us_per_turn")).collect();
    for (name, before) in cpu {
        let times = ratio(last.figures.get(name).copied().unwrap_or_default(), *before);
        last.figures.insert(format!("{name}_times_the_first"), times);
    }
}

fn failed(fault: Fault) -> anyhow::Error {
    anyhow::anyhow!("{fault}")
}
