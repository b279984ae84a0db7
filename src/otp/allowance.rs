//! Rate limits for one-time passwords, over all processes and both ways of requesting them.
//!
//! The counters of the asker alone come first, so that a refusal there takes nothing from the address that would have got
//! the password. That address's own allowance is by asker and address for the hour; all askers together have a short one, so
//! that strangers who ask for another person's address lock that person out for minutes only.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    config::PerOrg,
    domain::interaction::Contact,
    limits,
    log::jetstream_log::NatsLog,
    nats::AppendError,
    subjects::{self, OtpCounter},
};

const HOUR_SECS: i64 = 3_600;

/// The configured limits beyond the fixed ones.
#[derive(Clone, Debug, PartialEq)]
pub struct OtpAllowance {
    /// Passwords an hour on behalf of one group of addresses, and of an organisation.
    pub address: u64,
    pub org: PerOrg,
}

/// The party on behalf of which a password is sent.
pub struct OtpRequester<'a> {
    pub org: &'a str,
    pub session: Uuid,
    /// The group of addresses of its client, where it is known.
    pub source: Option<&'a str>,
}

/// The reason why no password may be sent now.
#[derive(Debug, thiserror::Error)]
pub enum AllowanceRefusal {
    #[error("too many passwords; the next one may be sent in {0} s")]
    TooMany(u64),
    #[error("{0}")]
    Uncounted(#[from] AppendError),
}

/// Counts a password before it is sent, and refuses it beyond the limits.
pub async fn take(
    log: &NatsLog,
    allowance: &OtpAllowance,
    asker: &OtpRequester<'_>,
    contact: &Contact,
) -> Result<(), AllowanceRefusal> {
    let now = Utc::now();
    // All spellings of an address are one mailbox.
    let one = |address: &String| address.trim().to_lowercase();
    let addresses: Vec<String> = [&contact.email, &contact.phone].into_iter().flatten().map(one).collect();
    count(log, OtpCounter::Session(asker.session), limits::CODES_SESSION_MAX, HOUR_SECS, now).await?;
    if let Some(source) = asker.source {
        count(log, OtpCounter::Source(source), allowance.address, HOUR_SECS, now).await?;
    }
    for address in &addresses {
        let pair = OtpCounter::Pair(asker.source.unwrap_or_default(), address);
        count(log, pair, limits::CODES_PAIR_MAX, HOUR_SECS, now).await?;
    }
    for address in &addresses {
        count(log, OtpCounter::Contact(address), limits::CODES_CONTACT_MAX, limits::CODES_CONTACT_SECS, now).await?;
    }
    // Last, so that a password refused for another reason uses up nothing of it.
    if let Some(max) = allowance.org.of(asker.org) {
        count(log, OtpCounter::Org(asker.org), max, HOUR_SECS, now).await?;
    }
    Ok(())
}

/// Counts one try to enter a challenge's password. Returns false if there were too many.
pub async fn try_once(log: &NatsLog, challenge: Uuid) -> Result<bool, AppendError> {
    let subject = subjects::count_codes(OtpCounter::Tries(challenge), 0);
    let count = log.count(&subject, 1, &Uuid::new_v4().simple().to_string()).await?;
    // An unknown count has been counted once before: its answer was lost.
    Ok(count.is_none_or(|count| count <= limits::CODE_TRIES_MAX as i64))
}

async fn count(
    log: &NatsLog,
    codes: OtpCounter<'_>,
    max: u64,
    secs: i64,
    now: DateTime<Utc>,
) -> Result<(), AllowanceRefusal> {
    let subject = subjects::count_codes(codes, now.timestamp().div_euclid(secs));
    let count = log.count(&subject, 1, &Uuid::new_v4().simple().to_string()).await?;
    match count {
        Some(count) if count > max as i64 => {
            Err(AllowanceRefusal::TooMany((secs - now.timestamp().rem_euclid(secs)) as u64))
        }
        _ => Ok(()),
    }
}
