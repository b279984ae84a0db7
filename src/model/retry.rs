//! The retry policy of refused requests.
//!
//! Contract: only statuses of a passing condition, not of a bad request, are retried; a wait is never longer than
//! [`RETRY_AFTER_MAX`].

use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::Duration;

/// The number of retries after the first attempt.
pub(super) const RETRIES_MAX: u32 = 3;
/// The header with a wait that some gateways send beside HTTP's `Retry-After`.
const RETRY_AFTER_MS: &str = "retry-after-ms";
/// The longest wait a gateway can ask for: a visitor is waiting too.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// The share of a wait by which it is lengthened at random, so that workers do not retry in step.
const JITTER_MAX: f64 = 0.2;

pub(super) fn is_retryable(status: u16) -> bool {
    // A proxy answers 520–527 and 530 when its origin is down, a provider 529 when it is overloaded.
    matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 520..=527 | 529 | 530)
}

/// Returns the wait that the gateway asks for, when it names one: in milliseconds, in seconds, or as a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let number = |text: &str| text.parse::<f64>().ok();
    let of_date = |text: &str| {
        let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        Some(date.signed_duration_since(chrono::Utc::now()).as_seconds_f64().max(0.0))
    };
    let ms = text(RETRY_AFTER_MS).and_then(number).map(|ms| ms / 1_000.0);
    let seconds = ms.or_else(|| text(RETRY_AFTER.as_str()).and_then(|text| number(text).or_else(|| of_date(text))))?;
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())))
}

/// Returns the wait before retry number `retry` (from 0): `first`, doubled each time, with jitter.
pub(super) fn backoff(first: Duration, retry: u32) -> Duration {
    first.mul_f64(2f64.powi(retry as i32) * rand::random_range(1.0..1.0 + JITTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_statuses_are_retried() {
        for status in [408, 425, 429, 500, 502, 503, 504, 520, 525, 527, 529, 530] {
            assert!(is_retryable(status), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 409, 413, 422, 501, 505, 519, 528] {
            assert!(!is_retryable(status), "{status}");
        }
    }

    #[test]
    fn the_gateways_wait_is_taken_in_seconds_and_capped() {
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(wait("2"), Some(Duration::from_secs(2)));
        assert_eq!(wait(" 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(wait("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("Tue, 31 Dec 2999 23:59:59 GMT"), Some(RETRY_AFTER_MAX));
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER_MS, "250".parse().unwrap());
        headers.insert(RETRY_AFTER, "9".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_millis(250)));
        for odd in ["-1", "NaN", "soon"] {
            assert_eq!(wait(odd), None, "{odd}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn waits_double() {
        for (retry, seconds) in [(0, 1), (1, 2), (2, 4)] {
            let wait = backoff(Duration::from_secs(1), retry);
            assert!(wait >= Duration::from_secs(seconds));
            assert!(wait <= Duration::from_secs(seconds).mul_f64(1.0 + JITTER_MAX));
        }
    }
}
