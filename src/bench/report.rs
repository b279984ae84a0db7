//! The results of scenarios, as JSON and as a table.
//!
//! Contract: every name carries its unit last; latencies are milliseconds, memory is KiB in JSON and MiB in the table.

use std::fmt;

use serde::Serialize;

use super::{baseline::CheckedRatio, compare::Comparison, outcome::ScenarioOutcome};

/// The results of one run.
#[derive(Debug, Default, Serialize)]
pub struct BenchReport {
    pub targets: Vec<String>,
    /// The outcomes of all rounds.
    pub scenarios: Vec<ScenarioOutcome>,
    /// The outcomes of the server at `--against`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<ScenarioOutcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// The ratios of `--check`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checked: Vec<CheckedRatio>,
    pub errors: u64,
}

impl BenchReport {
    pub fn new(targets: Vec<String>, scenarios: Vec<ScenarioOutcome>, against: Vec<ScenarioOutcome>) -> BenchReport {
        let errors = scenarios.iter().chain(&against).map(|outcome| outcome.errors).sum();
        BenchReport { targets, scenarios, against, errors, ..BenchReport::default() }
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "targets: {}", self.targets.join(", "))?;
        self.scenarios.iter().try_for_each(|outcome| outcome.write(f))?;
        for outcome in &self.against {
            writeln!(f, "\nof the server at --against:")?;
            outcome.write(f)?;
        }
        self.comparison.iter().try_for_each(|comparison| comparison.fmt(f))?;
        if !self.checked.is_empty() {
            writeln!(f, "\nratios against the baseline")?;
        }
        self.checked.iter().try_for_each(|ratio| writeln!(f, "  {ratio}"))?;
        writeln!(f, "\nerrors in total: {}", self.errors)
    }
}
