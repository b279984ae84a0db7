//! The readiness of a process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;

use crate::{
    edge::transport::server,
    limits,
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
    streams: AtomicBool,
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
        let [draining, streams, has_pool] = [false, true, true].map(AtomicBool::new);
        let health = Self { nats: nats.clone(), region, pool, worker, draining, streams, has_pool };
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
                tracing::error!(%error, "the streams differ from their definitions");
            }
            self.streams.store(checked.is_ok(), Ordering::Relaxed);
            self.look().await;
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
            if !self.streams.load(Ordering::Relaxed) {
                return Err("the streams differ from their definitions".into());
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
