//! Whether a process can do its work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    edge::server,
    log::{bus::Bus, streams},
    worker::Worker,
};

/// How often the streams are compared with their definitions while the process runs.
const STREAMS_CHECK_EVERY_MS: u64 = 5_000;

/// Whether a process can do its work: what `/ready` says.
pub(super) struct Health {
    bus: Bus,
    region: String,
    worker: Option<Arc<Worker>>,
    pub draining: AtomicBool,
    streams: AtomicBool,
}

impl Health {
    /// Refuses to start on streams that are missing or dangerously different.
    pub async fn start(bus: &Bus, region: &str, worker: Option<Arc<Worker>>) -> anyhow::Result<Arc<Self>> {
        streams::check(&bus.client, region).await?;
        let (draining, streams) = (AtomicBool::new(false), AtomicBool::new(true));
        Ok(Arc::new(Self { bus: bus.clone(), region: region.to_string(), worker, draining, streams }))
    }

    /// Notices a stream or consumer that was deleted or recreated otherwise while the process runs.
    pub async fn watch_streams(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(STREAMS_CHECK_EVERY_MS)).await;
            let checked = streams::check(&self.bus.client, &self.region).await;
            if let Err(error) = &checked {
                tracing::error!(%error, "the streams are not as they must be");
            }
            self.streams.store(checked.is_ok(), Ordering::Relaxed);
        }
    }

    pub fn probe(self: Arc<Self>) -> server::Readiness {
        Arc::new(move || {
            if self.draining.load(Ordering::Relaxed) {
                return Err("stopping".into());
            }
            if !self.bus.healthy() {
                return Err("NATS is not connected, or denies something".into());
            }
            if !self.streams.load(Ordering::Relaxed) {
                return Err("the streams are not as they must be".into());
            }
            match &self.worker {
                Some(worker) if !worker.is_pulling() => Err("the consumer of work items does not answer".into()),
                _ => Ok(()),
            }
        })
    }
}
