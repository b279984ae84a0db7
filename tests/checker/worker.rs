//! A worker's run of one work item: `worker::run` with its steps, cut where a crash or another actor can come between.

use turnstream::domain::{CallState, NextStep, Turn, next_step};

use crate::{
    log::{Deciding, Id, Log, Stop},
    model::Rules,
    mutation::Mutation,
    state::State,
    words::{self, CallNo, Reply, Seq, Statement, TurnNo, What, Word},
};

/// A slot for a run. Crashed, fenced and finished runs leave the slot idle; the process behind it does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Run {
    Idle,
    Busy(Driver),
}

/// The memory of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Driver {
    pub item: Seq,
    delivery: u8,
    turn: TurnNo,
    epoch: Seq,
    decisions: u8,
    /// The end of the log whose fold the run knows.
    at: Seq,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Appending(Deciding, Then),
    /// The model has been asked.
    Asking,
    /// Every intent is in the log; the calls come next. Calls are bits: places in the last reply.
    Intended(u8),
    /// The tools have been called; some answers are to come.
    Awaiting(u8),
    /// The turn is parked; its deadline is to be set.
    Scheduling(Seq),
    /// The item is to be acked.
    Done,
}

/// The continuation after an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Then {
    Claimed,
    Step,
    /// More intents, then these calls.
    Intents(u8),
    /// More answers.
    Answers(u8),
    Schedule,
    /// The item is given back.
    GiveBack,
    Done,
}

/// The exit of a lost run: acks its item, or leaves it un-acked.
enum Exit {
    Done,
    Silent,
}

impl Run {
    pub fn deciding(&self) -> Option<&Deciding> {
        match self {
            Run::Busy(Driver { phase: Phase::Appending(deciding, _), .. }) => Some(deciding),
            _ => None,
        }
    }

    pub fn deciding_mut(&mut self) -> Option<&mut Deciding> {
        match self {
            Run::Busy(Driver { phase: Phase::Appending(deciding, _), .. }) => Some(deciding),
            _ => None,
        }
    }

    /// Returns whether the run waits for the model or for tools, with an eye on the log.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Run::Busy(Driver { phase: Phase::Asking | Phase::Awaiting(_), .. }))
    }

    /// Returns whether the log has events that the run has not seen.
    pub fn may_look(&self, last: Seq) -> bool {
        self.is_waiting() && matches!(self, Run::Busy(driver) if driver.at < last)
    }

    /// The item that the run was given.
    pub fn item(&self) -> Option<Seq> {
        match self {
            Run::Busy(driver) => Some(driver.item),
            Run::Idle => None,
        }
    }
}

pub fn places(calls: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |place| calls & (1 << place) != 0)
}

/// The calls of a turn's last reply.
fn calls_of(turn: &Turn) -> &[CallState] {
    turn.replies.last().map_or(&[], |reply| &reply.calls)
}

/// An item is delivered: load, look, claim.
pub fn deliver(rules: &Rules, state: &mut State, item: Seq) -> Run {
    let delivery = state.item(item).deliveries;
    let at = state.log.last();
    let mut driver = Driver { item, delivery, turn: 0, epoch: 0, decisions: 0, at, phase: Phase::Done };
    let fold = state.log.fold();
    let Some(turn) = fold.turn.as_ref().filter(|turn| turn.item == item) else { return Run::Busy(driver) };
    driver.turn = words::turn_no(turn.request.turn);
    let over = turn.epoch;
    if let Some(park) = &turn.park {
        driver.phase = Phase::Scheduling(words::park_epoch(park.id));
        return Run::Busy(driver);
    }
    let log = state.log.clone();
    driver.append(rules, &log, Word::Claim { item, over }, Then::Claimed)
}

impl Driver {
    /// Takes one of the steps of the current phase; `choice` selects it where there are several.
    pub fn step(mut self, rules: &Rules, state: &mut State, choice: u8) -> Run {
        match self.phase {
            Phase::Appending(deciding, then) => self.send(rules, state, deciding, then),
            Phase::Asking => unreachable!("the model answers by `reply`"),
            Phase::Intended(calls) => {
                for (call, confirm, idempotent) in self.requests(&state.log, calls) {
                    state.call(self.turn, call, confirm, idempotent);
                }
                self.phase = Phase::Awaiting(calls);
                Run::Busy(self)
            }
            Phase::Awaiting(calls) => {
                let log = state.log.clone();
                let (call, ..) = self.requests(&log, 1 << choice)[0];
                let then = Then::Answers(calls & !(1 << choice));
                self.record(rules, &log, What::Returned(call), then)
            }
            Phase::Scheduling(park) => {
                state.schedule(park);
                self.phase = Phase::Done;
                Run::Busy(self)
            }
            Phase::Done => {
                state.ack(self.item);
                Run::Idle
            }
        }
    }

    /// The model answers.
    pub fn reply(self, rules: &Rules, state: &State, reply: Reply) -> Run {
        let (what, then) = match reply {
            Reply::Answer => (What::Completed, Then::Done),
            reply => (What::Replied(reply), Then::Step),
        };
        self.record(rules, &state.log, what, then)
    }

    /// The worker stops: it records that in the log, then gives the item back.
    pub fn release(self, rules: &Rules, state: &State) -> Run {
        self.record(rules, &state.log, What::Released, Then::GiveBack)
    }

    /// Looks at the log while the run waits for the model or for tools.
    pub fn look(mut self, rules: &Rules, state: &State) -> Run {
        match &state.log.fold().turn {
            Some(turn) if turn.request.turn == words::turn_id(self.turn) && turn.epoch == Some(self.epoch) => {
                self.at = state.log.last();
                Run::Busy(self)
            }
            _ => self.exit(rules, &state.log),
        }
    }

    /// The run's turn as it knows it, while it is the active one.
    fn turn<'a>(&self, log: &'a Log) -> Option<&'a Turn> {
        let turn = log.at(self.at).fold().turn.as_ref();
        turn.filter(|turn| turn.request.turn == words::turn_id(self.turn))
    }

    /// Number, gate and idempotence of calls of the last reply.
    fn requests(&self, log: &Log, calls: u8) -> Vec<(CallNo, bool, bool)> {
        let last = calls_of(self.turn(log).expect("a run calls tools of its active turn"));
        let request = |place: usize| &last[place].request;
        places(calls).map(request).map(|call| (words::number_of(call), call.confirm, call.idempotent)).collect()
    }

    fn record(self, rules: &Rules, log: &Log, what: What, then: Then) -> Run {
        let word = Word::Record { turn: self.turn, epoch: self.epoch, what };
        self.append(rules, log, word, then)
    }

    fn append(mut self, rules: &Rules, log: &Log, word: Word, then: Then) -> Run {
        let id = Id::Run { item: self.item, delivery: self.delivery, decision: self.decisions };
        self.decisions += 1;
        match Deciding::start(log, self.at, id, word) {
            Ok(deciding) => {
                self.phase = Phase::Appending(deciding, then);
                Run::Busy(self)
            }
            Err(_) => self.exit(rules, log),
        }
    }

    fn send(mut self, rules: &Rules, state: &mut State, mut deciding: Deciding, then: Then) -> Run {
        match deciding.append(&rules.server, &mut state.log, state.hour) {
            None => {
                self.phase = Phase::Appending(deciding, then);
                Run::Busy(self)
            }
            Some(Ok(seq)) => {
                state.queue_last();
                self.at = seq;
                self.after(rules, state, then)
            }
            Some(Err(Stop::Refused)) => self.exit(rules, &state.log),
            Some(Err(Stop::Contended)) => Run::Idle,
        }
    }

    /// Continues after an append.
    fn after(mut self, rules: &Rules, state: &mut State, then: Then) -> Run {
        let log = state.log.clone();
        if then != Then::Done && self.turn(&log).is_none() {
            return self.exit(rules, &log);
        }
        match then {
            Then::Claimed => {
                self.epoch = self.at;
                if rules.server.mutation == Some(Mutation::AckFirst) {
                    state.ack(self.item);
                }
                self.next(rules, &log)
            }
            Then::Step | Then::Answers(0) => self.next(rules, &log),
            Then::Intents(calls) => self.intend(rules, &log, calls),
            Then::Answers(calls) => {
                self.phase = Phase::Awaiting(calls);
                Run::Busy(self)
            }
            Then::Schedule => {
                self.phase = Phase::Scheduling(self.epoch);
                Run::Busy(self)
            }
            Then::GiveBack => {
                state.item(self.item).ready = true;
                Run::Idle
            }
            Then::Done => {
                self.phase = Phase::Done;
                Run::Busy(self)
            }
        }
    }

    /// Asks the core for the next step on the fold that the run knows, and begins it.
    fn next(mut self, rules: &Rules, log: &Log) -> Run {
        let turn = self.turn(log).expect("a run asks for the next step of its active turn");
        let place = |id: &str| {
            let place = calls_of(turn).iter().position(|call| call.request.id == id);
            place.expect("the core names calls of the last reply")
        };
        let step = match next_step(turn, rules.max_model_calls) {
            NextStep::StateUnknown(call) if rules.server.mutation == Some(Mutation::CalledAgain) => {
                NextStep::CallTools(vec![call])
            }
            step => step,
        };
        let (what, then) = match step {
            NextStep::CallModel => {
                self.phase = Phase::Asking;
                return Run::Busy(self);
            }
            NextStep::CallTools(calls) => {
                let calls = calls.iter().fold(0, |bits, call| bits | 1 << place(&call.id));
                return self.intend(rules, log, calls);
            }
            NextStep::Wait => {
                self.phase = Phase::Done;
                return Run::Busy(self);
            }
            NextStep::StateRefused(call, _) | NextStep::StateAnswer(call, ..) | NextStep::StateCut(call, _) => {
                (What::Stated(words::number_of(&call), Statement::Refused), Then::Step)
            }
            NextStep::StateUnknown(call) => (What::Stated(words::number_of(&call), Statement::Unknown), Then::Step),
            // No server of these rules asks anything.
            NextStep::Elicit(call, _) | NextStep::Park(call) => (What::Parked(words::number_of(&call)), Then::Schedule),
            NextStep::EndAtCap => (What::Completed, Then::Done),
            NextStep::GiveUp => (What::GivenUp, Then::Done),
        };
        self.record(rules, log, what, then)
    }

    /// Records the next intent that is not in the log yet; when all are, makes the calls.
    fn intend(mut self, rules: &Rules, log: &Log, calls: u8) -> Run {
        let last = calls_of(self.turn(log).expect("a run calls tools of its active turn"));
        match places(calls).map(|place| &last[place]).find(|call| !call.called) {
            Some(call) => {
                let what = What::Called(words::number_of(&call.request));
                self.record(rules, log, what, Then::Intents(calls))
            }
            None => {
                self.phase = Phase::Intended(calls);
                Run::Busy(self)
            }
        }
    }

    /// Leaves a lost turn: acks the item if it no longer drives a turn, else is silent.
    fn exit(mut self, rules: &Rules, log: &Log) -> Run {
        match self.lost(rules, log) {
            Exit::Done => {
                self.phase = Phase::Done;
                Run::Busy(self)
            }
            Exit::Silent => Run::Idle,
        }
    }

    fn lost(&self, rules: &Rules, log: &Log) -> Exit {
        let turn = log.fold().turn.as_ref().filter(|turn| turn.item == self.item);
        match (turn, rules.server.mutation) {
            (_, Some(Mutation::FencedAcks)) => Exit::Done,
            (Some(turn), Some(Mutation::ParkTaken)) if turn.park.is_some() => Exit::Done,
            (Some(_), _) => Exit::Silent,
            (None, _) => Exit::Done,
        }
    }
}
