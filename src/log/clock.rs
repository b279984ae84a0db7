//! The clock of the log's server, as far as it differs from this process's.
//!
//! The server's time judges whether an event came too late, so deadlines for it are made in that time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};

/// A clock that all parts of a process share.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// The server's time.
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.offset()
    }

    /// How far the server's clock is ahead of this process's.
    pub fn offset(&self) -> TimeDelta {
        TimeDelta::microseconds(self.0.load(Ordering::Relaxed))
    }

    /// Takes an answer of the server that was asked for and arrived at these moments: it was given between them.
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
    fn the_offset_is_measured_against_the_middle_of_the_question() {
        let (clock, asked) = (Clock::default(), DateTime::UNIX_EPOCH);
        clock.take(asked, asked + TimeDelta::milliseconds(20_050), asked + TimeDelta::milliseconds(100));
        assert_eq!(clock.offset(), TimeDelta::seconds(20));
        clock.take(asked, asked - TimeDelta::seconds(1), asked);
        assert_eq!(clock.offset(), TimeDelta::seconds(-1));
    }
}
