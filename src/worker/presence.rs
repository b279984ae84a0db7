//! Advertises this worker, so that edges can distinguish "no worker can answer" from "a worker will".

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::{
    nats::presence::PresenceEntry,
    subjects,
    wire::presence::{BUCKET, WorkerAdvertisement},
};

/// Renews the advertisement until `shutdown`, then withdraws it.
pub async fn advertise(worker: Arc<Worker>, shutdown: CancellationToken) {
    let key = subjects::worker_key(&worker.settings.region, &worker.settings.pool, worker.id);
    let subject = subjects::kv(BUCKET, &key);
    let (log, process) = (worker.log.clone(), worker.id);
    // Evaluated at each renewal, because organisations' keys may come and go.
    let payload = Box::new(move || {
        // An agent that is another program has the keys that it needs.
        let orgs = if worker.settings.agent.is_some() { vec!["*".into()] } else { worker.gateways.orgs() };
        let advertisement = WorkerAdvertisement { version: env!("CARGO_PKG_VERSION").into(), orgs };
        serde_json::to_vec(&advertisement).expect("an advertisement is a map with string keys").into()
    });
    PresenceEntry { jetstream: log.jetstream(), process, subject, payload }.keep(shutdown).await;
}
