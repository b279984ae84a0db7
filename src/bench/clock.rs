//! One clock for the gateway and the clients, so that their times can be subtracted.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static ZERO: OnceLock<Instant> = OnceLock::new();

/// Returns nanoseconds since the first call in this process.
pub fn now_ns() -> u64 {
    let zero = ZERO.get_or_init(Instant::now);
    u64::try_from(zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Converts nanoseconds to fractional seconds.
pub fn ns_to_seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}
