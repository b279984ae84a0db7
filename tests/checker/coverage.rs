//! The states that an exploration must reach, so that its invariants are not held by a world in which nothing happens.

use turnstream::domain::event::Resolution;

use crate::{
    log::Log,
    model::Checked,
    state::State,
    words::{Reply, Statement, What, Word},
};

/// A named condition on a state.
#[derive(Clone, Copy)]
pub struct Sight(pub &'static str, pub fn(&Checked, &State) -> bool);

fn wrote(log: &Log, is_it: impl Fn(Word) -> bool) -> bool {
    log.words().any(is_it)
}

fn did(log: &Log, is_it: impl Fn(What) -> bool) -> bool {
    wrote(log, |word| matches!(word, Word::Record { what, .. } if is_it(what)))
}

pub const ANSWERED: Sight = Sight("a turn is answered", |_, s| did(&s.log, |what| what == What::Completed));
pub const ANSWERED_AFTER_TOOLS: Sight = Sight("a turn with tools is answered", |_, s| {
    did(&s.log, |what| what == What::Completed) && did(&s.log, |what| matches!(what, What::Returned(_)))
});
pub const TAKEN_OVER: Sight = Sight("an item is claimed three times", |_, s| s.log.facts().claims >= 3);
pub const UNKNOWN: Sight = Sight("the outcome of a call is unknown", |_, s| {
    did(&s.log, |what| matches!(what, What::Stated(_, Statement::Unknown)))
});
pub const GIVEN_BACK: Sight = Sight("a turn that was given back is answered", |_, s| {
    did(&s.log, |what| what == What::Released) && did(&s.log, |what| what == What::Completed)
});
pub const GIVEN_UP: Sight = Sight("a turn is given up", |_, s| did(&s.log, |what| what == What::GivenUp));
pub const APPROVED: Sight =
    Sight("an approved tool is called", |_, s| s.log.facts().has_resolution(Resolution::Approved) && s.called != 0);
pub const DECLINED: Sight = Sight("a person declines and the model is told", |_, s| {
    s.log.facts().has_resolution(Resolution::Declined)
        && did(&s.log, |what| matches!(what, What::Stated(_, Statement::Refused)))
});
pub const EXPIRED: Sight = Sight("a deadline decides", |_, s| s.log.facts().has_resolution(Resolution::Expired));
pub const PARKED_TWICE: Sight = Sight("a turn parks again", |_, s| s.log.facts().parks().count() == 2);
pub const WAITS: Sight =
    Sight("everything waits for a person", |_, s| s.quiet && s.log.facts().pending_park().is_some());
pub const CANCELLED_PARKED: Sight = Sight("a parked turn is cancelled", |_, s| {
    s.log.facts().active().is_none()
        && did(&s.log, |what| matches!(what, What::Parked(_)))
        && wrote(&s.log, |word| matches!(word, Word::Cancel { .. }))
});
pub const SUPERSEDED: Sight = Sight("a turn gives way to the next one, which is answered", |_, s| {
    let gave_way = wrote(&s.log, |word| matches!(word, Word::Supersede { .. }));
    gave_way && s.accepted == 0b11 && s.log.facts().active().is_none() && did(&s.log, |what| what == What::Completed)
});
pub const CANCELLED_AT_TOOLS: Sight = Sight("a turn is cancelled between intent and result", |_, s| {
    did(&s.log, |what| what == What::Replied(Reply::Once))
        && did(&s.log, |what| matches!(what, What::Called(_)))
        && !did(&s.log, |what| matches!(what, What::Returned(_) | What::Stated(..)))
        && wrote(&s.log, |word| matches!(word, Word::Cancel { .. }))
});
pub const VOID: Sight = Sight("a request comes too late", |_, s| s.log.facts().void_requests > 0);
pub const BOTH_ACCEPTED: Sight =
    Sight("two requests are accepted", |_, s| s.accepted == 0b11 && s.log.facts().active().is_none());
