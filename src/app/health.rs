//! The readiness of a process.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;

use crate::{
    edge::transport::server,
    ids, limits,
    log::jetstream_log::NatsLog,
    nats::{connection::NatsConnection, streams},
    worker::Worker,
};

/// Interval of the comparison of the streams with their definitions.
const STREAMS_CHECK_EVERY_MS: u64 = 5_000;

/// The readiness of a process, reported by `/ready`.
pub(super) struct ProcessHealth {
    nats: NatsConnection,
    region: String,
    pool: String,
    worker: Option<Arc<Worker>>,
    pub draining: AtomicBool,
    /// The last check of the streams, with the reason of its failure.
    streams: Mutex<Result<(), String>>,
    /// The last canary.
    storage: Mutex<Result<(), String>>,
    has_pool: AtomicBool,
}

impl ProcessHealth {
    /// Refuses to start on streams that are missing or dangerously different.
    pub async fn start(
        nats: &NatsConnection,
        region: &str,
        pool: &str,
        worker: Option<Arc<Worker>>,
    ) -> anyhow::Result<Arc<Self>> {
        streams::check(&nats.client, region).await?;
        let (region, pool) = (region.to_string(), pool.to_string());
        let [draining, has_pool] = [false, true].map(AtomicBool::new);
        let [streams, storage] = [(); 2].map(|()| Mutex::new(Ok(())));
        let health = Self { nats: nats.clone(), region, pool, worker, draining, streams, storage, has_pool };
        health.look().await;
        Ok(Arc::new(health))
    }

    /// Checks the dependencies beside the streams: the server's clock, the pool, the permissions.
    async fn look(&self) {
        if let Err(error) = streams::measure(&self.nats.client, &self.region, &self.nats.clock).await {
            tracing::warn!(%error, "the NATS server's clock can't be read");
        }
        match streams::has_pool(&self.nats.client, &self.region, &self.pool).await {
            Ok(has_pool) => self.has_pool.store(has_pool, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, pool = self.pool, "the worker pool can't be looked up"),
        }
        self.nats.try_refused_again().await;
    }

    /// Detects at run time a stream or consumer that was deleted or recreated differently.
    pub async fn watch_streams(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(STREAMS_CHECK_EVERY_MS)).await;
            let checked = streams::check(&self.nats.client, &self.region).await;
            if let Err(error) = &checked {
                tracing::error!(%error, "the check of the streams failed");
            }
            *self.streams.lock().expect("no panic happens under this lock") =
                checked.map_err(|error| error.to_string());
            self.look().await;
        }
    }

    /// Stores a canary again and again, and reads the gauges of queues and of the stream AUDIT.
    ///
    /// A server that has lost its quorum, or has a full disk, still answers questions: only a write tells.
    pub async fn watch_storage(self: Arc<Self>, log: NatsLog) {
        let process = ids::new_random();
        loop {
            let stored = log.write_canary(process).await;
            if let Err(error) = &stored {
                tracing::error!(error, "the storage takes no writes");
            }
            let is_stored = stored.is_ok();
            *self.storage.lock().expect("no panic happens under this lock") = stored;
            if is_stored {
                let (queue, audit) =
                    tokio::join!(log.gauge_queue(&self.region, &self.pool), log.gauge_audit(&self.region));
                for error in [queue.err(), audit.err()].into_iter().flatten() {
                    tracing::debug!(%error, "some gauges can't be read");
                }
            }
            tokio::time::sleep(Duration::from_millis(limits::CANARY_MS)).await;
        }
    }

    pub fn probe(self: Arc<Self>) -> server::Readiness {
        Arc::new(move || {
            if self.draining.load(Ordering::Relaxed) {
                return Err("stopping".into());
            }
            if !self.nats.healthy() {
                return Err("NATS is not connected, or denies a permission".into());
            }
            if let Err(cause) = &*self.streams.lock().expect("no panic happens under this lock") {
                return Err(cause.clone());
            }
            if let Err(cause) = &*self.storage.lock().expect("no panic happens under this lock") {
                return Err(format!("the storage takes no writes: {cause}"));
            }
            let offset = self.nats.clock.offset();
            if offset.abs() > TimeDelta::milliseconds(limits::CLOCK_OFFSET_MAX_MS) {
                let seconds = offset.as_seconds_f64().abs();
                let which = if offset > TimeDelta::zero() { "behind" } else { "ahead of" };
                return Err(format!("the clock is {seconds:.1} s {which} that of the NATS server"));
            }
            if !self.has_pool.load(Ordering::Relaxed) {
                return Err(format!("there is no worker pool `{}`", self.pool));
            }
            match &self.worker {
                Some(worker) if !worker.is_pulling() => Err("the consumer of work items does not answer".into()),
                _ => Ok(()),
            }
        })
    }
}
