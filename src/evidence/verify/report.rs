//! The report of a verification.

use std::fmt;

use serde::Serialize;

use crate::{
    domain::Digest,
    evidence::checkpoint::{Checkpoint, CheckpointRef},
};

/// Unreadable events that are listed one by one.
const UNREADABLE_NAMED: usize = 100;

/// The findings of a verification.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerificationReport {
    pub events: u64,
    pub conversations: u64,
    /// Events from before there were digests; only their order is checked.
    pub without_digest: u64,
    /// Sequence of the first event that retention left.
    pub begins: u64,
    pub checkpoints: u64,
    /// The last checkpoint that the events were checked against.
    pub last_checkpoint: Option<LastCheckpoint>,
    /// Events that no checkpoint covers yet.
    #[serde(rename = "unsealed")]
    pub unsigned: u64,
    /// Remarks that are not faults.
    pub notes: Vec<String>,
    /// Events that follow from those before them but can't be read: they change nothing.
    pub unreadable: u64,
    /// The first of the unreadable events.
    pub unreadable_events: Vec<ChainBreak>,
    pub broken: u64,
    /// The first event that breaks its chain, or the first conversation that differs from a checkpoint.
    pub first: Option<ChainBreak>,
}

/// A checkpoint by its number and digest.
#[derive(Clone, Debug, Serialize)]
pub struct LastCheckpoint {
    pub number: u64,
    pub digest: Digest,
    pub covers: u64,
    pub time: String,
}

/// An event that does not follow from the one before it, or any other fault.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainBreak {
    pub seq: u64,
    pub subject: String,
    pub problem: String,
}

impl VerificationReport {
    /// Adds a fault of an event.
    pub fn found(&mut self, found: ChainBreak) {
        self.broken += 1;
        self.first.get_or_insert(found);
    }

    /// Adds an unreadable event.
    pub fn cannot_read(&mut self, event: ChainBreak) {
        self.unreadable += 1;
        if self.unreadable_events.len() < UNREADABLE_NAMED {
            self.unreadable_events.push(event);
        }
    }

    /// Adds a fault of the log as a whole.
    pub fn wrong(&mut self, problem: impl Into<String>) {
        self.found(ChainBreak { seq: 0, subject: String::new(), problem: problem.into() });
    }

    /// Records that the events so far were checked against a checkpoint.
    pub fn signed_by(&mut self, checkpoint: &Checkpoint) {
        let Checkpoint { number, covers, time, .. } = checkpoint.clone();
        self.checkpoints += 1;
        self.last_checkpoint = Some(LastCheckpoint { number, digest: checkpoint.digest(), covers, time });
        self.unsigned = 0;
    }

    /// Compares a checkpoint with the one that the auditor noted under its number.
    pub fn compare(&mut self, checkpoint: &Checkpoint, noted: Option<&CheckpointRef>) {
        if noted.is_some_and(|noted| noted.number == checkpoint.number && noted.digest != checkpoint.digest()) {
            self.wrong(format!("checkpoint {} differs from the noted one", checkpoint.number));
        }
    }
}

impl fmt::Display for VerificationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} events of {} conversations", self.events, self.conversations)?;
        if self.without_digest > 0 {
            writeln!(f, "{} of them without a digest, written by an earlier version", self.without_digest)?;
        }
        if self.begins > 1 {
            writeln!(f, "events older than {} are absent, as declared", self.begins)?;
        }
        match &self.last_checkpoint {
            None => writeln!(f, "no checkpoint")?,
            Some(LastCheckpoint { number, digest, covers, time }) => {
                writeln!(
                    f,
                    "{} checkpoints, the last of {time} up to event {covers}: {number}:{digest}",
                    self.checkpoints
                )?;
            }
        }
        if self.unsigned > 0 {
            writeln!(f, "{} events are not covered by a checkpoint", self.unsigned)?;
        }
        for ChainBreak { seq, subject, problem } in &self.unreadable_events {
            writeln!(f, "event {seq} on {subject} can't be decoded and has no effect: {problem}")?;
        }
        if self.unreadable > self.unreadable_events.len() as u64 {
            writeln!(f, "{} events in total can't be decoded", self.unreadable)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        match &self.first {
            None if self.checkpoints == 0 => write!(f, "every event follows from the previous one"),
            None => write!(f, "every event follows from the previous one, and the checkpoints cover them"),
            Some(ChainBreak { seq: 0, problem, .. }) => write!(f, "{} faults; the first: {problem}", self.broken),
            Some(ChainBreak { seq, subject, problem }) => {
                write!(f, "{} faults; the first is at event {seq} on {subject}: {problem}", self.broken)
            }
        }
    }
}
