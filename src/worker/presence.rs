//! Says that this worker is there, so that edges can tell "nobody can answer" from "somebody will".
//!
//! An advertisement expires at the server and at its readers; a worker that dies needs nobody to clean up after it.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::{
    limits, subjects,
    wire::presence::{Advertisement, BUCKET},
};

/// Renews the advertisement until `shutdown`, then withdraws it.
pub async fn advertise(worker: Arc<Worker>, shutdown: CancellationToken) {
    let key = subjects::worker_key(&worker.settings.region, &worker.settings.pool, worker.id);
    let subject = subjects::kv(BUCKET, &key);
    let ttl = limits::PRESENCE_TTL_SECS.to_string();
    let mut ticks = interval(Duration::from_millis(limits::PRESENCE_EVERY_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0u64.. {
        if shutdown.run_until_cancelled(ticks.tick()).await.is_none() {
            break;
        }
        let advertisement = Advertisement { version: env!("CARGO_PKG_VERSION").into(), orgs: worker.gateways.orgs() };
        let payload = serde_json::to_vec(&advertisement).expect("an advertisement is a map with string keys");
        let id = format!("{}-{n}", worker.id);
        if let Err(error) = worker.log.put(&subject, &id, &[("Nats-TTL", &ttl)], payload.into()).await {
            tracing::warn!(%error, "the worker could not advertise itself");
        }
    }
    let id = format!("{}-end", worker.id);
    if let Err(error) = worker.log.put(&subject, &id, &[("KV-Operation", "DEL")], "".into()).await {
        tracing::debug!(%error, "the advertisement was not withdrawn; it expires");
    }
}
