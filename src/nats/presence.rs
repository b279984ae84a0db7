//! Advertises a running process in a bucket.
//!
//! An entry expires at the server and at its readers, so no cleanup is needed after a process that died.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    ReadError,
    direct_get::LastMessages,
    jetstream::{JetStream, RawMessage},
};
use crate::{limits, subjects};

/// A renewed entry.
pub struct PresenceEntry {
    pub jetstream: JetStream,
    pub process: Uuid,
    /// Subject of the bucket's entry.
    pub subject: String,
    /// Returns the current content of the entry.
    pub payload: Box<dyn Fn() -> Bytes + Send + Sync>,
}

impl PresenceEntry {
    /// Renews the entry until `shutdown`, then withdraws it.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut ticks = interval(Duration::from_millis(limits::PRESENCE_EVERY_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 0u64.. {
            if shutdown.run_until_cancelled(ticks.tick()).await.is_none() {
                break;
            }
            self.renew(n).await;
        }
        let id = format!("{}-end", self.process);
        if let Err(error) = self.jetstream.put(&self.subject, &id, &[("KV-Operation", "DEL")], "".into()).await {
            tracing::debug!(%error, "the advertisement was not withdrawn; it expires");
        }
    }

    /// Writes the entry for the `n`th time.
    pub async fn renew(&self, n: u64) {
        let ttl = limits::PRESENCE_TTL_SECS.to_string();
        let id = format!("{}-{n}", self.process);
        let put = self.jetstream.put(&self.subject, &id, &[("Nats-TTL", &ttl)], (self.payload)()).await;
        if let Err(error) = put {
            tracing::warn!(%error, subject = self.subject, "the process could not advertise itself");
        }
    }
}

/// The bucket of current counts: notes of running turns, and numbers that edges report.
pub const NUMBERS: &str = "TURNS";
/// The stream behind the bucket.
pub const NUMBERS_STREAM: &str = "KV_TURNS";

/// Returns the numbers that edges reported, by edge.
pub async fn numbers(jetstream: &JetStream, subject: &str) -> Result<Vec<(Uuid, u64)>, ReadError> {
    match jetstream.last_of(NUMBERS_STREAM, &[subject.to_string()]).await? {
        LastMessages::All(messages) => {
            let number = |message: &RawMessage| {
                let number = std::str::from_utf8(&message.payload).ok()?.parse().ok()?;
                Some((subjects::parse_last_id(&message.subject)?, number))
            };
            Ok(messages.iter().filter_map(number).collect())
        }
        LastMessages::TooMany => Err(ReadError::Unavailable(format!("too many numbers fit {subject}"))),
    }
}

/// Returns the processes that advertise themselves in a bucket.
pub async fn processes(jetstream: &JetStream, stream: &str, bucket: &str) -> Result<HashSet<Uuid>, ReadError> {
    match jetstream.last_of(stream, &[subjects::kv(bucket, ">")]).await? {
        LastMessages::All(messages) => {
            let there = messages.iter().filter(|message| !message.headers.contains_key("KV-Operation"));
            Ok(there.filter_map(|message| subjects::parse_last_id(&message.subject)).collect())
        }
        LastMessages::TooMany => Err(ReadError::Unavailable(format!("too many processes in {bucket} to list"))),
    }
}
