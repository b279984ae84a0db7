//! The server's clock, as an offset from this process's clock.
//!
//! The server's time decides whether an event came too late, so event deadlines are made in that time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};

/// A clock shared by all parts of a process.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Returns the server's time.
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.offset()
    }

    /// Returns how far the server's clock is ahead of this process's clock.
    pub fn offset(&self) -> TimeDelta {
        TimeDelta::microseconds(self.0.load(Ordering::Relaxed))
    }

    /// Takes the server's time from an answer that was requested at `asked` and arrived at `arrived`: the server gave it in
    /// between.
    pub fn take(&self, asked: DateTime<Utc>, server: DateTime<Utc>, arrived: DateTime<Utc>) {
        let middle = asked + (arrived - asked) / 2;
        let offset = (server - middle).num_microseconds().unwrap_or_default();
        self.0.store(offset, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_offset_is_measured_from_the_middle_of_the_request() {
        let (clock, asked) = (Clock::default(), DateTime::UNIX_EPOCH);
        clock.take(asked, asked + TimeDelta::milliseconds(20_050), asked + TimeDelta::milliseconds(100));
        assert_eq!(clock.offset(), TimeDelta::seconds(20));
        clock.take(asked, asked - TimeDelta::seconds(1), asked);
        assert_eq!(clock.offset(), TimeDelta::seconds(-1));
    }
}
