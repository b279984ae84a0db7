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
    batch::LastMessages,
    nats::{NatsLog, RawMessage},
    notes,
};
use crate::{
    limits, subjects,
    wire::presence::{EDGES, EDGES_STREAM},
};

/// A renewed entry.
pub struct PresenceEntry {
    pub log: NatsLog,
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
        if let Err(error) = self.log.put(&self.subject, &id, &[("KV-Operation", "DEL")], "".into()).await {
            tracing::debug!(%error, "the advertisement was not withdrawn; it expires");
        }
    }

    /// Writes the entry for the `n`th time.
    pub async fn renew(&self, n: u64) {
        let ttl = limits::PRESENCE_TTL_SECS.to_string();
        let id = format!("{}-{n}", self.process);
        let put = self.log.put(&self.subject, &id, &[("Nats-TTL", &ttl)], (self.payload)()).await;
        if let Err(error) = put {
            tracing::warn!(%error, subject = self.subject, "the process could not advertise itself");
        }
    }
}

/// The bucket of current counts: notes of running turns, and numbers that edges report.
pub const NUMBERS: &str = "TURNS";

/// Returns the numbers that edges reported, by edge.
pub async fn numbers(log: &NatsLog, subject: &str) -> Result<Vec<(Uuid, u64)>, ReadError> {
    match log.last_of(notes::STREAM, &[subject.to_string()]).await? {
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

/// Returns the running edges.
pub async fn edges(log: &NatsLog) -> Result<HashSet<Uuid>, ReadError> {
    match log.last_of(EDGES_STREAM, &[subjects::kv(EDGES, ">")]).await? {
        LastMessages::All(messages) => {
            let there = messages.iter().filter(|message| !message.headers.contains_key("KV-Operation"));
            Ok(there.filter_map(|message| subjects::parse_last_id(&message.subject)).collect())
        }
        LastMessages::TooMany => Err(ReadError::Unavailable("too many edges to list".into())),
    }
}
