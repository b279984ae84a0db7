//! Pauses between tries, with jitter and a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::limits;

/// Returns the delay before work is retried that failed `tries` times because of its conversation's state.
pub fn put_off(tries: i64) -> Duration {
    let doublings = tries.clamp(1, 32) - 1;
    Duration::from_millis((limits::PUT_OFF_FIRST_MS << doublings).min(limits::PUT_OFF_MAX_MS))
}

/// Doubling pauses until a deadline.
pub struct Backoff {
    deadline: Instant,
    next: Duration,
}

impl Backoff {
    /// Allows tries for `total_ms` at most.
    pub fn new(total_ms: u64) -> Self {
        Self {
            deadline: Instant::now() + Duration::from_millis(total_ms),
            next: Duration::from_millis(limits::RETRY_FIRST_MS),
        }
    }

    /// Waits before the next try; false = the deadline has passed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redelivery_delays_double_up_to_a_maximum() {
        let (first, most) =
            (Duration::from_millis(limits::PUT_OFF_FIRST_MS), Duration::from_millis(limits::PUT_OFF_MAX_MS));
        assert_eq!([i64::MIN, 0, 1, 2, 3].map(put_off), [first, first, first, 2 * first, 4 * first]);
        assert_eq!([30, i64::MAX].map(put_off), [most, most]);
    }
}
