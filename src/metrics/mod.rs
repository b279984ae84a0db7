//! The process's metrics, in the OpenMetrics text format: `spec/metrics.md` has their names and meanings.
//!
//! - [`turns`], [`work`], [`gateway`], [`calls`], [`connections`], [`storage`], [`process`]: the metrics by subject.
//! - [`names`]: bounds on the values of labels.
//!
//! Any room may count here: this room imports none. A count on the way of a token is one relaxed atomic addition.

pub mod calls;
pub mod connections;
pub mod gateway;
pub mod names;
pub mod process;
pub mod storage;
pub mod turns;
pub mod work;

use std::sync::LazyLock;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// The media type of [`text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Times from a millisecond to a minute: requests, appends, first tokens.
const SHORT_SECS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Times from a tenth of a second to a week: turns, and waits for people.
const LONG_SECS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 86_400.0, 604_800.0];

/// The labels of one series.
type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;
type Times = Family<Labels, Histogram>;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    pub turns: turns::TurnMetrics,
    pub work: work::WorkMetrics,
    pub gateway: gateway::GatewayMetrics,
    pub calls: calls::CallMetrics,
    pub connections: connections::ConnectionMetrics,
    pub storage: storage::StorageMetrics,
    pub process: process::ProcessMetrics,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("turnstream");
        let r = &mut registry;
        Self {
            turns: turns::TurnMetrics::new(r),
            work: work::WorkMetrics::new(r),
            gateway: gateway::GatewayMetrics::new(r),
            calls: calls::CallMetrics::new(r),
            connections: connections::ConnectionMetrics::new(r),
            storage: storage::StorageMetrics::new(r),
            process: process::ProcessMetrics::new(r),
            registry,
        }
    }
}

/// Returns the process's metrics.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// Returns all metrics as text.
pub fn text() -> String {
    let mut text = String::new();
    encode(&mut text, &metrics().registry).expect("writing to a string does not fail");
    text
}

/// Registers a metric under its name, which a counter's text form extends by `_total`.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_string())).to_vec()
}

/// Returns counters with a series at 0 for each value of their one label, so that an increase from nothing is seen.
fn counters(label: &'static str, values: &[&str]) -> Counters {
    let counters = Counters::default();
    for value in values {
        drop(counters.get_or_create(&labels([(label, *value)])));
    }
    counters
}

fn short() -> Histogram {
    Histogram::new(SHORT_SECS)
}

fn long() -> Histogram {
    Histogram::new(LONG_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_in_the_text_under_its_whole_name() {
        metrics().turns.frames.inc();
        let text = text();
        assert!(text.contains("# TYPE turnstream_stream_frames counter\nturnstream_stream_frames_total "), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
