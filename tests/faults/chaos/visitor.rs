//! A client that wants its answers: it reconnects, resumes and sends again until every turn has ended.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};
use serde_json::Value;
use tokio::time::{sleep, sleep_until, timeout};

use super::World;
use crate::support::{
    client::{Client, Lost, Speaks, message_action},
    frames::{code, is_terminal, kind, request_id, tool_activity},
};

/// The topics of turns: the tool that the model calls first.
const TOPICS: [&str; 6] = ["nothing", "nothing", "nothing", "lookup", "charge", "refund"];
/// The pause between two attempts after a failure.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// The pause before a turn that is only taken because not every kind of fault has come.
const REST: Duration = Duration::from_millis(700);
/// The timeout of a turn, which is lost after it.
const TURN_MAX: Duration = Duration::from_secs(150);

/// The arrival of a frame of a turn.
pub struct Arrival {
    pub at: Instant,
    /// The turn waits for this visitor, not for a worker.
    pub parked: bool,
}

/// A connection that ended.
pub struct Loss {
    pub at: Instant,
    /// The visitor dropped the connection itself.
    pub own: bool,
}

/// A turn as its client saw it.
pub struct Seen {
    pub session: String,
    pub request_id: String,
    pub message: String,
    pub sent_at: Instant,
    pub arrivals: Vec<Arrival>,
    pub losses: Vec<Loss>,
    /// The texts of the model calls in their final form.
    pub texts: Vec<String>,
    /// Tool activity, call by call and result by result.
    pub activity: Vec<String>,
    /// The terminal frames.
    pub ends: Vec<Value>,
    pub refusals: Vec<String>,
    pub problems: Vec<String>,
    accepted: bool,
    is_sent: bool,
    /// Repeated requests, beyond the first: each may be answered with the end once more.
    repeated: u32,
    text: String,
}

/// Takes the visitor's turns, one after the other, and goes on until every kind of fault has come.
pub async fn visit(world: Arc<World>, number: usize, turns: usize, rng: StdRng) -> Vec<Seen> {
    let mut visitor = Visitor { world: world.clone(), number, rng, client: None, session: None, seq: None };
    let mut all: Vec<Seen> = Vec::new();
    for n in (0..).take_while(|n| *n < turns || !world.all_kinds.load(Ordering::Relaxed)) {
        if n >= turns {
            sleep(REST).await;
        }
        let topic = TOPICS[visitor.rng.random_range(0..TOPICS.len())];
        let mut turn = Seen::new(format!("r{n}"), format!("v{number}t{n} {topic}"));
        if timeout(TURN_MAX, visitor.take(&mut turn, all.last_mut())).await.is_err() {
            turn.problems.push("it did not end".into());
        }
        visitor.world.ended.fetch_add(1, Ordering::Relaxed);
        all.push(turn);
    }
    visitor.world.heard_at.lock().unwrap()[number] = None;
    all
}

struct Visitor {
    world: Arc<World>,
    number: usize,
    rng: StdRng,
    client: Option<Client>,
    session: Option<String>,
    /// The cursor of the last frame that came.
    seq: Option<String>,
}

impl Visitor {
    /// Takes one turn to its end, over as many connections as it needs.
    async fn take(&mut self, turn: &mut Seen, mut before: Option<&mut Seen>) {
        let mut patience = match self.rng.random_range(0..4) {
            0 => Some(tokio::time::Instant::now() + Duration::from_millis(self.rng.random_range(0..900))),
            _ => None,
        };
        while turn.ends.is_empty() && turn.problems.is_empty() {
            let dropped = async {
                match patience {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let own = tokio::select! {
                went = self.go_on(turn, &mut before) => match went {
                    Ok(()) => continue,
                    Err(Lost) => false,
                },
                () = dropped => true,
            };
            patience = patience.filter(|_| !own);
            self.client = None;
            turn.losses.push(Loss { at: Instant::now(), own });
        }
    }

    /// Goes on over one connection: until the turn's end, a pause, or the connection's loss.
    async fn go_on(&mut self, turn: &mut Seen, before: &mut Option<&mut Seen>) -> Result<(), Lost> {
        if self.client.is_none() && !self.reconnect(turn).await? {
            return Ok(());
        }
        let client = self.client.as_mut().ok_or(Lost)?;
        let Some(session) = &self.session else {
            match client.try_open_session().await? {
                Ok(session) => self.session = Some(session),
                Err(refusal) => turn.refused(&refusal, "open").await,
            }
            return Ok(());
        };
        turn.session.clone_from(session);
        if !turn.accepted {
            turn.repeated += u32::from(turn.is_sent);
            turn.is_sent = true;
            let answer = client.request(message_action(session, &turn.request_id, &turn.message)).await?;
            if let Some(seq) = answer["seq"].as_str() {
                self.seq = Some(seq.to_owned());
            }
            match kind(&answer) {
                "immediate_response" => turn.accepted = true,
                _ if code(&answer) == "AGENT_ERROR" => turn.ends.push(answer),
                _ => turn.refused(&answer, "send").await,
            }
            return Ok(());
        }
        let frame = client.next().await?;
        self.world.heard_at.lock().unwrap()[self.number] = Some(Instant::now());
        if let Some(seq) = frame["seq"].as_str() {
            self.seq = Some(seq.to_owned());
        }
        if request_id(&frame) == Some(&turn.request_id) {
            if turn.take(frame) {
                confirm(client, session, turn).await?;
            }
        } else if let Some(before) = before.as_mut().filter(|before| request_id(&frame) == Some(&before.request_id)) {
            // The first request was in flight when this connection resumed, so its end was shown before the repeated request
            // was answered with it.
            if is_terminal(&frame) && before.repeated > 0 {
                before.repeated -= 1;
            } else {
                before.problems.push(format!("a frame after its end: {frame}"));
            }
        }
        Ok(())
    }

    /// Connects to some edge and resumes. False: not now.
    async fn reconnect(&mut self, turn: &mut Seen) -> Result<bool, Lost> {
        let address = {
            let edges = self.world.edges.lock().unwrap();
            edges.get(self.rng.random_range(0..edges.len().max(1))).cloned()
        };
        let connected = match address {
            Some(address) => Client::connect(&address, Speaks::Resume).await,
            None => Err(Lost),
        };
        let Ok(mut client) = connected else {
            sleep(RETRY_EVERY).await;
            return Ok(false);
        };
        if let Some(session) = &self.session {
            let answer = client.resume_session(session, self.seq.as_deref()).await?;
            if kind(&answer) == "error" {
                turn.refused(&answer, "resume").await;
                return Ok(false);
            }
            turn.accepted |= answer["data"]["turn"]["requestId"] == turn.request_id.as_str();
        }
        self.client = Some(client);
        Ok(true)
    }
}

/// Approves the pending call. "No pending confirmation" means that an earlier approval got through.
async fn confirm(client: &mut Client, session: &str, turn: &mut Seen) -> Result<(), Lost> {
    loop {
        let answer = client.confirm(session, true).await?;
        if kind(&answer) != "error" || code(&answer) == "NO_PENDING_CONFIRMATION" {
            return Ok(());
        }
        turn.refused(&answer, "confirm").await;
        if !turn.problems.is_empty() {
            return Ok(());
        }
    }
}

impl Seen {
    fn new(request_id: String, message: String) -> Self {
        Self {
            session: String::new(),
            request_id,
            message,
            sent_at: Instant::now(),
            arrivals: Vec::new(),
            losses: Vec::new(),
            texts: Vec::new(),
            activity: Vec::new(),
            ends: Vec::new(),
            refusals: Vec::new(),
            problems: Vec::new(),
            accepted: false,
            is_sent: false,
            repeated: 0,
            text: String::new(),
        }
    }

    /// Records a refusal. Only an error of storage is allowed, which may last for a while.
    async fn refused(&mut self, refusal: &Value, what: &str) {
        let code = code(refusal);
        self.refusals.push(code.to_owned());
        if code != "STORAGE_ERROR" {
            self.problems.push(format!("{what} was refused: {refusal}"));
        }
        sleep(RETRY_EVERY).await;
    }

    /// Takes a frame of the turn; true if it asks for approval.
    fn take(&mut self, frame: Value) -> bool {
        let asks = kind(&frame) == "write_confirmation_required";
        let tool_call = frame["data"]["state"]["rawResponse"].get("toolCall").is_some();
        if kind(&frame) != "immediate_response" {
            let was_parked = self.arrivals.last().is_some_and(|last| last.parked);
            self.arrivals.push(Arrival { at: Instant::now(), parked: asks || (was_parked && tool_call) });
        }
        match kind(&frame) {
            "stream_token" => self.text.push_str(frame["token"].as_str().unwrap_or_default()),
            "stream_chunk" if frame["node"] == "turn_restarted" => self.text.clear(),
            "stream_chunk" => {
                self.activity.extend(tool_activity(std::slice::from_ref(&frame)));
                if tool_call {
                    self.finish_text();
                }
            }
            _ if is_terminal(&frame) => {
                self.finish_text();
                self.ends.push(frame);
            }
            _ => {}
        }
        asks
    }

    fn finish_text(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.texts.extend(Some(text.trim_end().to_owned()).filter(|text| !text.is_empty()));
    }
}
