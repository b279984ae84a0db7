//! The ways in which a worker's run of a turn ends, and how its steps are awaited.

use std::{future::Future, pin::Pin};

/// The reason why a worker stops driving a turn.
#[derive(Debug)]
pub(super) enum TurnExit {
    /// The turn is terminal, parked with its deadline set, or driven by a later item: the item is done.
    Done,
    /// Another worker has claimed the same item.
    ///
    /// That worker may have parked the turn without setting the deadline yet; if it dies before that, the item has to be
    /// delivered again.
    Fenced,
    /// The turn's content is larger than an event may be.
    TooLarge { max: usize },
    /// The log does not answer; the item will be delivered again.
    Unavailable(String),
    /// This worker stops; another worker shall claim the turn at once.
    HandOver,
    /// This worker can't serve the conversation: its events need a newer program, or can't be decrypted here.
    ///
    /// Another worker may, so the item is put off, longer each time.
    NotNow,
}

impl TurnExit {
    /// Returns the name under which the item is counted.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Fenced => "fenced",
            Self::TooLarge { .. } => "too_large",
            Self::Unavailable(_) => "unavailable",
            Self::HandOver => "handed_over",
            Self::NotNow => "put_off",
        }
    }
}

/// Makes a future on the heap, in a stack frame that is gone when the future is polled.
///
/// Without optimisation every future that a function awaits has a place of its own in that function's frame, and the steps of a
/// turn would fill a thread's stack.
pub(super) fn on_heap<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}
