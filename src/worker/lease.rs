//! The time for which a delivered work item is this worker's.
//!
//! The server redelivers an item after the consumer's `ack_wait` without an ack. A process that was stopped, or that ran on
//! a sleeping machine, finds on waking an item delivered long ago: it must not claim it, and an ack would remove it from
//! its new owner.

use std::time::{Duration, Instant, SystemTime};

use crate::limits;

/// A moment by two clocks: a monotonic one, and one that advances while a machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct WorkLease {
    instant: Instant,
    wall: SystemTime,
}

impl WorkLease {
    /// Begins now, which must not be after the server began its wait.
    pub fn begin() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    /// Returns whether the server still waits for this worker.
    pub fn holds(&self) -> bool {
        self.is_younger_than(Duration::from_millis(limits::ACK_WAIT_MS))
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        // A wall clock that was set back gives no age.
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
        let now = WorkLease::begin();
        assert!(now.holds());
        assert!(!WorkLease { instant: now.instant - ago, ..now }.holds());
        assert!(!WorkLease { wall: now.wall - ago, ..now }.holds(), "the machine slept");
        assert!(WorkLease { wall: now.wall + ago, ..now }.holds(), "the clock was set back");
    }
}
