//! Work items: a worker's own, and those that its consumer still holds.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Counters, Gauges, add, counters, labels, names::BoundedNames};

/// The results of work items.
const RESULTS: [&str; 8] =
    ["done", "fenced", "handed_over", "unavailable", "put_off", "too_late", "too_large", "malformed"];

/// A pool's queue, as the server tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueState {
    pub pending: u64,
    pub unacked: u64,
    /// Age of the oldest pending item, in seconds.
    pub oldest_secs: u64,
}

pub struct WorkMetrics {
    running: Gauge,
    permits: Gauge,
    items: Counters,
    redeliveries: Counter,
    pending: Gauges,
    unacked: Gauges,
    oldest: Gauges,
    pulling: Gauge,
    pools: BoundedNames,
}

/// A turn that a worker drives; it counts as running until this is dropped.
pub struct RunningTurn(());

impl WorkMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            running: add(r, "turns_running", "Turns that this worker drives", Gauge::default()),
            permits: add(r, "turn_permits", "Turns that this worker may drive at a time", Gauge::default()),
            items: add(r, "work_items", "Work items handled, by result", counters("result", &RESULTS)),
            redeliveries: add(r, "redeliveries", "Work items that were delivered again", Counter::default()),
            pending: add(r, "work_items_pending", "Work items that no worker has yet", Gauges::default()),
            unacked: add(r, "work_items_unacked", "Work items that workers have not finished", Gauges::default()),
            oldest: add(r, "work_item_oldest_seconds", "Age of the oldest pending work item", Gauges::default()),
            pulling: add(r, "pulling", "1 while this worker's consumer answers", Gauge::default()),
            pools: BoundedNames::default(),
        }
    }

    /// Sets the number of turns that the worker may drive.
    pub fn permits(&self, permits: usize) {
        self.permits.set(permits as i64);
    }

    pub fn pulls(&self, is_pulling: bool) {
        self.pulling.set(is_pulling.into());
    }

    /// Counts a delivered item as running.
    pub fn delivered(&self, deliveries: i64) -> RunningTurn {
        self.running.inc();
        if deliveries > 1 {
            self.redeliveries.inc();
        }
        RunningTurn(())
    }

    /// Counts an item that is no longer handled here.
    pub fn handled(&self, result: &str) {
        self.items.get_or_create(&labels([("result", result)])).inc();
    }

    pub fn queue(&self, pool: &str, state: QueueState) {
        let of = labels([("pool", self.pools.bounded(pool))]);
        let set = |gauges: &Gauges, value: u64| {
            gauges.get_or_create(&of).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.pending, state.pending);
        set(&self.unacked, state.unacked);
        set(&self.oldest, state.oldest_secs);
    }
}

impl Drop for RunningTurn {
    fn drop(&mut self) {
        super::metrics().work.running.dec();
    }
}
