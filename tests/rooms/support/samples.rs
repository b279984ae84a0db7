//! Sample events. Ids are made from small numbers, so that a failed comparison can be read.

use chrono::{DateTime, TimeDelta, Utc};
use turnstream::{
    domain::{
        Digest, Event, RecordedEvent,
        elicitation::{Elicitation, ElicitedQuestion},
        event::{
            CallRequested, FailureReason, ModelReplied, Participant, Prompt, Response, SessionOpened, ToolCalled,
            ToolReturned, TurnCompleted, TurnFailed, TurnParked, TurnReleased, TurnRequested,
        },
        interaction::Form,
    },
    ids,
    subjects::ConversationKey,
};
use uuid::Uuid;

pub const REGION: &str = "local";
pub const POOL: &str = "default";

pub fn id(n: u64) -> Uuid {
    Uuid::from_u128(n.into())
}

/// Returns second `n` of a clock that starts at the epoch.
pub fn second(n: u64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(n.try_into().unwrap())
}

/// Returns a conversation that no other test uses.
pub fn new_key(org: &str) -> ConversationKey {
    ConversationKey { region: REGION.into(), org: org.into(), conversation: ids::new_homed(0) }
}

/// Returns an event as stored in a log.
pub fn recorded(seq: u64, event: Event) -> RecordedEvent {
    RecordedEvent { seq, time: second(seq), stored_at: second(seq), digest: Digest::default(), event }
}

pub fn user() -> Participant {
    Participant { id: id(1), name: "Ada".into() }
}

pub fn agent() -> Participant {
    Participant { id: id(2), name: "Agent".into() }
}

pub fn session() -> SessionOpened {
    SessionOpened {
        session: id(3),
        agent_id: "support".into(),
        user: user(),
        agent: agent(),
        supports: None,
        user_email: None,
        email_proof: None,
        browser_fingerprint: None,
        metadata: None,
        not_after: None,
    }
}

pub fn opened() -> Event {
    Event::SessionOpened(session())
}

/// Returns the request of turn `n`, which is never too late.
pub fn request(n: u64) -> TurnRequested {
    TurnRequested {
        turn: id(n),
        session: id(3),
        request_id: format!("request-{n}"),
        message_id: id(n + 1_000),
        message: format!("question {n}"),
        images: Vec::new(),
        files: Vec::new(),
        model: None,
        stream: true,
        pool: POOL.into(),
        user: user(),
        agent: agent(),
        source: None,
        asker: None,
        agent_config: None,
        skill: None,
        not_after: second(10_000_000_000),
    }
}

pub fn requested(n: u64) -> Event {
    Event::TurnRequested(request(n))
}

/// Returns a call of a tool that is neither gated nor idempotent.
pub fn call(call: &str) -> CallRequested {
    CallRequested {
        id: call.into(),
        name: "tool".into(),
        arguments: "{}".into(),
        confirm: false,
        idempotent: false,
        description: "Does something".into(),
        ask: None,
        opaque: None,
    }
}

pub fn gated(name: &str) -> CallRequested {
    CallRequested { confirm: true, ..call(name) }
}

pub fn idempotent(name: &str) -> CallRequested {
    CallRequested { idempotent: true, ..call(name) }
}

pub fn released(n: u64, epoch: u64) -> Event {
    Event::TurnReleased(TurnReleased { turn: id(n), epoch, shown: None })
}

pub fn replied(n: u64, epoch: u64, calls: Vec<CallRequested>) -> Event {
    Event::TurnModelReplied(ModelReplied {
        turn: id(n),
        epoch,
        preamble: None,
        text: "Let me look.".into(),
        calls,
        usage: None,
        model: None,
        response_id: None,
        ended: None,
        opaque: None,
        grounding: Vec::new(),
        timing: None,
        shown: None,
    })
}

pub fn called(n: u64, epoch: u64, call: &str) -> Event {
    Event::TurnToolCalled(ToolCalled { turn: id(n), epoch, call: call.into(), name: "tool".into(), task: None })
}

pub fn returned(n: u64, epoch: u64, call: &str) -> Event {
    Event::TurnToolReturned(ToolReturned {
        turn: id(n),
        epoch,
        call: call.into(),
        name: "tool".into(),
        is_error: false,
        result: format!("result of {call}"),
        grounding: Vec::new(),
        values: None,
        otp: None,
        waiting: None,
    })
}

pub fn parked(n: u64, epoch: u64, call: &str, park: u64) -> Event {
    let (call, tool, arguments) = (call.into(), "tool".into(), "{}".into());
    let prompt = Prompt::Approval { call, tool, arguments, description: "Does something".into() };
    Event::TurnParked(TurnParked {
        turn: id(n),
        epoch,
        park: id(park),
        prompt,
        deadline: second(900),
        elicited: vec![],
    })
}

/// A park for a question of a call's server, which gives `state` along.
pub fn elicits(n: u64, epoch: u64, call: &str, park: u64, elicited: Vec<Elicitation>) -> Event {
    let form = Form::Elicitation { fields: vec![] };
    let prompt = Prompt::Elicitation { call: call.into(), tool: "tool".into(), form, reason: "Sure?".into() };
    Event::TurnParked(TurnParked { turn: id(n), epoch, park: id(park), prompt, deadline: second(900), elicited })
}

/// Questions of a call's server with these keys.
pub fn asks(call: &str, keys: &[&str], state: Option<&str>, asked: u32) -> Elicitation {
    let question = |key: &&str| ElicitedQuestion {
        key: key.to_string(),
        message: "Sure?".into(),
        form: Form::Elicitation { fields: vec![] },
        answer: None,
    };
    Elicitation {
        call: call.into(),
        questions: keys.iter().map(question).collect(),
        declined: vec![],
        request_state: state.map(str::to_owned),
        during_call: false,
        asked,
    }
}

/// The server has made a task of a call.
pub fn became_task(n: u64, epoch: u64, call: &str) -> Event {
    let (call, name, task) = (call.into(), "tool".into(), Some("task-1".into()));
    Event::TurnToolCalled(ToolCalled { turn: id(n), epoch, call, name, task })
}

/// A park for a task of a call.
pub fn waits_for_task(n: u64, epoch: u64, call: &str, park: u64) -> Event {
    let prompt = Prompt::Task { call: call.into(), tool: "tool".into() };
    Event::TurnParked(TurnParked { turn: id(n), epoch, park: id(park), prompt, deadline: second(5), elicited: vec![] })
}

pub fn completed(n: u64, epoch: u64, text: &str) -> Event {
    Event::TurnCompleted(TurnCompleted {
        turn: id(n),
        epoch,
        request_id: format!("request-{n}"),
        message_id: id(n + 2_000),
        response: Response::plain(text.into()),
        call: Some(0),
        needs_escalation: false,
        escalation_reason: None,
        workflow: None,
        preamble: None,
        citations: Vec::new(),
        usage: None,
        model: None,
        response_id: None,
        ended: None,
        user: user(),
        agent: agent(),
        timing: None,
        shown: None,
    })
}

pub fn failed(n: u64, epoch: u64) -> Event {
    Event::TurnFailed(TurnFailed {
        turn: id(n),
        epoch,
        request_id: format!("request-{n}"),
        reason: FailureReason::Model,
        detail: "no answer".into(),
        timing: None,
        shown: None,
    })
}
