//! The links of one process to all servers.

use std::time::Duration;

use futures_util::future::join_all;

use super::proxy::Proxy;

/// A proxy for each server; they end with the value.
pub struct Link(Vec<Proxy>);

impl Link {
    /// Starts a link to the servers of a `NATS_URL`.
    pub async fn start(nats_url: &str) -> Self {
        Self(join_all(nats_url.split(',').map(Proxy::start)).await)
    }

    /// Returns the process's `NATS_URL`.
    pub fn url(&self) -> String {
        self.0.iter().map(Proxy::url).collect::<Vec<_>>().join(",")
    }

    /// Cuts the link again and again.
    pub async fn flap(&self, times: usize, every: Duration) {
        join_all(self.0.iter().map(|proxy| proxy.flap(times, every))).await;
    }

    /// Cuts the link until it is mended.
    pub fn leave(&self) {
        self.0.iter().for_each(Proxy::leave);
    }

    pub fn back(&self) {
        self.0.iter().for_each(Proxy::back);
    }

    /// Holds back all traffic from the process, beginning with the request that holds these words.
    pub fn hold_requests_from(&self, said: &'static str) {
        self.0.iter().for_each(|proxy| proxy.hold_requests_from(said));
    }

    pub fn let_go(&self) {
        self.0.iter().for_each(Proxy::let_go);
    }
}
