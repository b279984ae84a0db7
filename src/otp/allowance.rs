//! How many one-time passwords may be sent, over all processes and both ways in which they are asked for.
//!
//! What the asker alone uses up is counted first, so that a refusal there takes nothing from the address that would have got
//! the password. That address's own allowance is by asker and address for the hour; all askers together have a short one, so
//! that strangers who ask in the name of somebody keep them out for minutes.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    config::PerOrg,
    domain::interaction::Contact,
    limits,
    log::{AppendError, nats::NatsLog},
    subjects::{self, Codes},
};

const HOUR_SECS: i64 = 3_600;

/// What may be sent beyond the fixed limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    /// Passwords an hour on behalf of one group of addresses, and of an organisation.
    pub address: u64,
    pub org: PerOrg,
}

/// On whose behalf a password is sent.
pub struct Asker<'a> {
    pub org: &'a str,
    pub session: Uuid,
    /// The group of addresses that its client is in, where it is known.
    pub source: Option<&'a str>,
}

/// Why none may be sent now.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("too many passwords; in {0} s another one may be sent")]
    TooMany(u64),
    #[error("{0}")]
    Uncounted(#[from] AppendError),
}

/// Counts a password before it is sent, and refuses it beyond the limits.
pub async fn take(log: &NatsLog, allowance: &Allowance, asker: &Asker<'_>, contact: &Contact) -> Result<(), Refused> {
    let now = Utc::now();
    // However an address is written, it is one mailbox.
    let one = |address: &String| address.trim().to_lowercase();
    let addresses: Vec<String> = [&contact.email, &contact.phone].into_iter().flatten().map(one).collect();
    count(log, Codes::Session(asker.session), limits::CODES_SESSION_MAX, HOUR_SECS, now).await?;
    if let Some(source) = asker.source {
        count(log, Codes::Source(source), allowance.address, HOUR_SECS, now).await?;
    }
    for address in &addresses {
        let pair = Codes::Pair(asker.source.unwrap_or_default(), address);
        count(log, pair, limits::CODES_PAIR_MAX, HOUR_SECS, now).await?;
    }
    for address in &addresses {
        count(log, Codes::Contact(address), limits::CODES_CONTACT_MAX, limits::CODES_CONTACT_SECS, now).await?;
    }
    // Last, so that what is refused for another reason uses nothing of it up.
    if let Some(max) = allowance.org.of(asker.org) {
        count(log, Codes::Org(asker.org), max, HOUR_SECS, now).await?;
    }
    Ok(())
}

/// Counts one try to enter a challenge's password. False: there were too many.
pub async fn try_once(log: &NatsLog, challenge: Uuid) -> Result<bool, AppendError> {
    let subject = subjects::count_codes(Codes::Tries(challenge), 0);
    let count = log.count(&subject, 1, &Uuid::new_v4().simple().to_string()).await?;
    // A count that is not known has been counted once before: its answer was lost.
    Ok(count.is_none_or(|count| count <= limits::CODE_TRIES_MAX as i64))
}

async fn count(log: &NatsLog, codes: Codes<'_>, max: u64, secs: i64, now: DateTime<Utc>) -> Result<(), Refused> {
    let subject = subjects::count_codes(codes, now.timestamp().div_euclid(secs));
    let count = log.count(&subject, 1, &Uuid::new_v4().simple().to_string()).await?;
    match count {
        Some(count) if count > max as i64 => Err(Refused::TooMany((secs - now.timestamp().rem_euclid(secs)) as u64)),
        _ => Ok(()),
    }
}
