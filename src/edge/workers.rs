//! Whether anybody can answer: the workers' advertisements, watched.
//!
//! An edge holds no gateway keys. It can still tell a visitor at once that no answer will come, when workers are there and
//! none of them has a key. With no worker at all a turn is accepted and waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_nats::{
    Client,
    jetstream::{
        self,
        kv::{Entry, Operation},
    },
};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::{
    limits,
    log::streams,
    subjects,
    wire::presence::{Advertisement, BUCKET},
};

/// What is known of a pool's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// At least one worker has a key for the organisation.
    Answers,
    /// Workers are there, and none has a key.
    NoKey,
    /// No worker is there; one may come.
    Nobody,
}

struct Seen {
    advertisement: Advertisement,
    at: Instant,
}

/// What an edge knows of workers.
#[derive(Clone)]
pub struct Workers {
    /// The advertisements, by key.
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    pools: Arc<Mutex<HashMap<(String, String), Pool>>>,
    /// Since when this edge looks.
    since: Instant,
}

/// What is known of a pool.
#[derive(Clone, Copy, Default)]
struct Pool {
    /// When a worker of it advertised itself last.
    worker_at: Option<Instant>,
    /// When it was asked whether there is such a pool, and whether there was.
    asked: Option<(Instant, bool)>,
}

impl Default for Workers {
    fn default() -> Self {
        Self { seen: Arc::default(), pools: Arc::default(), since: Instant::now() }
    }
}

impl Workers {
    /// What to expect for an organisation's turn.
    pub fn outlook(&self, region: &str, pool: &str, org: &str) -> Outlook {
        let seen = self.seen.lock().expect("no panic happens under this lock");
        let ttl = Duration::from_secs(limits::PRESENCE_TTL_SECS);
        let of_pool = |key: &str| subjects::parse_worker_key(key) == Some((region, pool));
        let mut there = seen.iter().filter(|(key, seen)| of_pool(key) && seen.at.elapsed() < ttl).peekable();
        if there.peek().is_none() {
            return Outlook::Nobody;
        }
        let answers = there.any(|(_, seen)| seen.advertisement.orgs.iter().any(|o| o == "*" || o == org));
        if answers { Outlook::Answers } else { Outlook::NoKey }
    }

    /// Whether no worker of a pool has been there for so long, as far as this edge has looked.
    pub fn has_had_none(&self, region: &str, pool: &str, long: Duration) -> bool {
        let last = self.pool(region, pool).worker_at.map_or(self.since, |at| at.max(self.since));
        last.elapsed() >= long + Duration::from_secs(limits::PRESENCE_TTL_SECS)
    }

    /// Whether there is such a pool: that nobody is there may change, that nobody can find work there does not. Unknown counts as
    /// yes.
    pub async fn has_pool(&self, client: &Client, region: &str, pool: &str) -> bool {
        let fresh = Duration::from_secs(limits::POOL_FRESH_SECS);
        if let Some((_, there)) = self.pool(region, pool).asked.filter(|(at, _)| at.elapsed() < fresh) {
            return there;
        }
        let asked = timeout(Duration::from_millis(limits::READ_TRY_MS), streams::has_pool(client, region, pool)).await;
        let Ok(Ok(there)) = asked else { return true };
        let mut pools = self.pools.lock().expect("no panic happens under this lock");
        pools.entry((region.to_string(), pool.to_string())).or_default().asked = Some((Instant::now(), there));
        there
    }

    fn pool(&self, region: &str, pool: &str) -> Pool {
        let pools = self.pools.lock().expect("no panic happens under this lock");
        pools.get(&(region.to_string(), pool.to_string())).copied().unwrap_or_default()
    }

    /// Reads the advertisements that are there, so that an edge knows them before it accepts clients.
    pub async fn read(&self, client: Client) -> Result<(), async_nats::Error> {
        let bucket = jetstream::new(client).get_key_value(BUCKET).await?;
        let mut keys = bucket.keys().await?;
        while let Some(key) = keys.next().await {
            if let Some(entry) = bucket.entry(key?).await? {
                self.take(entry);
            }
        }
        Ok(())
    }

    /// Keeps the advertisements current until the future is dropped. One watch serves the whole edge.
    pub async fn watch(self, client: Client) {
        let context = jetstream::new(client);
        loop {
            if let Err(error) = self.follow(&context).await {
                tracing::warn!(%error, "the workers' advertisements can't be read; trying again");
            }
            tokio::time::sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
        }
    }

    async fn follow(&self, context: &jetstream::Context) -> Result<(), async_nats::Error> {
        let bucket = context.get_key_value(BUCKET).await?;
        let mut changes = bucket.watch_with_history(">").await?;
        // A watch goes on after the sequence that it saw last, and sees nothing on a bucket that a restarted server has
        // forgotten and that begins anew. Workers are never silent for so long, so silence is reason to watch afresh.
        let silence = Duration::from_secs(limits::PRESENCE_TTL_SECS);
        while let Ok(Some(change)) = timeout(silence, changes.next()).await {
            self.take(change?);
        }
        Ok(())
    }

    fn take(&self, entry: Entry) {
        let mut seen = self.seen.lock().expect("no panic happens under this lock");
        match (entry.operation, serde_json::from_slice(&entry.value)) {
            (Operation::Put, Ok(advertisement)) => {
                if let Some((region, pool)) = subjects::parse_worker_key(&entry.key) {
                    let mut pools = self.pools.lock().expect("no panic happens under this lock");
                    pools.entry((region.to_string(), pool.to_string())).or_default().worker_at = Some(Instant::now());
                }
                seen.insert(entry.key, Seen { advertisement, at: Instant::now() });
            }
            (Operation::Put, Err(error)) => tracing::warn!(%error, key = entry.key, "a malformed advertisement"),
            (Operation::Delete | Operation::Purge, _) => {
                seen.remove(&entry.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(list: &[(&str, &[&str])]) -> Workers {
        let workers = Workers::default();
        for (key, orgs) in list {
            let orgs = orgs.iter().map(|org| org.to_string()).collect();
            let advertisement = Advertisement { version: "1".into(), orgs };
            workers.seen.lock().unwrap().insert(key.to_string(), Seen { advertisement, at: Instant::now() });
        }
        workers
    }

    #[test]
    fn only_workers_without_a_key_make_a_turn_hopeless() {
        let outlook = |list| workers(list).outlook("eu", "default", "acme");
        assert_eq!(outlook(&[]), Outlook::Nobody);
        assert_eq!(outlook(&[("eu.other.1", &["*"]), ("us.default.1", &["*"])]), Outlook::Nobody);
        assert_eq!(outlook(&[("eu.default.1", &[])]), Outlook::NoKey);
        assert_eq!(outlook(&[("eu.default.1", &["other"])]), Outlook::NoKey);
        assert_eq!(outlook(&[("eu.default.1", &[]), ("eu.default.2", &["acme"])]), Outlook::Answers);
    }
}
