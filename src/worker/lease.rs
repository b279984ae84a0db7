//! How long a delivered work item is this worker's.
//!
//! The server gives an item to another worker when it has heard nothing for the consumer's `ack_wait`. A process that was stopped,
//! or whose machine slept, finds on waking what it was sent long ago: that is not its to claim, and a word about it would take it
//! away from whoever has it now.

use std::time::{Duration, Instant, SystemTime};

use crate::limits;

/// A moment, by two clocks: one that never goes back, and one that goes on while a machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    instant: Instant,
    wall: SystemTime,
}

impl Lease {
    /// Begins now, which must not be after the server began to wait.
    pub fn begin() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether the server still waits for this worker.
    pub fn holds(&self) -> bool {
        self.is_younger_than(Duration::from_millis(limits::ACK_WAIT_MS))
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        // A wall clock that was set back says nothing.
        let slept = self.wall.elapsed().unwrap_or_default();
        self.instant.elapsed().max(slept) < age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_either_clock() {
        let ago = Duration::from_millis(limits::ACK_WAIT_MS + 1);
        let now = Lease::begin();
        assert!(now.holds());
        assert!(!Lease { instant: now.instant - ago, ..now }.holds());
        assert!(!Lease { wall: now.wall - ago, ..now }.holds(), "the machine slept");
        assert!(Lease { wall: now.wall + ago, ..now }.holds(), "the clock was set back");
    }
}
