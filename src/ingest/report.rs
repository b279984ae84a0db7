//! The summary of a run, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::args::{IngestArgs, IngestPlan};
use crate::knowledge::runs::RunCounts;

/// The summary of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestReport {
    pub org: String,
    pub source: String,
    pub dry_run: bool,
    pub counts: RunCounts,
    pub failures: Vec<IngestFailure>,
    pub notes: Vec<String>,
}

/// A document that was not ingested.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct IngestFailure {
    pub id: String,
    pub why: String,
}

impl fmt::Display for IngestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.why)
    }
}

impl IngestReport {
    /// Returns the empty report of a run that begins.
    pub fn new(args: &IngestArgs, plan: &IngestPlan) -> Self {
        Self {
            org: args.org.clone(),
            source: plan.source.clone(),
            dry_run: args.dry_run,
            counts: RunCounts::default(),
            failures: vec![],
            notes: vec![],
        }
    }

    /// Adds a failure.
    pub fn fail(&mut self, id: String, why: String) {
        self.counts.failed += 1;
        self.failures.push(IngestFailure { id, why });
    }
}

impl fmt::Display for IngestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "failed: {failure}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let RunCounts { added, updated, unchanged, deleted, failed } = self.counts;
        let dry = if self.dry_run { " (dry run: nothing was written)" } else { "" };
        write!(
            f,
            "source {} of {}: {added} added, {updated} updated, {unchanged} unchanged, {deleted} deleted, {failed} failed{dry}",
            self.source, self.org
        )
    }
}
