//! Clients' connections to an edge.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Counters, add, counters, labels};

pub struct ConnectionMetrics {
    open: Gauge,
    opened: Counter,
    closed: Counters,
    refused: Counters,
    errors: Counters,
    repairs: Counters,
}

/// A connection that counts as open until this is dropped.
pub struct OpenConnection(&'static str);

impl ConnectionMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            open: add(r, "connections", "Open WebSockets", Gauge::default()),
            opened: add(r, "connections_opened", "WebSockets opened", Counter::default()),
            closed: add(r, "connections_closed", "WebSockets closed, by reason", Counters::default()),
            refused: add(r, "handshakes_refused", "Upgrades refused, by HTTP status", Counters::default()),
            errors: add(r, "errors", "Error frames that an edge made, by code", Counters::default()),
            repairs: add(
                r,
                "repairs",
                "Gaps in live frames that were repaired",
                counters("source", &["stream", "log"]),
            ),
        }
    }

    pub fn opened(&self) -> OpenConnection {
        self.open.inc();
        self.opened.inc();
        OpenConnection("client")
    }

    pub fn refused(&self, status: u16) {
        self.refused.get_or_create(&labels([("status", &status.to_string())])).inc();
    }

    pub fn error(&self, code: &str) {
        self.errors.get_or_create(&labels([("code", code)])).inc();
    }

    /// Counts a gap that was filled from the stream LIVE or from the log.
    pub fn repaired(&self, source: &str) {
        self.repairs.get_or_create(&labels([("source", source)])).inc();
    }
}

impl OpenConnection {
    /// Names the reason of this side, if this side closes.
    pub fn closes(&mut self, reason: &'static str) {
        self.0 = reason;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let connections = &super::metrics().connections;
        connections.open.dec();
        connections.closed.get_or_create(&labels([("reason", self.0)])).inc();
    }
}
