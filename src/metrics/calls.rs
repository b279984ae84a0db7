//! Calls of tools, and waits for people and tasks.

use std::time::Duration;

use prometheus_client::{
    metrics::{gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Counters, add, counters, labels, long, names::BoundedNames, short};

const WAITS: [&str; 4] = ["approval", "form", "question", "task"];
const RESOLUTIONS: [&str; 4] = ["approved", "submitted", "declined", "expired"];

pub struct CallMetrics {
    returned: Counters,
    took: Histogram,
    waits: Counters,
    ended: Counters,
    waited: Histogram,
    scheduled: Gauge,
    tools: BoundedNames,
}

impl CallMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            returned: add(r, "tool_calls", "Results of tool calls in the log", Counters::default()),
            took: add(r, "tool_call_seconds", "From a call of a tool to its outcome", short()),
            waits: add(r, "waits", "Turns parked, by kind", counters("kind", &WAITS)),
            ended: add(r, "waits_ended", "Waits ended, by resolution", counters("resolution", &RESOLUTIONS)),
            waited: add(r, "wait_seconds", "From the step before a wait to its end", long()),
            scheduled: add(r, "deadlines_scheduled", "Deadlines of waits that lie ahead", Gauge::default()),
            tools: BoundedNames::default(),
        }
    }

    /// Counts the result of a call.
    pub fn returned(&self, tool: &str, is_error: bool) {
        let outcome = if is_error { "error" } else { "ok" };
        self.returned.get_or_create(&labels([("tool", self.tools.bounded(tool)), ("outcome", outcome)])).inc();
    }

    pub fn took(&self, took: Duration) {
        self.took.observe(took.as_secs_f64());
    }

    pub fn waits(&self, kind: &str) {
        self.waits.get_or_create(&labels([("kind", kind)])).inc();
    }

    pub fn waited(&self, resolution: &str, waited: Duration) {
        self.ended.get_or_create(&labels([("resolution", resolution)])).inc();
        self.waited.observe(waited.as_secs_f64());
    }

    pub fn scheduled(&self, deadlines: u64) {
        self.scheduled.set(i64::try_from(deadlines).unwrap_or(i64::MAX));
    }
}
