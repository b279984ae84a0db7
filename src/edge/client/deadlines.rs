//! The deadlines of a connection: the next ping, the time for opening a session, the end of the token.

use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, sleep_until};

use crate::{auth::Principal, edge::Edge, limits};

pub struct ConnectionDeadlines {
    every: Duration,
    ping_at: Instant,
    /// Pings since the client's last byte.
    unanswered: u32,
    pinged_at: Instant,
    wait: Duration,
    session_by: Instant,
    expires_at: Option<Instant>,
}

/// A deadline that has passed.
pub enum ExpiredDeadline {
    /// A pause, after which the client gets a ping.
    Pause,
    /// The time for opening a session.
    Session,
    /// The lifetime of the client's token.
    Token,
}

impl ConnectionDeadlines {
    pub fn new(edge: &Edge, principal: Option<&Principal>) -> Self {
        let now = Instant::now();
        let every = Duration::from_secs(edge.settings.access.ping_secs.max(1).into());
        let wait = Duration::from_secs(edge.settings.access.session_wait_secs.max(1).into());
        let left = |at: i64| {
            let at = at.saturating_add(limits::CLOCK_SKEW_SECS as i64);
            Duration::from_secs(u64::try_from(at.saturating_sub(Utc::now().timestamp())).unwrap_or_default())
        };
        let expires_at = principal.and_then(|principal| principal.expires_at).and_then(|at| now.checked_add(left(at)));
        Self { every, ping_at: now + every, unanswered: 0, pinged_at: now, wait, session_by: now + wait, expires_at }
    }

    /// Records an action. A client with a proven identity may do without a session for as long as it acts.
    pub fn acted(&mut self, is_known: bool) {
        if is_known {
            self.session_by = Instant::now() + self.wait;
        }
    }

    /// Waits for the next deadline. Cancel-safe.
    pub async fn next(&mut self, has_session: bool) -> ExpiredDeadline {
        let session_by = (!has_session).then_some(self.session_by);
        let times = [
            (Some(self.ping_at), ExpiredDeadline::Pause),
            (session_by, ExpiredDeadline::Session),
            (self.expires_at, ExpiredDeadline::Token),
        ];
        let next = times.into_iter().filter_map(|(at, over)| Some((at?, over))).min_by_key(|(at, _)| *at);
        let (at, over) = next.expect("there is always a next ping");
        sleep_until(at).await;
        if matches!(over, ExpiredDeadline::Pause) {
            self.ping_at = Instant::now() + self.every;
        }
        over
    }

    /// Returns true if the client has left too many pings unanswered; counts the ping that is due.
    pub fn is_silent(&mut self, heard_at: Instant) -> bool {
        if heard_at >= self.pinged_at {
            self.unanswered = 0;
        }
        if self.unanswered >= limits::PINGS_MISSED {
            return true;
        }
        self.unanswered += 1;
        self.pinged_at = Instant::now();
        false
    }
}
