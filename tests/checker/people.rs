//! Actions of people, through edges: `edge::actions::{send_message, confirm_tool_action, cancel}`; and the deadlines.

use turnstream::domain::{Conversation, RecordedEvent};
use uuid::Uuid;

use crate::{
    invariants::Invariant,
    log::{Deciding, Id, Log, Stop},
    model::Rules,
    mutation::Mutation,
    state::State,
    words::{self, Seq, TurnNo, Word},
};

/// An action that a person may take once, at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Sends a message; a second one with the same number is the client's retry.
    Send(TurnNo),
    Approve,
    Decline,
    Cancel,
    /// Ends a turn that waits, before a new message.
    Supersede,
    /// Opens another session on the conversation.
    Open,
}

/// A slot for an edge's work. Edges have no memory but a cache, which may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    Idle,
    Busy {
        deciding: Deciding,
        /// For a cancel: the turn that was active when it came.
        came_for: Option<TurnNo>,
    },
}

impl Edge {
    pub fn deciding(&self) -> Option<&Deciding> {
        match self {
            Edge::Busy { deciding, .. } => Some(deciding),
            Edge::Idle => None,
        }
    }

    pub fn deciding_mut(&mut self) -> Option<&mut Deciding> {
        match self {
            Edge::Busy { deciding, .. } => Some(deciding),
            Edge::Idle => None,
        }
    }
}

/// The knowledge of a person or a cache when a deed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The end of the edge's copy of the log.
    pub at: Seq,
    /// The park that the connection was shown last, if any.
    pub shown: Option<Seq>,
}

/// Returns the views under which a deed may differ.
pub fn views(rules: &Rules, state: &State, deed: Deed) -> Vec<View> {
    let stale = match deed {
        Deed::Send(_) | Deed::Supersede => true,
        Deed::Open => false,
        Deed::Approve | Deed::Decline | Deed::Cancel => rules.server.mutation == Some(Mutation::StalePeople),
    };
    // Of the copies that show the same turn in the same wait, the newest stands for all: the log refuses every decision
    // that is appended on a copy other than the newest of all.
    let mut known: Vec<&Log> = vec![&state.log];
    for log in state.log.prefixes().filter(|_| stale) {
        if known.iter().all(|other| look(other.fold()) != look(log.fold())) {
            known.push(log);
        }
    }
    let shown: Vec<Option<Seq>> = match deed {
        Deed::Approve | Deed::Decline => state.log.facts().parks().map(Some).chain([None]).collect(),
        _ => vec![None],
    };
    let with = |log: &Log| shown.iter().map(|shown| View { at: log.last(), shown: *shown }).collect::<Vec<_>>();
    known.into_iter().flat_map(with).collect()
}

/// Returns the parts of the fold that a person's decision depends on.
fn look(fold: &Conversation) -> (Option<Uuid>, Option<Uuid>, usize) {
    let turn = fold.turn.as_ref();
    let park = turn.and_then(|turn| turn.park.as_ref());
    (turn.map(|turn| turn.request.turn), park.map(|park| park.id), fold.finished.len())
}

/// Returns whether a deed can have any effect in this state.
pub fn is_possible(state: &State, deed: Deed) -> bool {
    let facts = state.log.facts();
    match deed {
        Deed::Send(_) | Deed::Open => true,
        Deed::Approve | Deed::Decline | Deed::Supersede => facts.parks().next().is_some(),
        Deed::Cancel => state.log.last() > 0,
    }
}

/// Begins the `n`-th deed: reads, decides.
pub fn begin(state: &mut State, n: u8, deed: Deed, view: View) -> Edge {
    state.begun |= 1 << n;
    let pending_now = state.log.facts().pending_park();
    let active_now = state.log.facts().active();
    let fold = state.log.at(view.at).fold();
    let (id, word, came_for) = match deed {
        Deed::Send(turn) => (Id::Request(turn), Word::Request { turn, made: state.hour }, None),
        Deed::Open => (Id::Deed(n), Word::Open, None),
        Deed::Cancel => {
            let fold = if fold.turn.is_none() { state.log.fold() } else { fold };
            match &fold.turn {
                Some(turn) => (Id::Deed(n), Word::Cancel { turn: words::turn_no(turn.request.turn) }, active_now),
                None => return Edge::Idle,
            }
        }
        Deed::Supersede => match fold.turn.as_ref().and_then(|turn| turn.park.as_ref()) {
            Some(park) => (Id::Deed(n), Word::Supersede { park: words::park_epoch(park.id) }, None),
            None => return Edge::Idle,
        },
        Deed::Approve | Deed::Decline => {
            let seen = view.shown.or(pending_now).unwrap_or(0);
            match confirmed(&state.log, fold, view) {
                Some(park) => (Id::Deed(n), Word::Confirm { park, seen, approved: deed == Deed::Approve }, None),
                None => {
                    refused_confirm(state, seen);
                    return Edge::Idle;
                }
            }
        }
    };
    match Deciding::start(&state.log, view.at, id, word) {
        Ok(deciding) => Edge::Busy { deciding, came_for },
        Err(stop) => {
            end(state, word, came_for, Err(stop));
            Edge::Idle
        }
    }
}

/// Returns the park that a confirm binds to, by its epoch; `None`: no park waits for it.
fn confirmed(log: &Log, fold: &Conversation, view: View) -> Option<Seq> {
    let waits = |fold: &Conversation| fold.turn.as_ref().is_some_and(|turn| turn.park.is_some());
    let fold = if waits(fold) { fold } else { log.fold() };
    let turn = fold.turn.as_ref()?;
    let park = turn.park.as_ref()?;
    (view.shown.is_none() || view.shown == turn.epoch).then(|| words::park_epoch(park.id))
}

/// An attempt that is answered.
pub fn send(rules: &Rules, state: &mut State, mut deciding: Deciding, came_for: Option<TurnNo>) -> Edge {
    let word = deciding.pending.word;
    match deciding.append(&rules.server, &mut state.log, state.hour) {
        None => Edge::Busy { deciding, came_for },
        Some(result) => {
            if let Ok(seq) = result {
                state.queue_last();
                own_fold(rules, state, deciding.pending.at, seq);
            }
            end(state, word, came_for, result);
            Edge::Idle
        }
    }
}

/// Checks that the edge's fold of its own event, made without reading it back if its clock allows that, is the readers'
/// fold.
fn own_fold(rules: &Rules, state: &mut State, at: Seq, seq: Seq) {
    let trusts_clock = rules.server.mutation == Some(Mutation::OwnClock);
    let stored = state.log.at(seq).last_recorded().expect("the event was stored");
    let stored_at = words::time(state.hour);
    if stored.event.is_void_at(stored_at) && !trusts_clock {
        return;
    }
    let mut own = state.log.at(at).fold().clone();
    own.evolve(&RecordedEvent { stored_at, ..stored.clone() });
    if own != *state.log.at(seq).fold() {
        state.note(Invariant::OwnFold);
    }
}

/// The answer to a deed.
fn end(state: &mut State, word: Word, came_for: Option<TurnNo>, result: Result<Seq, Stop>) {
    let refused = matches!(result, Err(Stop::Refused));
    match word {
        Word::Request { turn, .. } => {
            let fold = match result {
                Ok(seq) => state.log.at(seq).fold(),
                Err(_) => state.log.fold(),
            };
            let id = words::turn_id(turn);
            let active = fold.turn.as_ref().is_some_and(|active| active.request.turn == id);
            let known = active || (refused && fold.finished_turn(id).is_some());
            if known && !matches!(result, Err(Stop::Contended)) {
                state.accept(turn);
            }
        }
        Word::Confirm { seen, .. } if refused => refused_confirm(state, seen),
        Word::Cancel { .. } => {
            let runs_on = came_for.is_some_and(|turn| !state.log.facts().has_ended(turn));
            if runs_on && !matches!(result, Err(Stop::Contended)) {
                state.note(Invariant::CancelsCount);
            }
        }
        _ => {}
    }
}

fn refused_confirm(state: &mut State, seen: Seq) {
    if seen > 0 && state.log.facts().pending_park() == Some(seen) {
        state.note(Invariant::ConfirmsCount);
    }
}

/// A deadline fires.
pub fn fire(state: &mut State, park: Seq) {
    let id = state.fire(park);
    match Deciding::start(&state.log, state.log.last(), id, Word::Expire { park }) {
        Ok(deciding) => state.due = Some(deciding),
        Err(_) => settle(state, park),
    }
}

/// An attempt to record the deadline that is answered.
pub fn expire(rules: &Rules, state: &mut State, mut deciding: Deciding) {
    let Word::Expire { park } = deciding.pending.word else { unreachable!("a deadline expires a park") };
    match deciding.append(&rules.server, &mut state.log, state.hour) {
        None => state.due = Some(deciding),
        Some(result) => {
            state.queue_last();
            state.due = None;
            if !matches!(result, Err(Stop::Contended)) {
                settle(state, park);
            }
        }
    }
}

/// The deadline's message is acked.
fn settle(state: &mut State, park: Seq) {
    let timer = state.timers.iter_mut().find(|timer| timer.park == park).expect("a deadline that comes was set");
    timer.pending = false;
}
