//! Playback speed.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};

/// A multiple of the original speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlaybackSpeed {
    Times(f64),
    /// Without waiting.
    Full,
}

impl FromStr for PlaybackSpeed {
    type Err = String;

    /// Parses `original`, `full`, or a factor.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "original" => Ok(Self::Times(1.0)),
            "full" => Ok(Self::Full),
            _ => match text.parse() {
                Ok(times) if f64::is_finite(times) && times > 0.0 => Ok(Self::Times(times)),
                _ => Err("neither `original` nor `full` nor a number above 0".into()),
            },
        }
    }
}

impl PlaybackSpeed {
    /// Returns the wait from one moment to the next.
    pub fn between(self, before: Option<DateTime<Utc>>, next: DateTime<Utc>) -> Duration {
        let since = before.and_then(|before| (next - before).to_std().ok()).unwrap_or_default();
        match self {
            Self::Times(times) => Duration::try_from_secs_f64(since.as_secs_f64() / times).unwrap_or(Duration::MAX),
            Self::Full => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_divided_by_the_playback_speed() {
        let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
        let waits =
            |speed: &str| speed.parse::<PlaybackSpeed>().unwrap().between(Some(at(1_000)), at(3_000)).as_millis();
        assert_eq!([waits("original"), waits("4"), waits("0.5"), waits("full")], [2_000, 500, 4_000, 0]);
        let original: PlaybackSpeed = "original".parse().unwrap();
        assert_eq!(original.between(None, at(5)), Duration::ZERO);
        assert_eq!(original.between(Some(at(9)), at(5)), Duration::ZERO, "clocks differ");
        assert_eq!(PlaybackSpeed::Times(1e-300).between(Some(at(0)), at(5)), Duration::MAX);
        for wrong in ["0", "-1", "NaN", "inf", "", "fast"] {
            assert!(wrong.parse::<PlaybackSpeed>().is_err(), "{wrong}");
        }
    }
}
