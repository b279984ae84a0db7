//! The log, and the state of the streams.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Counters, Gauges, add, counters, labels, short};

/// A stream, as the server tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamState {
    pub name: String,
    pub messages: u64,
    pub bytes: u64,
    /// `None`: no limit.
    pub max_bytes: Option<u64>,
    pub replicas: u64,
    pub current_replicas: u64,
}

pub struct StorageMetrics {
    appends: Counters,
    append: Histogram,
    conflicts: Counter,
    retries: Counter,
    errors: Counters,
    writable: Gauge,
    messages: Gauges,
    bytes: Gauges,
    max_bytes: Gauges,
    replicas: Gauges,
    current_replicas: Gauges,
    index_lag: Gauge,
    dead_letters: Gauge,
    checkpoint_age: Gauges,
    erasures: Gauge,
}

impl StorageMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            appends: add(r, "appends", "Events appended, by stored name", Counters::default()),
            append: add(r, "append_seconds", "An append, its retries included", short()),
            conflicts: add(r, "append_conflicts", "Appends that lost against another author", Counter::default()),
            retries: add(r, "append_retries", "Publishes repeated because no ack came", Counter::default()),
            errors: add(
                r,
                "storage_errors",
                "Appends and reads that failed in the end",
                counters("operation", &["append", "read"]),
            ),
            writable: add(r, "storage_writable", "1 if the last canary was stored", Gauge::default()),
            messages: add(r, "stream_messages", "Messages in a stream", Gauges::default()),
            bytes: add(r, "stream_bytes", "Bytes of a stream", Gauges::default()),
            max_bytes: add(r, "stream_max_bytes", "Limit of a stream's bytes", Gauges::default()),
            replicas: add(r, "stream_replicas", "Configured replicas of a stream", Gauges::default()),
            current_replicas: add(r, "stream_replicas_current", "Replicas that are up to date", Gauges::default()),
            index_lag: add(r, "index_lag", "Events that the index has not taken yet", Gauge::default()),
            dead_letters: add(r, "dead_letters", "Messages in DEAD", Gauge::default()),
            checkpoint_age: add(r, "checkpoint_age_seconds", "Age of the newest checkpoint", Gauges::default()),
            erasures: add(r, "erasures_pending", "Erasures not known to be carried out", Gauge::default()),
        }
    }

    /// Counts an event that is in the log.
    pub fn appended(&self, event: &str, took: Duration) {
        self.appends.get_or_create(&labels([("event", event)])).inc();
        self.append.observe(took.as_secs_f64());
    }

    pub fn conflicted(&self) {
        self.conflicts.inc();
    }

    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Counts an `append` or `read` that failed in the end.
    pub fn failed(&self, operation: &str) {
        self.errors.get_or_create(&labels([("operation", operation)])).inc();
    }

    pub fn writable(&self, is_writable: bool) {
        self.writable.set(is_writable.into());
    }

    pub fn stream(&self, state: &StreamState) {
        let of = labels([("stream", &state.name)]);
        let set = |gauges: &Gauges, value: u64| {
            gauges.get_or_create(&of).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.messages, state.messages);
        set(&self.bytes, state.bytes);
        set(&self.replicas, state.replicas);
        set(&self.current_replicas, state.current_replicas);
        match state.max_bytes {
            Some(max) => set(&self.max_bytes, max),
            None => {
                self.max_bytes.remove(&of);
            }
        }
    }

    pub fn index_lag(&self, events: u64) {
        self.index_lag.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    pub fn dead_letters(&self, letters: u64) {
        self.dead_letters.set(i64::try_from(letters).unwrap_or(i64::MAX));
    }

    /// Sets the age of the newest checkpoint.
    pub fn checkpoint_age(&self, seconds: i64) {
        self.checkpoint_age.get_or_create(&vec![]).set(seconds.max(0));
    }

    pub fn erasures(&self, pending: u64) {
        self.erasures.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }
}
