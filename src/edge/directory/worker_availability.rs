//! Worker availability, from the workers' advertisements, which the edge polls.
//!
//! An edge holds no gateway keys. It can still tell a visitor at once that no answer will come, when workers are there and none
//! of them has a key. With no worker at all a turn is accepted and waits.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::{
    limits,
    log::jetstream_log::NatsLog,
    nats::{ReadError, jetstream::RawMessage, streams},
    subjects,
    wire::presence::{BUCKET, STREAM, WorkerAdvertisement},
};

/// The availability of a pool's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerAvailability {
    /// At least one worker has a key for the organisation.
    Answers,
    /// Workers are there, and none has a key.
    NoKey,
    /// No worker is there; one may come.
    Nobody,
}

struct Sighting {
    advertisement: WorkerAdvertisement,
    /// The sequence of the advertisement's message in the bucket, and the time when it was first read.
    seq: u64,
    at: Instant,
}

/// The workers and pools that an edge knows.
#[derive(Clone)]
pub struct WorkerDirectory {
    /// The advertisements, by key.
    seen: Arc<Mutex<HashMap<String, Sighting>>>,
    pools: Arc<Mutex<HashMap<(String, String), PoolStatus>>>,
    /// The time when this edge began to look.
    since: Instant,
}

#[derive(Clone, Copy, Default)]
struct PoolStatus {
    /// The time of the last advertisement by a worker of the pool.
    worker_at: Option<Instant>,
    /// The time and the result of the last lookup of the pool.
    asked: Option<(Instant, bool)>,
}

impl Default for WorkerDirectory {
    fn default() -> Self {
        Self { seen: Arc::default(), pools: Arc::default(), since: Instant::now() }
    }
}

impl WorkerDirectory {
    /// Returns the availability of workers for an organisation's turn.
    pub fn availability(&self, region: &str, pool: &str, org: &str) -> WorkerAvailability {
        let seen = self.seen.lock().expect("no panic happens under this lock");
        let ttl = Duration::from_secs(limits::PRESENCE_TTL_SECS);
        let of_pool = |key: &str| subjects::parse_worker_key(key) == Some((region, pool));
        let mut there = seen.iter().filter(|(key, seen)| of_pool(key) && seen.at.elapsed() < ttl).peekable();
        if there.peek().is_none() {
            return WorkerAvailability::Nobody;
        }
        let answers = there.any(|(_, seen)| seen.advertisement.orgs.iter().any(|o| o == "*" || o == org));
        if answers { WorkerAvailability::Answers } else { WorkerAvailability::NoKey }
    }

    /// Returns true if a pool has had no worker for `long`, as far as this edge has looked.
    pub fn has_had_none(&self, region: &str, pool: &str, long: Duration) -> bool {
        let last = self.pool(region, pool).worker_at.map_or(self.since, |at| at.max(self.since));
        last.elapsed() >= long + Duration::from_secs(limits::PRESENCE_TTL_SECS)
    }

    /// Returns the pools of a region in which workers have been seen.
    pub fn pools(&self, region: &str) -> BTreeSet<String> {
        let pools = self.pools.lock().expect("no panic happens under this lock");
        pools.keys().filter(|(of, _)| of == region).map(|(_, pool)| pool.clone()).collect()
    }

    /// Returns true if the pool exists, or if that is unknown. An existing pool may yet get workers; a missing one has no work
    /// for any.
    pub async fn has_pool(&self, log: &NatsLog, region: &str, pool: &str) -> bool {
        let fresh = Duration::from_secs(limits::POOL_FRESH_SECS);
        if let Some((_, there)) = self.pool(region, pool).asked.filter(|(at, _)| at.elapsed() < fresh) {
            return there;
        }
        let asked =
            timeout(Duration::from_millis(limits::READ_TRY_MS), streams::has_pool(&log.client(), region, pool)).await;
        let Ok(Ok(there)) = asked else { return true };
        let mut pools = self.pools.lock().expect("no panic happens under this lock");
        pools.entry((region.to_string(), pool.to_string())).or_default().asked = Some((Instant::now(), there));
        there
    }

    fn pool(&self, region: &str, pool: &str) -> PoolStatus {
        let pools = self.pools.lock().expect("no panic happens under this lock");
        pools.get(&(region.to_string(), pool.to_string())).copied().unwrap_or_default()
    }

    /// Reads all advertisements: a request or two, and no consumer.
    pub async fn read(&self, log: &NatsLog) -> Result<(), ReadError> {
        let (mut there, mut from, mut more) = (Vec::new(), 1, true);
        while more {
            let messages;
            (messages, more) = log.next_of(STREAM, &subjects::kv(BUCKET, ">"), from).await?;
            from = messages.last().map_or(from, |last| last.seq + 1);
            more &= !messages.is_empty();
            there.extend(messages);
        }
        self.take(there);
        Ok(())
    }

    /// Keeps the advertisements current until the future is dropped.
    pub async fn follow(self, log: NatsLog) {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::WORKERS_EVERY_MS)).await;
            if let Err(error) = self.read(&log).await {
                tracing::warn!(%error, "the workers' advertisements can't be read; trying again");
            }
        }
    }

    /// Replaces the known advertisements by these. An empty or malformed advertisement does not count.
    fn take(&self, messages: Vec<RawMessage>) {
        let mut seen = self.seen.lock().expect("no panic happens under this lock");
        let mut before = std::mem::take(&mut *seen);
        for message in messages {
            let Some(key) = subjects::kv_key(BUCKET, &message.subject) else { continue };
            match before.remove(key).filter(|known| known.seq == message.seq) {
                Some(known) => drop(seen.insert(key.to_string(), known)),
                // A withdrawn or expired entry has an empty payload.
                None => {
                    if let Ok(advertisement) = serde_json::from_slice(&message.payload) {
                        if let Some((region, pool)) = subjects::parse_worker_key(key) {
                            let mut pools = self.pools.lock().expect("no panic happens under this lock");
                            let pool = pools.entry((region.to_string(), pool.to_string())).or_default();
                            pool.worker_at = Some(Instant::now());
                        }
                        seen.insert(key.to_string(), Sighting { advertisement, seq: message.seq, at: Instant::now() });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(list: &[(&str, &[&str])]) -> WorkerDirectory {
        let workers = WorkerDirectory::default();
        for (key, orgs) in list {
            let orgs = orgs.iter().map(|org| org.to_string()).collect();
            let advertisement = WorkerAdvertisement { version: "1".into(), orgs };
            workers
                .seen
                .lock()
                .unwrap()
                .insert(key.to_string(), Sighting { advertisement, seq: 1, at: Instant::now() });
        }
        workers
    }

    #[test]
    fn a_turn_needs_a_worker_with_a_key() {
        let availability = |list| workers(list).availability("eu", "default", "acme");
        assert_eq!(availability(&[]), WorkerAvailability::Nobody);
        assert_eq!(availability(&[("eu.other.1", &["*"]), ("us.default.1", &["*"])]), WorkerAvailability::Nobody);
        assert_eq!(availability(&[("eu.default.1", &[])]), WorkerAvailability::NoKey);
        assert_eq!(availability(&[("eu.default.1", &["other"])]), WorkerAvailability::NoKey);
        assert_eq!(availability(&[("eu.default.1", &[]), ("eu.default.2", &["acme"])]), WorkerAvailability::Answers);
    }

    #[test]
    fn a_malformed_advertisement_is_ignored() {
        let message = |subject: &str, seq, payload: &'static str| RawMessage {
            subject: subject.into(),
            seq,
            stored_at: chrono::Utc::now(),
            headers: HashMap::new(),
            payload: payload.into(),
        };
        let workers = WorkerDirectory::default();
        let good = message("$KV.WORKERS.eu.default.1", 3, r#"{"version":"1","orgs":["*"]}"#);
        workers.take(vec![
            message("$KV.WORKERS.eu.default.2", 1, "not json"),
            message("$KV.WORKERS.a b.ü", 2, r#"{"version":"1","orgs":["*"]}"#),
            good.clone(),
        ]);
        assert_eq!(workers.availability("eu", "default", "acme"), WorkerAvailability::Answers);
        workers.take(vec![message("$KV.WORKERS.eu.default.1", 4, "")]);
        assert_eq!(workers.availability("eu", "default", "acme"), WorkerAvailability::Nobody);
    }
}
