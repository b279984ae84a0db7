//! Pauses between tries, with jitter and a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::limits;

/// Doubling pauses until a deadline.
pub struct Backoff {
    deadline: Instant,
    next: Duration,
}

impl Backoff {
    /// Tries for `total_ms` at most.
    pub fn new(total_ms: u64) -> Self {
        Self {
            deadline: Instant::now() + Duration::from_millis(total_ms),
            next: Duration::from_millis(limits::RETRY_FIRST_MS),
        }
    }

    /// Waits before the next try; false = the time is up.
    pub async fn pause(&mut self) -> bool {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        sleep(pause).await;
        self.next = (self.next * 2).min(Duration::from_millis(limits::RETRY_MAX_MS));
        true
    }
}
