//! Events that change nothing: such as can't be read, and such as came too late.

use chrono::{DateTime, Utc};

use super::Event;

/// A stored message that is on an event's subject and can't be read as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The stored name that the message gives itself; empty = none.
    pub name: String,
    pub cause: Cause,
    /// For operators.
    pub detail: String,
}

/// Why an event can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its kind or its schema version is newer than this program, which may go on without it.
    Unknown,
    /// As [`Cause::Unknown`], and its writer said that nobody may go on without it.
    Critical,
    /// It is not as its kind must be.
    Malformed,
}

impl Event {
    /// The moment after which the event, if it is stored only then, is void: whoever asked for it was told that it failed.
    pub fn not_after(&self) -> Option<DateTime<Utc>> {
        match self {
            Event::SessionOpened(e) => e.not_after,
            Event::SessionIdentified(e) => e.not_after,
            Event::ConversationRenamed(e) => e.not_after,
            Event::TurnRequested(e) => Some(e.not_after),
            Event::TurnResumed(e) => e.not_after,
            Event::TurnCancelled(e) => e.not_after,
            Event::TurnStarted(_)
            | Event::TurnReleased(_)
            | Event::TurnModelReplied(_)
            | Event::TurnToolCalled(_)
            | Event::TurnToolReturned(_)
            | Event::TurnParked(_)
            | Event::TurnCompleted(_)
            | Event::TurnFailed(_)
            | Event::Erased(_)
            | Event::Unreadable(_) => None,
        }
    }

    /// Makes the event void when it is stored after this moment. Events of workers are never void.
    pub fn set_not_after(&mut self, not_after: DateTime<Utc>) {
        match self {
            Event::SessionOpened(e) => e.not_after = Some(not_after),
            Event::SessionIdentified(e) => e.not_after = Some(not_after),
            Event::ConversationRenamed(e) => e.not_after = Some(not_after),
            Event::TurnRequested(e) => e.not_after = not_after,
            Event::TurnResumed(e) => e.not_after = Some(not_after),
            Event::TurnCancelled(e) => e.not_after = Some(not_after),
            _ => {}
        }
    }

    /// Whether the event, stored at this moment, folds to nothing.
    pub fn is_void_at(&self, stored_at: DateTime<Utc>) -> bool {
        self.not_after().is_some_and(|not_after| stored_at > not_after)
    }
}
