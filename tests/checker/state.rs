//! A state of the model: the log, the queue of work items, the workers, the edges, the network.

use std::hash::{Hash, Hasher};

use crate::{
    invariants::{Broken, Invariant},
    log::{Deciding, Id, Log, Pending},
    people::Edge,
    words::{CallNo, Seq, TurnNo, Word},
    worker::Run,
};

/// The faults that may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A worker's process dies.
    pub crashes: u8,
    /// A worker is told to stop and gives its turn back.
    pub hand_overs: u8,
    /// A worker is too slow for its item's ack wait, so the item is redelivered while the worker is still running.
    pub pauses: u8,
    /// A request to the log is held up: it arrives later, or never, and its sender does not know.
    pub delays: u8,
    /// The clock moves on, past the `not_after` of all earlier requests.
    pub hours: u8,
    /// A deadline fires although it was settled.
    pub echoes: u8,
}

/// A work item in its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub seq: Seq,
    pub acked: bool,
    /// Deliverable now: new, or given back.
    pub ready: bool,
    pub deliveries: u8,
}

/// The deadline of a park, set in the log's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    pub park: Seq,
    /// Not acked: its message is delivered again and again.
    pub pending: bool,
    pub fired: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub log: Log,
    pub queue: Vec<Item>,
    pub runs: [Run; 2],
    pub edges: [Edge; 2],
    /// The deadline that a worker is turning into an event.
    pub due: Option<Deciding>,
    pub timers: Vec<Timer>,
    /// Requests to the log that are held up.
    pub network: Vec<Pending>,
    pub faults: Faults,
    /// Deeds of people that were begun, and requests that were answered with 202: a bit for each.
    pub begun: u16,
    pub accepted: u8,
    /// Calls of tools that are not idempotent: a bit for each.
    pub called: u64,
    pub hour: u8,
    /// No part of the system has anything left to do.
    pub quiet: bool,
    broken: Broken,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { log, queue, runs, edges, due, timers, network, faults, .. } = self;
        (log, queue, runs, edges, due, timers, network, faults).hash(state);
        (self.begun, self.accepted, self.called, self.hour, self.quiet, self.broken).hash(state);
    }
}

impl State {
    pub fn new(faults: Faults) -> Self {
        Self {
            log: Log::default(),
            queue: Vec::new(),
            runs: [Run::Idle; 2],
            edges: [Edge::Idle; 2],
            due: None,
            timers: Vec::new(),
            network: Vec::new(),
            faults,
            begun: 0,
            accepted: 0,
            called: 0,
            hour: 0,
            quiet: false,
            broken: Broken::default(),
        }
    }

    pub fn has_broken(&self, invariant: Invariant) -> bool {
        self.broken.has(invariant) || self.log.broken().has(invariant)
    }

    pub fn note(&mut self, invariant: Invariant) {
        self.broken.note(invariant);
    }

    /// Queues the log's last event, if it is a work item and new.
    pub fn queue_last(&mut self) {
        let is_item = self.log.last_recorded().is_some_and(|last| last.event.pool().is_some());
        let seq = self.log.last();
        if is_item && self.queue.last().is_none_or(|item| item.seq < seq) {
            self.queue.push(Item { seq, acked: false, ready: true, deliveries: 0 });
        }
    }

    /// Returns the same state for every order of the slots, which have no names.
    pub fn canonical(mut self) -> Self {
        self.runs.sort_unstable();
        self.edges.sort_unstable();
        self.network.sort_unstable();
        self.timers.sort_unstable();
        self
    }

    pub fn item(&mut self, seq: Seq) -> &mut Item {
        self.queue.iter_mut().find(|item| item.seq == seq).expect("a run's item was delivered")
    }

    /// Acks an item, and checks that this is right.
    pub fn ack(&mut self, seq: Seq) {
        let facts = self.log.facts();
        let waits = facts.pending_park().is_some_and(|park| self.has_timer(park));
        if facts.item() == Some(seq) && !waits {
            self.note(Invariant::AcksWait);
        }
        self.item(seq).acked = true;
    }

    /// Returns whether the deadline of a park is set and still pending.
    fn has_timer(&self, park: Seq) -> bool {
        self.timers.iter().any(|timer| timer.park == park && timer.pending)
    }

    /// Sets a deadline, perhaps again.
    pub fn schedule(&mut self, park: Seq) {
        match self.timers.iter_mut().find(|timer| timer.park == park) {
            Some(timer) => timer.pending = true,
            None => self.timers.push(Timer { park, pending: true, fired: 0 }),
        }
    }

    /// Calls a tool.
    pub fn call(&mut self, turn: TurnNo, call: CallNo, confirm: bool, idempotent: bool) {
        let bit = 1 << (turn * 16 + call);
        if !idempotent && self.called & bit != 0 {
            self.note(Invariant::CalledOnce);
        }
        if !idempotent {
            self.called |= bit;
        }
        if confirm && !self.log.facts().is_approved(turn, call) {
            self.note(Invariant::OwnApproval);
        }
    }

    /// Sends a 202.
    pub fn accept(&mut self, turn: TurnNo) {
        self.accepted |= 1 << turn;
        if !self.log.facts().is_requested(turn) {
            self.note(Invariant::TrueAccept);
        }
    }

    /// Judges a state from which only people, deadlines and faults can go on: every open turn must wait with its
    /// deadline set.
    pub fn judge_quiet(&mut self) {
        self.quiet = true;
        let facts = self.log.facts();
        let waits = facts.pending_park().is_some_and(|park| self.has_timer(park));
        let is_open = |turn: &TurnNo| facts.is_requested(*turn) && !facts.has_ended(*turn);
        if (0..8).any(|turn| is_open(&turn) && !(facts.active() == Some(turn) && waits)) {
            self.note(Invariant::NothingLost);
        }
    }

    /// Returns the requests that are under way.
    pub fn pendings(&self) -> impl Iterator<Item = Pending> {
        let runs = self.runs.iter().filter_map(Run::deciding);
        let edges = self.edges.iter().filter_map(Edge::deciding);
        runs.chain(edges).map(|deciding| deciding.pending).chain(self.network.iter().copied())
    }

    /// Returns whether a request of this hour is not yet stored.
    pub fn asks_now(&self) -> bool {
        self.pendings().any(|pending| matches!(pending.word, Word::Request { made, .. } if made == self.hour))
    }

    /// Returns the id of a deadline's next firing.
    pub fn fire(&mut self, park: Seq) -> Id {
        let timer = self.timers.iter_mut().find(|timer| timer.park == park).expect("a deadline that comes was set");
        timer.fired += 1;
        Id::Due(park, timer.fired)
    }
}
