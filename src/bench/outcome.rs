//! The result of a scenario: times, figures and faults.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    fault::{Fault, FaultLog},
    procs::{ProcessUse, WindowUse},
};

/// Shorter and longer times are recorded as these bounds.
const SHORTEST_NS: u64 = 1_000;

const LONGEST_NS: u64 = 300_000_000_000;

const DIGITS: u8 = 3;

const NS_PER_MS: f64 = 1e6;

/// A collection of times.
pub struct Samples(Histogram<u64>);

impl Samples {
    pub fn new() -> Samples {
        let histogram = Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS);
        Samples(histogram.expect("the bounds are constants that the library accepts"))
    }

    pub fn add_ns(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(SHORTEST_NS));
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the quantiles. `None` = no samples.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let ms = |ns: u64| ns as f64 / NS_PER_MS;
        let at = |quantile: f64| ms(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Quantiles {
            count: self.0.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: ms(self.0.max()),
        })
    }
}

/// The summary of a collection of times.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// The result of one scenario, or of one variant of it.
#[derive(Debug, Default, Serialize)]
pub struct ScenarioOutcome {
    pub scenario: String,
    pub settings: BTreeMap<&'static str, u64>,
    pub seconds: f64,
    /// Number of requests, turns or connections, by scenario.
    pub count: u64,
    pub rate_per_s: f64,
    pub latencies: BTreeMap<&'static str, Quantiles>,
    pub figures: BTreeMap<String, f64>,
    pub processes: Vec<ProcessUse>,
    pub bench_cpu_ms: u64,
    pub errors: u64,
    pub first_errors: Vec<String>,
}

impl ScenarioOutcome {
    pub fn new(scenario: &str) -> ScenarioOutcome {
        ScenarioOutcome { scenario: scenario.to_owned(), ..ScenarioOutcome::default() }
    }

    /// Creates the outcome of a scenario that could not be run.
    pub fn failed(scenario: &str, why: &anyhow::Error) -> ScenarioOutcome {
        let mut outcome = ScenarioOutcome::new(scenario);
        outcome.errors = 1;
        outcome.first_errors.push(format!("{why:#}"));
        outcome
    }

    pub fn set(&mut self, name: &'static str, value: u64) -> &mut ScenarioOutcome {
        self.settings.insert(name, value);
        self
    }

    pub fn figure(&mut self, name: &str, value: f64) -> &mut ScenarioOutcome {
        self.figures.insert(name.to_owned(), value);
        self
    }

    pub fn latency(&mut self, name: &'static str, samples: &Samples) -> &mut ScenarioOutcome {
        if let Some(quantiles) = samples.quantiles() {
            self.latencies.insert(name, quantiles);
        }
        self
    }

    /// Sets the figures of a measured window with `count` requests, turns or connections.
    pub fn window(&mut self, used: WindowUse, count: u64) -> &mut ScenarioOutcome {
        self.seconds = used.seconds;
        self.count = count;
        self.rate_per_s = ratio(count as f64, used.seconds);
        self.bench_cpu_ms = used.bench_cpu_ms;
        self.processes = used.processes;
        used.faults.iter().for_each(|fault| self.fault(fault));
        self
    }

    pub fn fault(&mut self, fault: &Fault) {
        let mut log = FaultLog::default();
        log.add(fault);
        self.faults(log);
    }

    pub fn faults(&mut self, log: FaultLog) {
        let first = std::mem::take(&mut self.first_errors);
        let mut all = FaultLog { count: self.errors, first };
        all.merge(log);
        (self.errors, self.first_errors) = (all.count, all.first);
    }
}

/// Returns a ratio; 0 if the divisor is 0.
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl ScenarioOutcome {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings.iter().fold(String::new(), |mut text, (name, value)| {
            // Writing to a String cannot fail.
            let _ = write!(text, "  {name} {value}");
            text
        });
        writeln!(f, "\n{}{settings}", self.scenario)?;
        writeln!(
            f,
            "  {} in {:.1} s, {:.0} a second, {} errors",
            self.count, self.seconds, self.rate_per_s, self.errors
        )?;
        self.first_errors.iter().try_for_each(|error| writeln!(f, "  ! {error}"))?;
        self.write_latencies(f)?;
        for (name, value) in &self.figures {
            writeln!(f, "  {name:<34} {value:>11.1}")?;
        }
        self.write_processes(f)
    }

    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.latencies.is_empty() {
            return Ok(());
        }
        let heads = ["count", "p50 ms", "p90 ms", "p99 ms", "max ms"];
        let [count, p50, p90, p99, max] = heads;
        writeln!(f, "  {:<22} {count:>11} {p50:>9} {p90:>9} {p99:>9} {max:>9}", "latency")?;
        for (name, q) in &self.latencies {
            let Quantiles { count, p50_ms, p90_ms, p99_ms, max_ms } = q;
            write!(f, "  {name:<22} {count:>11} {p50_ms:>9.3} {p90_ms:>9.3}")?;
            writeln!(f, " {p99_ms:>9.3} {max_ms:>9.3}")?;
        }
        Ok(())
    }

    fn write_processes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.processes.is_empty() {
            return Ok(());
        }
        let [cpu, before, after] = ["cpu ms", "RSS MiB before", "after"];
        writeln!(f, "  {:<22} {cpu:>11} {before:>15} {after:>9}", "process")?;
        for used in &self.processes {
            let label = format!("{} ({})", used.name, used.pid);
            let mib = |kib: u64| kib as f64 / 1024.0;
            let (before, after) = (mib(used.rss_before_kib), mib(used.rss_after_kib));
            writeln!(f, "  {label:<22} {:>11} {before:>15.1} {after:>9.1}", used.cpu_ms)?;
        }
        writeln!(f, "  {:<22} {:>11}", "the bench itself", self.bench_cpu_ms)
    }
}
