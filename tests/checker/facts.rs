//! A second, smaller reading of the log: the judge of the real fold.
//!
//! The reading shares no code with `domain`, knows only ids and numbers, and notes every event that should not have
//! been appended.

use turnstream::domain::{Conversation, Event, RecordedEvent, event::Resolution};
use uuid::Uuid;

use crate::{
    invariants::{Broken, Invariant},
    words::{self, CallNo, Seq, TurnNo},
};

/// A log's facts.
#[derive(Clone, Default)]
pub struct Facts {
    /// Turns that were requested and are not void, and turns that have ended: a bit for each turn.
    requested: u8,
    ended: u8,
    active: Option<Active>,
    parks: Vec<Park>,
    /// The number of claims of the active turn's item that were not given back.
    pub claims: u32,
    pub void_requests: u32,
}

#[derive(Clone)]
struct Active {
    turn: TurnNo,
    item: Seq,
    epoch: Option<Seq>,
    park: Option<Seq>,
}

#[derive(Clone)]
struct Park {
    turn: TurnNo,
    epoch: Seq,
    call: CallNo,
    resolution: Option<Resolution>,
}

const fn bit(turn: TurnNo) -> u8 {
    1 << turn
}

impl Facts {
    pub fn is_requested(&self, turn: TurnNo) -> bool {
        self.requested & bit(turn) != 0
    }

    pub fn has_ended(&self, turn: TurnNo) -> bool {
        self.ended & bit(turn) != 0
    }

    pub fn active(&self) -> Option<TurnNo> {
        self.active.as_ref().map(|active| active.turn)
    }

    /// The item that drives the active turn.
    pub fn item(&self) -> Option<Seq> {
        self.active.as_ref().map(|active| active.item)
    }

    /// The park that waits for a person, by its epoch.
    pub fn pending_park(&self) -> Option<Seq> {
        self.active.as_ref()?.park
    }

    /// All parks so far, by their epochs.
    pub fn parks(&self) -> impl Iterator<Item = Seq> {
        self.parks.iter().map(|park| park.epoch)
    }

    /// Returns whether a person approved this call when asked about it.
    pub fn is_approved(&self, turn: TurnNo, call: CallNo) -> bool {
        let own = |park: &&Park| park.turn == turn && park.call == call;
        self.parks.iter().find(own).is_some_and(|park| park.resolution == Some(Resolution::Approved))
    }

    pub fn has_resolution(&self, resolution: Resolution) -> bool {
        self.parks.iter().any(|park| park.resolution == Some(resolution))
    }

    /// Reads the next event.
    pub fn take(&mut self, recorded: &RecordedEvent, broken: &mut Broken) {
        let seq = recorded.seq;
        match &recorded.event {
            Event::SessionOpened(_)
            | Event::SessionIdentified(_)
            | Event::ConversationRenamed(_)
            | Event::Erased(_)
            | Event::Unreadable(_) => {}
            Event::TurnRequested(e) if recorded.stored_at > e.not_after => self.void_requests += 1,
            Event::TurnRequested(e) => {
                let turn = words::turn_no(e.turn);
                if self.active.is_some() || self.is_requested(turn) {
                    broken.note(Invariant::OneActive);
                }
                self.requested |= bit(turn);
                self.active = Some(Active { turn, item: seq, epoch: None, park: None });
                self.claims = 0;
            }
            Event::TurnStarted(e) => {
                let item = e.item;
                if let Some(active) = self.own(e.turn, broken) {
                    if active.item != item || active.park.is_some() {
                        broken.note(Invariant::FencedAreSilent);
                    }
                    active.epoch = Some(seq);
                    self.claims += 1;
                }
            }
            Event::TurnReleased(e) => {
                self.by_worker(e.turn, e.epoch, broken);
                if let Some(active) = self.own(e.turn, broken) {
                    active.epoch = None;
                    self.claims -= 1;
                }
            }
            Event::TurnModelReplied(e) => self.by_worker(e.turn, e.epoch, broken),
            Event::TurnToolCalled(e) => self.by_worker(e.turn, e.epoch, broken),
            Event::TurnToolReturned(e) => self.by_worker(e.turn, e.epoch, broken),
            Event::TurnParked(e) => {
                self.by_worker(e.turn, e.epoch, broken);
                let epoch = words::park_epoch(e.park);
                let call =
                    e.prompt.call().strip_prefix("call-").and_then(|n| n.parse().ok()).expect("calls are numbered");
                if let Some(active) = self.own(e.turn, broken) {
                    active.park = Some(epoch);
                    let turn = active.turn;
                    self.parks.push(Park { turn, epoch, call, resolution: None });
                }
            }
            Event::TurnResumed(e) => {
                let epoch = words::park_epoch(e.park);
                if let Some(active) = self.own(e.turn, broken) {
                    if active.park != Some(epoch) {
                        broken.note(Invariant::DecisionsBind);
                    }
                    *active = Active { item: seq, epoch: None, park: None, ..active.clone() };
                    self.claims = 0;
                    let park = self.parks.iter_mut().find(|park| park.epoch == epoch);
                    park.expect("a park is resolved after it was made").resolution = Some(e.resolution);
                }
            }
            Event::TurnCompleted(e) => self.end_by_worker(e.turn, e.epoch, broken),
            Event::TurnFailed(e) => self.end_by_worker(e.turn, e.epoch, broken),
            Event::TurnCancelled(e) => self.end(e.turn, broken),
        }
    }

    /// Returns the active turn, if the event belongs to it; an event of another turn is noted as a breach.
    fn own(&mut self, id: Uuid, broken: &mut Broken) -> Option<&mut Active> {
        let turn = words::turn_no(id);
        if self.has_ended(turn) {
            broken.note(Invariant::NothingAfterTheEnd);
        } else if self.active() != Some(turn) {
            broken.note(Invariant::OneActive);
        }
        self.active.as_mut().filter(|active| active.turn == turn)
    }

    fn by_worker(&mut self, id: Uuid, epoch: Seq, broken: &mut Broken) {
        let held = self.own(id, broken).map(|active| active.epoch == Some(epoch) && active.park.is_none());
        if held == Some(false) {
            broken.note(Invariant::FencedAreSilent);
        }
    }

    fn end_by_worker(&mut self, id: Uuid, epoch: Seq, broken: &mut Broken) {
        self.by_worker(id, epoch, broken);
        self.end(id, broken);
    }

    fn end(&mut self, id: Uuid, broken: &mut Broken) {
        let turn = words::turn_no(id);
        if self.has_ended(turn) {
            broken.note(Invariant::OneEnd);
        }
        self.ended |= bit(turn);
        self.active.take_if(|active| active.turn == turn);
    }

    /// Returns whether the real fold agrees.
    pub fn agree_with(&self, fold: &Conversation) -> bool {
        let ended = fold.finished.iter().fold(0, |ended, turn| ended | bit(words::turn_no(turn.id)));
        let active = match (&self.active, &fold.turn) {
            (Some(active), Some(turn)) => {
                words::turn_id(active.turn) == turn.request.turn
                    && active.item == turn.item
                    && active.epoch == turn.epoch
                    && active.park == turn.park.as_ref().map(|park| words::park_epoch(park.id))
            }
            (None, None) => true,
            _ => false,
        };
        active && ended == self.ended
    }
}
