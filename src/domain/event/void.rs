//! Events that change nothing: unreadable ones, and ones stored too late.

use chrono::{DateTime, Utc};

use super::Event;

/// A stored message on an event's subject that can't be read as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The stored name in the message; empty = none.
    pub name: String,
    pub cause: UnreadableCause,
    /// For operators.
    pub detail: String,
}

/// The reason why an event can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadableCause {
    /// The kind or schema version is newer than this program, which may continue without it.
    Unknown,
    /// As [`UnreadableCause::Unknown`], and marked critical by its writer: no program may continue without it.
    Critical,
    /// The content does not fit the kind.
    Malformed,
}

impl Event {
    /// Returns the moment after which a stored event is void, because its requester was told that the request failed.
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

    /// Makes the event void if it is stored after this moment. Workers' events are never void.
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

    /// Returns whether the event, stored at this moment, folds to nothing.
    pub fn is_void_at(&self, stored_at: DateTime<Utc>) -> bool {
        self.not_after().is_some_and(|not_after| stored_at > not_after)
    }
}
