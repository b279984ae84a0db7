//! Faults of a server, and their count.
//!
//! Contract: a fault is one mistake that a healthy client would have noticed. Every fault is counted; only the first few keep
//! their text.

use std::fmt;

/// Texts kept by one log.
const KEPT: usize = 5;

/// One violation of the protocol, or a failure to get any answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection, or no handshake.
    Connect(String),
    /// The connection ended while an answer was due.
    Closed(String),
    /// No frame came in time.
    Silent(&'static str),
    /// An `error` frame instead of the answer.
    Refused { code: String, message: String },
    /// The answer's content is wrong.
    BadAnswer(String),
    /// An unsolicited frame, or one out of order.
    Unexpected(String),
    /// Tokens were skipped.
    TokenMissing { expected: u32, got: u32 },
    /// A token came again, or late.
    TokenRepeated { expected: u32, got: u32 },
    /// A piece of text that is not a token.
    TokenGarbled(String),
    /// The turn ended with fewer tokens than the model wrote, or with more.
    TokensWrong { expected: u32, got: u32 },
    /// A frame of the turn came before its 202.
    BeforeAccepted(String),
    /// The turn never ended.
    NoTerminal,
    /// A frame of a turn that had ended.
    AfterTerminal(String),
    /// The turn ended without its reply.
    TurnFailed(String),
    /// The final text differs from the streamed text.
    ReplyDiffers,
    /// The gateway never saw a finished turn's model call.
    NoModelCall,
    /// A watched process has ended.
    ProcessGone(String),
}

impl Fault {
    /// Returns true if the connection can't be used any more.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Fault::Connect(_) | Fault::Closed(_) | Fault::Silent(_) | Fault::NoTerminal)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Connect(why) => write!(f, "cannot connect: {why}"),
            Fault::Closed(why) => write!(f, "connection closed: {why}"),
            Fault::Silent(what) => write!(f, "no answer to {what} in time"),
            Fault::Refused { code, message } => write!(f, "refused with {code}: {message}"),
            Fault::BadAnswer(what) => write!(f, "wrong answer: {what}"),
            Fault::Unexpected(what) => write!(f, "unexpected frame: {what}"),
            Fault::TokenMissing { expected, got } => {
                write!(f, "missing token: expected {expected}, got {got}")
            }
            Fault::TokenRepeated { expected, got } => {
                write!(f, "repeated token: expected {expected}, got {got}")
            }
            Fault::TokenGarbled(text) => write!(f, "garbled token: {text:?}"),
            Fault::TokensWrong { expected, got } => {
                write!(f, "the turn ended after {got} of {expected} tokens")
            }
            Fault::BeforeAccepted(kind) => write!(f, "{kind} before the 202"),
            Fault::NoTerminal => write!(f, "missing terminal frame"),
            Fault::AfterTerminal(kind) => write!(f, "{kind} after the terminal frame"),
            Fault::TurnFailed(how) => write!(f, "turn failed: {how}"),
            Fault::ReplyDiffers => write!(f, "the final text is not the streamed text"),
            Fault::NoModelCall => {
                write!(f, "no model call; does the server use this gateway?")
            }
            Fault::ProcessGone(name) => write!(f, "process {name} has ended"),
        }
    }
}

/// Counts faults and keeps the first texts.
#[derive(Clone, Debug, Default)]
pub struct FaultLog {
    pub count: u64,
    pub first: Vec<String>,
}

impl FaultLog {
    pub fn add(&mut self, fault: &Fault) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(fault.to_string());
        }
    }

    pub fn merge(&mut self, other: FaultLog) {
        self.count += other.count;
        let room = KEPT.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
    }
}
