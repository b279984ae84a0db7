//! Challenges: each one ties a sent password to the address that the password proves.
//!
//! Every password that is sent is a challenge of its own, with an id that the host's service gets when it sends and when it
//! verifies. A session has one challenge at a time, over all flows: a new one voids the one before it *before* anything is
//! sent. A password proves the address of the current challenge, and only after the service has said that it was sent. The
//! challenge is used up by compare-and-swap, so a proof is given once, and never for a challenge that was replaced meanwhile.
//! This holds with a service that keeps one password a session, too: that password is then of the current challenge or of
//! none, for a challenge is not replaced while its sending is under way.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    OtpServiceError, OtpVerdict, Send, Verify,
    allowance::{self, AllowanceRefusal, OtpAllowance, OtpRequester},
    ask, flow,
};
use crate::{
    calls::ServiceCaller,
    domain::{
        event::{OtpChannel, OtpPurpose, OtpSent},
        interaction::Contact,
    },
    limits,
    log::jetstream_log::NatsLog,
    nats::{AppendError, ReadError, ReadFrom},
    subjects,
};

/// The bucket of challenges, and the stream behind it, which forgets them after an hour.
const BUCKET: &str = "RESTORE";
const STREAM: &str = "KV_RESTORE";

/// The challenges of a process: its log, and the connection by which it asks hosts' services.
#[derive(Clone)]
pub struct OtpChallenges {
    log: NatsLog,
    caller: ServiceCaller,
    allowance: OtpAllowance,
}

/// The session that is challenged, and the purpose.
pub struct ChallengeTarget<'a> {
    pub asker: OtpRequester<'a>,
    pub conversation: Uuid,
    pub purpose: OtpPurpose,
}

/// The address or number that a password was sent to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifiedContact {
    pub challenge: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

/// The reason why no password was sent.
#[derive(Debug, thiserror::Error)]
pub enum OtpSendError {
    #[error("{0}")]
    Service(#[from] OtpServiceError),
    /// Another password is on its way, or too many were sent.
    #[error("another password may be sent in {0} s")]
    Later(u64),
    #[error("{0}")]
    Write(#[from] AppendError),
    #[error("{0}")]
    Read(#[from] ReadError),
}

/// The outcome of an entered password.
pub enum OtpCheck {
    Proved(VerifiedContact),
    /// Nothing was sent that the password could prove.
    NoChallenge,
    /// The challenge was replaced, or used, while the password was being checked.
    Replaced,
    Wrong(OtpVerdict),
}

/// The reason why a password was not checked.
#[derive(Debug, thiserror::Error)]
pub enum OtpCheckError {
    #[error("{0}")]
    Service(#[from] OtpServiceError),
    #[error("{0}")]
    Write(#[from] AppendError),
    #[error("{0}")]
    Read(#[from] ReadError),
}

/// A session's challenge as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredChallenge {
    #[serde(flatten)]
    address: VerifiedContact,
    purpose: OtpPurpose,
    state: ChallengeState,
    at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChallengeState {
    /// The service was asked to send the password and has not answered.
    Sending,
    Sent,
    /// Nothing was sent, as far as is known.
    Failed,
    Used,
}

impl OtpChallenges {
    pub fn new(log: NatsLog, caller: ServiceCaller, allowance: OtpAllowance) -> Self {
        Self { log, caller, allowance }
    }

    /// Sends a password, as the session's only challenge. Returns its destination and the challenge's id.
    pub async fn send(&self, who: &ChallengeTarget<'_>, contact: &Contact) -> Result<(OtpSent, Uuid), OtpSendError> {
        allowance::take(&self.log, &self.allowance, &who.asker, contact).await.map_err(|refused| match refused {
            AllowanceRefusal::TooMany(seconds) => OtpSendError::Later(seconds),
            AllowanceRefusal::Uncounted(error) => OtpSendError::Write(error),
        })?;
        let challenge = Uuid::new_v4();
        let address = VerifiedContact { challenge, email: contact.email.clone(), phone: contact.phone.clone() };
        let stored = StoredChallenge { address, purpose: who.purpose, state: ChallengeState::Sending, at: Utc::now() };
        let seq = self.replace(who, &stored).await?;
        let session = who.asker.session;
        let (email, phone) = (contact.email.as_deref(), contact.phone.as_deref());
        let (purpose, conversation) = (who.purpose, who.conversation);
        let question = Send { challenge, purpose, flow: flow(purpose), session, conversation, email, phone };
        let sent: Result<OtpSent, OtpServiceError> = ask(&self.caller, who.asker.org, "send", &question).await;
        let (state, address) = match &sent {
            Ok(OtpSent { channel: OtpChannel::Email, .. }) => {
                (ChallengeState::Sent, VerifiedContact { phone: None, ..stored.address })
            }
            Ok(OtpSent { channel: OtpChannel::Sms, .. }) => {
                (ChallengeState::Sent, VerifiedContact { email: None, ..stored.address })
            }
            // An unanswered request may still send the password, so this challenge keeps its place for a while.
            Err(OtpServiceError::Failed(_)) => (ChallengeState::Sending, stored.address),
            Err(OtpServiceError::NoService | OtpServiceError::Refused(_)) => (ChallengeState::Failed, stored.address),
        };
        if sent.is_ok() && address.email.is_none() && address.phone.is_none() {
            return Err(OtpServiceError::Failed("the service named a channel without an address".into()).into());
        }
        self.put(who, seq, &StoredChallenge { address, state, at: Utc::now(), ..stored }).await?;
        Ok((sent?, challenge))
    }

    /// Checks a password that was entered for a purpose; `is_meant` tells whether the current challenge is the one that the
    /// password was entered for.
    pub async fn enter(
        &self,
        who: &ChallengeTarget<'_>,
        code: &str,
        is_meant: impl Fn(&VerifiedContact) -> bool,
    ) -> Result<OtpCheck, OtpCheckError> {
        let Some((seq, stored)) = self.find(who.asker.session).await? else { return Ok(OtpCheck::NoChallenge) };
        if stored.state != ChallengeState::Sent || stored.purpose != who.purpose || !is_meant(&stored.address) {
            return Ok(OtpCheck::NoChallenge);
        }
        let challenge = stored.address.challenge;
        if !allowance::try_once(&self.log, challenge).await? {
            return Ok(OtpCheck::Wrong(OtpVerdict {
                verified: false,
                attempts_remaining: 0,
                error: Some("MAX_ATTEMPTS".into()),
                message: "Too many codes were entered. Please ask for a new one.".into(),
                challenge: Some(challenge),
            }));
        }
        let VerifiedContact { email, phone, .. } = &stored.address;
        let (email, phone) = (email.as_deref(), phone.as_deref());
        let (session, purpose) = (who.asker.session, who.purpose);
        let question = Verify { challenge, purpose, flow: flow(purpose), session, code, email, phone };
        let verdict: OtpVerdict = ask(&self.caller, who.asker.org, "verify", &question).await?;
        if verdict.challenge.is_some_and(|named| named != challenge) {
            tracing::warn!(%session, "the one-time password service answered for another challenge");
            return Ok(OtpCheck::Replaced);
        }
        if !verdict.verified {
            return Ok(OtpCheck::Wrong(verdict));
        }
        let address = stored.address.clone();
        match self.put(who, seq, &StoredChallenge { state: ChallengeState::Used, ..stored }).await {
            Ok(_) => Ok(OtpCheck::Proved(address)),
            Err(AppendError::Conflict) => Ok(OtpCheck::Replaced),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a challenge the session's only one, unless the sending of another is under way.
    async fn replace(&self, who: &ChallengeTarget<'_>, stored: &StoredChallenge) -> Result<u64, OtpSendError> {
        let current = self.find(who.asker.session).await?;
        let under_way = TimeDelta::milliseconds((limits::OTP_MS + limits::OTP_LATE_MS) as i64);
        if let Some((_, StoredChallenge { state: ChallengeState::Sending, at, .. })) = &current {
            let left = (*at + under_way - Utc::now()).num_seconds();
            if left > 0 {
                return Err(OtpSendError::Later(left as u64));
            }
        }
        match self.put(who, current.map_or(0, |(seq, _)| seq), stored).await {
            Ok(seq) => Ok(seq),
            Err(AppendError::Conflict) => Err(OtpSendError::Later(1)),
            Err(error) => Err(error.into()),
        }
    }

    async fn find(&self, session: Uuid) -> Result<Option<(u64, StoredChallenge)>, ReadError> {
        let query = json!({ "last_by_subj": subjects::kv(BUCKET, &subjects::challenge_key(session)) });
        // The challenge may have been written a moment ago, by another process.
        let Some(message) = self.log.get(STREAM, &query, ReadFrom::Leader).await? else { return Ok(None) };
        let seq = message.seq;
        let opened = self.log.decrypted(message).await?;
        Ok(opened.and_then(|message| Some((seq, serde_json::from_slice(&message.payload).ok()?))))
    }

    async fn put(
        &self,
        who: &ChallengeTarget<'_>,
        expected: u64,
        stored: &StoredChallenge,
    ) -> Result<u64, AppendError> {
        let subject = subjects::kv(BUCKET, &subjects::challenge_key(who.asker.session));
        let payload = serde_json::to_vec(stored).expect("a challenge is a map with string keys");
        let payload = self.log.encrypt(who.conversation, &subject, payload.into()).await?;
        self.log.put_at(&subject, &format!("challenge-{}", Uuid::new_v4()), &expected.to_string(), payload).await
    }
}
