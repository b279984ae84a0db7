//! A closed loop: each connection asks, waits for the answer, checks it, asks again.
//!
//! Contract: only requests sent within the window are counted; wrong answers count as faults and not as requests.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::bench::{
    Bench,
    client::BenchClient,
    clock::now_ns,
    fault::{Fault, FaultLog},
    outcome::Samples,
    procs::{MeasureWindow, WindowUse},
    progress::ProgressLine,
    wire::{BenchAction, PageData, SessionData},
};

/// The share of the window for which caches and connections of the servers warm up, unmeasured.
const WARM_UP_SHARE: f64 = 0.1;

/// The request that a connection repeats.
#[derive(Clone)]
pub enum LoopAction {
    Ping,
    NewSession { agent: String },
    Session(SessionData),
    Page { session: String, limit: u32 },
}

impl LoopAction {
    /// Asks once, and returns the time of the answer.
    async fn ask(&self, client: &mut BenchClient) -> Result<u64, Fault> {
        match self {
            LoopAction::Ping => {
                let answer = client.ask(BenchAction::Ping).await?;
                answer.must_be("pong").map(|()| answer.took_ns)
            }
            LoopAction::NewSession { agent } => client.create_session(agent).await.map(|(_, took_ns)| took_ns),
            LoopAction::Session(session) => {
                let get = BenchAction::GetSession { session_id: &session.session_id };
                let answer = client.ask(get).await?;
                match answer.data::<SessionData>()? == *session {
                    true => Ok(answer.took_ns),
                    false => Err(Fault::BadAnswer("another session".to_owned())),
                }
            }
            LoopAction::Page { session, limit } => {
                let get = BenchAction::GetConversationMessages { session_id: session, limit: *limit };
                let answer = client.ask(get).await?;
                check_page(&answer.data()?, *limit as usize).map(|()| answer.took_ns)
            }
        }
    }
}

/// Checks a full page of a longer conversation of plain turns: newest first, so a reply leads.
fn check_page(page: &PageData, limit: usize) -> Result<(), Fault> {
    let wrong = |what: &str| Err(Fault::BadAnswer(format!("history: {what}")));
    if page.messages.len() != limit {
        return wrong(&format!("{} messages instead of {limit}", page.messages.len()));
    }
    if !page.has_more || page.next_cursor.is_none() {
        return wrong("older messages are missing");
    }
    let turns = ["outbound", "inbound"];
    let mut in_turn = page.messages.iter().zip(turns.iter().cycle());
    if !in_turn.all(|(message, direction)| message.direction == *direction) {
        return wrong("not newest first");
    }
    let mut ids: Vec<&str> = page.messages.iter().map(|message| message.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    match ids.len() == limit {
        true => Ok(()),
        false => wrong("a message twice"),
    }
}

/// The results of a loop, and its connections for further use.
pub struct LoopResult {
    pub used: WindowUse,
    pub samples: Samples,
    pub faults: FaultLog,
    pub clients: Vec<BenchClient>,
}

/// Runs the loop on all connections at once, for the window set on the command line.
pub async fn run(bench: &Bench, label: &str, workers: Vec<(BenchClient, LoopAction)>) -> LoopResult {
    let seconds = bench.args.seconds;
    let _progress = ProgressLine::start(label, seconds);
    let from_ns = now_ns() + ns(seconds * WARM_UP_SHARE);
    let until_ns = from_ns + ns(seconds);
    let loops = workers.into_iter().map(|(client, question)| tokio::spawn(repeat(client, question, from_ns, until_ns)));
    let loops: Vec<_> = loops.collect();

    sleep(Duration::from_secs_f64(seconds * WARM_UP_SHARE)).await;
    let window = MeasureWindow::open(&bench.watched);
    sleep(Duration::from_secs_f64(seconds)).await;
    let used = window.close();

    let (mut samples, mut faults, mut clients) = (Samples::new(), FaultLog::default(), Vec::new());
    for ended in join_all(loops).await {
        // A task that panicked has reported it already, but its requests are lost.
        let Ok((client, times, log)) = ended else {
            faults.add(&Fault::Unexpected("a client task failed".to_owned()));
            continue;
        };
        times.into_iter().for_each(|took_ns| samples.add_ns(took_ns));
        faults.merge(log);
        clients.push(client);
    }
    LoopResult { used, samples, faults, clients }
}

async fn repeat(
    mut client: BenchClient,
    question: LoopAction,
    from_ns: u64,
    until_ns: u64,
) -> (BenchClient, Vec<u64>, FaultLog) {
    let (mut times, mut faults) = (Vec::new(), FaultLog::default());
    loop {
        let started_ns = now_ns();
        if started_ns >= until_ns {
            break;
        }
        match question.ask(&mut client).await {
            Ok(took_ns) if started_ns >= from_ns => times.push(took_ns),
            Ok(_) => {}
            Err(fault) => {
                faults.add(&fault);
                if fault.ends_connection() {
                    break;
                }
            }
        }
    }
    (client, times, faults)
}

fn ns(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap_or(u64::MAX)
}
