//! The small words of the model, and the real commands that they stand for.
//!
//! The model's states are hashed by the hundred thousand, so an actor keeps a [`Word`] of a few bytes where the product
//! keeps a command with its texts. [`Word::command`] makes the real command, and is the only place that makes one.

use std::sync::LazyLock;

use chrono::{DateTime, Duration, Utc};
use turnstream::{
    domain::{
        Command, Conversation, Event, Turn,
        event::{
            CallRequested, FailureReason, ModelReplied, Participant, Prompt, Response, SessionOpened, ToolCalled,
            ToolReturned, TurnCompleted, TurnFailed, TurnParked, TurnReleased, TurnRequested,
        },
    },
    ids, limits,
};
use uuid::Uuid;

/// A turn, by the number of its request.
pub type TurnNo = u8;
/// A tool call: the number of its model call and its place in that reply, see [`call_no`].
pub type CallNo = u8;
/// A sequence of the log.
pub type Seq = u64;

/// The most calls of one reply.
const CALLS_MAX: u8 = 2;
/// The most requests of a world.
const TURNS_MAX: u8 = 2;

/// An append that an actor intends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    Open,
    /// `made` is the hour of the model's clock in which the client sent the request.
    Request {
        turn: TurnNo,
        made: u8,
    },
    /// `over` is the claim that the worker has seen.
    Claim {
        item: Seq,
        over: Option<Seq>,
    },
    Record {
        turn: TurnNo,
        epoch: Seq,
        what: What,
    },
    /// `park` and `seen` name parks by the epoch in which the turn parked: the park that the command binds to, and the
    /// one that the person was shown.
    Confirm {
        park: Seq,
        seen: Seq,
        approved: bool,
    },
    Expire {
        park: Seq,
    },
    Cancel {
        turn: TurnNo,
    },
    /// Ends the turn that waits at this park, for a new message.
    Supersede {
        park: Seq,
    },
}

/// A step of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    Replied(Reply),
    Called(CallNo),
    Returned(CallNo),
    /// A result without a call: refused, or unknown.
    Stated(CallNo, Statement),
    Parked(CallNo),
    Released,
    Completed,
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statement {
    Refused,
    Unknown,
}

/// The possible replies of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// The final answer.
    Answer,
    /// One call of a tool that is not idempotent.
    Once,
    /// One call of a tool that waits for approval and is not idempotent.
    Gated,
    /// A gated call, and an idempotent one without a gate.
    Both,
    /// Two gated calls.
    TwoGated,
}

impl Reply {
    /// The reply's calls: (waits for approval, may be called again).
    pub fn calls(self) -> &'static [(bool, bool)] {
        match self {
            Reply::Answer => &[],
            Reply::Once => &[(false, false)],
            Reply::Gated => &[(true, false)],
            Reply::Both => &[(true, false), (false, true)],
            Reply::TwoGated => &[(true, false), (true, false)],
        }
    }
}

/// The number of a call, which is also its id.
pub fn call_no(model_call: u32, place: usize) -> CallNo {
    model_call as u8 * CALLS_MAX + place as u8
}

fn call_id(call: CallNo) -> String {
    format!("call-{call}")
}

/// The number of a call of the turn's last reply.
pub fn number_of(call: &CallRequested) -> CallNo {
    call.id.strip_prefix("call-").and_then(|n| n.parse().ok()).expect("the model numbers its calls")
}

/// The turns' ids, as the product makes them.
static TURNS: LazyLock<Vec<Uuid>> = LazyLock::new(|| {
    (0..TURNS_MAX).map(|turn| ids::turn_id(Uuid::from_u128(1), session(), &request_id(turn), "?", &[])).collect()
});

pub fn turn_id(turn: TurnNo) -> Uuid {
    TURNS[usize::from(turn)]
}

pub fn turn_no(id: Uuid) -> TurnNo {
    TURNS.iter().position(|known| *known == id).expect("every turn is one of the world's") as TurnNo
}

fn request_id(turn: TurnNo) -> String {
    format!("request-{turn}")
}

/// The id of the park of an epoch; a turn parks at most once in an epoch.
fn park_id(epoch: Seq) -> Uuid {
    Uuid::from_u128(u128::from(epoch) << 64)
}

/// The epoch that a park's id was made from.
pub fn park_epoch(park: Uuid) -> Seq {
    (park.as_u128() >> 64) as Seq
}

fn session() -> Uuid {
    Uuid::from_u128(2)
}

fn any_participant() -> Participant {
    Participant { id: Uuid::from_u128(3), name: String::new() }
}

/// A moment in an hour of the model's clock. A request of one hour is void when it is stored in the next.
pub fn time(hour: u8) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::hours(hour.into())
}

impl Word {
    /// Returns the real command; `state` is the fold that its actor knows.
    pub fn command(self, state: &Conversation) -> Command {
        match self {
            Word::Open => Command::Open(SessionOpened {
                session: session(),
                agent_id: String::new(),
                user: any_participant(),
                agent: any_participant(),
                supports: None,
                user_email: None,
                email_proof: None,
                browser_fingerprint: None,
                metadata: None,
                not_after: None,
            }),
            Word::Request { turn, made } => Command::Request(request(turn, made)),
            Word::Claim { item, over } => Command::Claim { item, worker: Uuid::from_u128(4), over },
            Word::Record { turn, epoch, what } => {
                let event = event(turn, epoch, what, state.turn.as_ref());
                Command::Record { turn: turn_id(turn), epoch, event }
            }
            Word::Confirm { park, approved, .. } => Command::Confirm { park: park_id(park), approved, by: session() },
            Word::Expire { park } => Command::Expire { park: park_id(park) },
            Word::Cancel { turn } => Command::Cancel { turn: turn_id(turn), by: session() },
            Word::Supersede { park } => Command::Supersede { park: park_id(park), by: session() },
        }
    }
}

fn request(turn: TurnNo, made: u8) -> TurnRequested {
    TurnRequested {
        turn: turn_id(turn),
        session: session(),
        request_id: request_id(turn),
        message_id: Uuid::from_u128(5),
        message: "?".into(),
        images: Vec::new(),
        files: Vec::new(),
        model: None,
        stream: true,
        pool: "default".into(),
        user: any_participant(),
        agent: any_participant(),
        source: None,
        asker: None,
        agent_config: None,
        skill: None,
        not_after: time(made) + Duration::milliseconds(limits::ACT_NOT_AFTER_MS),
    }
}

/// Returns the event of a step. `state` is the turn as its worker knows it.
fn event(turn: TurnNo, epoch: Seq, what: What, state: Option<&Turn>) -> Event {
    let id = turn_id(turn);
    let returned = |call: CallNo, result: &str| {
        Event::TurnToolReturned(ToolReturned {
            turn: id,
            epoch,
            call: call_id(call),
            name: String::new(),
            is_error: false,
            result: result.into(),
            grounding: Vec::new(),
            values: None,
            otp: None,
            waiting: None,
        })
    };
    match what {
        What::Replied(reply) => {
            Event::TurnModelReplied(model_replied(id, epoch, reply, state.map_or(0, Turn::model_calls)))
        }
        What::Called(call) => {
            Event::TurnToolCalled(ToolCalled { turn: id, epoch, call: call_id(call), name: String::new(), task: None })
        }
        What::Returned(call) => returned(call, "done"),
        What::Stated(call, Statement::Refused) => returned(call, "refused"),
        What::Stated(call, Statement::Unknown) => returned(call, "unknown"),
        What::Parked(call) => Event::TurnParked(TurnParked {
            turn: id,
            epoch,
            park: park_id(epoch),
            prompt: Prompt::Approval {
                call: call_id(call),
                tool: String::new(),
                arguments: String::new(),
                description: String::new(),
            },
            deadline: time(1),
            elicited: Vec::new(),
        }),
        What::Released => Event::TurnReleased(TurnReleased { turn: id, epoch, shown: None }),
        What::Completed => Event::TurnCompleted(completed(id, epoch, turn)),
        What::GivenUp => Event::TurnFailed(TurnFailed {
            turn: id,
            epoch,
            request_id: request_id(turn),
            reason: FailureReason::Poison,
            detail: String::new(),
            timing: None,
            shown: None,
        }),
    }
}

fn model_replied(turn: Uuid, epoch: Seq, reply: Reply, model_call: u32) -> ModelReplied {
    let calls = reply.calls().iter().enumerate().map(|(place, (confirm, idempotent))| CallRequested {
        id: call_id(call_no(model_call, place)),
        name: String::new(),
        arguments: String::new(),
        confirm: *confirm,
        idempotent: *idempotent,
        description: String::new(),
        ask: None,
        opaque: None,
    });
    ModelReplied {
        turn,
        epoch,
        preamble: None,
        text: String::new(),
        calls: calls.collect(),
        usage: None,
        model: None,
        response_id: None,
        ended: None,
        opaque: None,
        grounding: Vec::new(),
        timing: None,
        shown: None,
    }
}

fn completed(turn: Uuid, epoch: Seq, number: TurnNo) -> TurnCompleted {
    TurnCompleted {
        turn,
        epoch,
        request_id: request_id(number),
        message_id: Uuid::from_u128(6),
        response: Response::plain("!".into()),
        call: None,
        needs_escalation: false,
        escalation_reason: None,
        workflow: None,
        preamble: None,
        citations: Vec::new(),
        usage: None,
        model: None,
        response_id: None,
        ended: None,
        user: any_participant(),
        agent: any_participant(),
        timing: None,
        shown: None,
    }
}
