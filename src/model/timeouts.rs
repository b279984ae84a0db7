//! The timeouts of a model call.

use std::time::Duration;

/// The timeout of a connect, TLS included.
const CONNECT_TIMEOUT_MS: u64 = 10_000;

/// The timeout for the response head: a queueing gateway answers late, but it answers.
const HEAD_TIMEOUT_MS: u64 = 60_000;

/// The longest silence of a stream; reasoning models pause between tokens.
const IDLE_TIMEOUT_MS: u64 = 60_000;

/// The timeout of a whole reply: a stream kept alive by comments alone has to end too.
const REPLY_TIMEOUT_MS: u64 = 900_000;

/// The wait before the first retry; the next ones double it.
const FIRST_RETRY_MS: u64 = 1_000;

/// The timeouts of a model call. The defaults are for production, tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    pub head: Duration,
    pub idle: Duration,
    pub reply: Duration,
    pub first_retry: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(CONNECT_TIMEOUT_MS),
            head: Duration::from_millis(HEAD_TIMEOUT_MS),
            idle: Duration::from_millis(IDLE_TIMEOUT_MS),
            reply: Duration::from_millis(REPLY_TIMEOUT_MS),
            first_retry: Duration::from_millis(FIRST_RETRY_MS),
        }
    }
}
