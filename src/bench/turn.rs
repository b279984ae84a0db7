//! One turn as its client sees it: the times of its frames, and its faults.
//!
//! Contract: `take` gets every frame that carries the turn's request id, in order. After `finish`, `faults` is empty exactly
//! when the turn had its 202 first, each token once and in order, one terminal frame, and a reply equal to the streamed text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fault::Fault;
use super::plan::{TurnPlan, marks};
use super::wire::{ReceivedFrame, ReplyData};

/// Tokens and frames that all streams of a load have received so far.
#[derive(Debug, Default)]
pub struct StreamTally {
    pub tokens: AtomicU64,
    pub frames: AtomicU64,
}

/// A turn being read, with the times of its frames and its faults.
#[derive(Debug)]
pub struct BenchTurn {
    pub plan: TurnPlan,
    pub sent_ns: u64,
    pub accepted_ns: Option<u64>,
    pub first_token_ns: Option<u64>,
    pub ended_ns: Option<u64>,
    /// For each token, the time from the gateway's write to this client's read.
    pub token_delays_ns: Vec<u64>,
    pub faults: Vec<Fault>,
    next_index: u32,
    streamed: String,
    reply: Option<String>,
    tally: Arc<StreamTally>,
}

impl BenchTurn {
    /// Creates a turn before its message is sent.
    pub fn new(plan: TurnPlan, sent_ns: u64, tally: Arc<StreamTally>) -> BenchTurn {
        BenchTurn {
            plan,
            sent_ns,
            accepted_ns: None,
            first_token_ns: None,
            ended_ns: None,
            token_delays_ns: Vec::with_capacity(plan.tokens as usize),
            faults: Vec::new(),
            next_index: 0,
            streamed: String::new(),
            reply: None,
            tally,
        }
    }

    /// Creates a turn that another connection requests, so that no 202 comes here.
    pub fn watched(plan: TurnPlan, now_ns: u64, tally: Arc<StreamTally>) -> BenchTurn {
        BenchTurn { accepted_ns: Some(now_ns), ..BenchTurn::new(plan, now_ns, tally) }
    }

    /// Takes one frame of this turn that was read at `now_ns`.
    pub fn take(&mut self, frame: &ReceivedFrame<'_>, now_ns: u64) {
        if self.ended_ns.is_some() {
            self.faults.push(Fault::AfterTerminal(frame.kind.to_string()));
            return;
        }
        let is_answer = matches!(&*frame.kind, "immediate_response" | "error");
        if self.accepted_ns.is_none() && !is_answer {
            self.faults.push(Fault::BeforeAccepted(frame.kind.to_string()));
        }
        match &*frame.kind {
            "immediate_response" => self.accept(frame, now_ns),
            "stream_token" => self.take_tokens(frame.token.as_deref().unwrap_or_default(), now_ns),
            "eventual_response" => self.take_reply(frame, now_ns),
            "error" => {
                let error = frame.error.as_ref();
                let (code, message) = error.map_or(("?", "?"), |e| (&e.code, &e.message));
                self.faults.push(Fault::TurnFailed(format!("{code}: {message}")));
                self.ended_ns = Some(now_ns);
            }
            "cancelled" => {
                self.faults.push(Fault::TurnFailed("cancelled".to_owned()));
                self.ended_ns = Some(now_ns);
            }
            "keepalive" | "stream_chunk" | "stream_reasoning" | "stream_preamble" => {}
            other => self.faults.push(Fault::Unexpected(other.to_owned())),
        }
    }

    /// Checks the whole turn, unless it has faults already: one mistake of a server must not be reported as three.
    pub fn finish(&mut self) {
        let (expected, got) = (self.plan.tokens, self.next_index);
        let fault = match &self.reply {
            _ if self.ended_ns.is_none() => Fault::NoTerminal,
            _ if !self.faults.is_empty() => return,
            _ if got != expected => Fault::TokensWrong { expected, got },
            // Servers may trim the ends of a streamed reply.
            Some(reply) if reply.trim() == self.streamed.trim() => return,
            _ => Fault::ReplyDiffers,
        };
        self.faults.push(fault);
    }

    fn accept(&mut self, frame: &ReceivedFrame<'_>, now_ns: u64) {
        if self.accepted_ns.is_some() {
            self.faults.push(Fault::Unexpected("a second 202".to_owned()));
        } else if frame.status != Some(202) {
            let status = frame.status.unwrap_or_default();
            self.faults.push(Fault::BadAnswer(format!("send_message answered {status}")));
        }
        self.accepted_ns.get_or_insert(now_ns);
    }

    fn take_tokens(&mut self, text: &str, now_ns: u64) {
        self.first_token_ns.get_or_insert(now_ns);
        self.streamed.push_str(text);
        let mut count = 0;
        for mark in marks(text) {
            let Some(mark) = mark else {
                self.faults.push(Fault::TokenGarbled(text.chars().take(80).collect()));
                continue;
            };
            count += 1;
            let (expected, got) = (self.next_index, mark.index);
            if got < expected {
                self.faults.push(Fault::TokenRepeated { expected, got });
                continue;
            }
            if got > expected {
                self.faults.push(Fault::TokenMissing { expected, got });
            }
            self.next_index = got.saturating_add(1);
            self.token_delays_ns.push(now_ns.saturating_sub(mark.sent_ns));
        }
        self.tally.tokens.fetch_add(count, Ordering::Relaxed);
        self.tally.frames.fetch_add(1, Ordering::Relaxed);
    }

    fn take_reply(&mut self, frame: &ReceivedFrame<'_>, now_ns: u64) {
        self.ended_ns = Some(now_ns);
        let reply = frame.data.map(|data| serde_json::from_str::<ReplyData>(data.get()));
        match reply {
            Some(Ok(reply)) => self.reply = Some(reply.text()),
            Some(Err(error)) => self.faults.push(Fault::BadAnswer(error.to_string())),
            None => self.faults.push(Fault::BadAnswer("a reply without data".to_owned())),
        }
    }
}
