//! The report of a run: violations, and figures.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    World,
    breaker::{Fault, Kind},
    visitor::Seen,
};
use crate::support::{
    frames::{answer_text, code, kind},
    log::Log,
    provider::Provider,
};

/// The outcome of a run.
pub struct Report {
    pub violations: Vec<String>,
    rows: Vec<(String, String)>,
}

impl Report {
    pub fn new(
        turns: &[Seen],
        faults: &[Fault],
        log: &Log,
        provider: &Provider,
        world: &World,
        took: Duration,
    ) -> Self {
        let objections = world.objections.lock().unwrap().clone();
        let mut report = Self { violations: [log.violations(), objections].concat(), rows: Vec::new() };
        report.row("turns", turns.len());
        report.row("seconds", took.as_secs());
        let mut kinds = BTreeMap::new();
        faults.iter().for_each(|fault| *kinds.entry(fault.kind).or_insert(0) += 1);
        kinds.into_iter().for_each(|(kind, count)| report.row(&format!("{kind:?}"), count));
        let drops = turns.iter().flat_map(|turn| &turn.losses).filter(|loss| loss.own).count();
        report.row("connections dropped by clients", drops);
        let lost = turns.iter().flat_map(|turn| &turn.losses).filter(|loss| !loss.own).count();
        report.row("connections lost to faults", lost);
        report.check_turns(turns, log);
        report.check_queued(log, world);
        report.check_tools(log, provider);
        report.gaps(turns, faults, world);
        let violations = report.violations.len();
        report.row("violations", violations);
        report
    }

    fn row(&mut self, name: &str, value: impl ToString) {
        self.rows.push((name.to_owned(), value.to_string()));
    }

    fn check_turns(&mut self, turns: &[Seen], log: &Log) {
        let (mut lost, mut doubled, mut wrong_text, mut wrong_tools, mut failed, mut refused) = (0, 0, 0, 0, 0, 0);
        for turn in turns {
            let name = format!("{} {} ({})", turn.session, turn.request_id, turn.message);
            refused += turn.refusals.len();
            let mut problems = turn.problems.clone();
            let (mut expected, mut terminals) = (Vec::new(), 0);
            match log.turn(&turn.session, &turn.request_id) {
                Some(of_log) => {
                    problems.extend(of_log.violations());
                    expected = of_log.texts();
                    if turn.activity != of_log.activity() {
                        wrong_tools += 1;
                        problems.push(format!("tools {:?} where {:?} belong", turn.activity, of_log.activity()));
                    }
                    terminals = turn.ends.len();
                }
                None => problems.push("the log does not have it".into()),
            }
            lost += usize::from(terminals == 0);
            doubled += usize::from(terminals > 1);
            match turn.ends.as_slice() {
                [end] if kind(end) == "eventual_response" => {
                    let (visible, wanted) = (without_spaces(&turn.texts), without_spaces(&expected));
                    let answer = without_spaces(&[answer_text(&turn.ends).to_owned()]);
                    if visible != wanted || !visible.ends_with(&answer) {
                        wrong_text += 1;
                        problems.push(format!("visible text {:#?} where {expected:#?} belongs", turn.texts));
                    }
                }
                // The model of this run never fails, so nothing explains a failed turn.
                [end] => {
                    failed += 1;
                    problems.push(format!("it ended with {} {}: {end}", kind(end), code(end)));
                }
                ends => problems.push(format!("{} terminal frames", ends.len())),
            }
            self.violations.extend(problems.into_iter().map(|problem| format!("{name}: {problem}")));
        }
        self.row("turns without a terminal frame", lost);
        self.row("turns with more than one", doubled);
        self.row("turns that failed", failed);
        self.row("turns with text missing or doubled", wrong_text);
        self.row("turns with tool activity missing or doubled", wrong_tools);
        self.row("refusals for want of storage", refused);
    }

    /// Checks the turns of a full queue, which were accepted and for which no client stayed: each has ended once.
    fn check_queued(&mut self, log: &Log, world: &World) {
        let queued = world.queued.lock().unwrap();
        for (session, request_id) in queued.iter() {
            let problems = match log.turn(session, request_id) {
                Some(turn) => turn.violations(),
                None => vec!["the log does not have it, and it was accepted".into()],
            };
            self.violations.extend(problems.into_iter().map(|problem| format!("{session} {request_id}: {problem}")));
        }
        self.row("turns of full queues", queued.len());
    }

    fn check_tools(&mut self, log: &Log, provider: &Provider) {
        let intents = log.intents();
        for (tool, at_most) in [("lookup", usize::MAX), ("charge", 1), ("refund", 1)] {
            let calls = provider.calls(tool);
            let again = calls.values().filter(|count| **count > 1).count();
            self.row(&format!("calls of {tool}"), format!("{} ({again} came again)", calls.len()));
            for (id, count) in calls {
                if count > at_most {
                    self.violations.push(format!("{tool} was called {count} times as {id}:\n{}", log.story(&id)));
                }
                if !intents.contains(&id) {
                    self.violations.push(format!("{tool} was called as {id} without an intent in the log"));
                }
            }
        }
    }

    fn gaps(&mut self, turns: &[Seen], faults: &[Fault], world: &World) {
        let model_calls = world.model_calls.lock().unwrap();
        for kind in [Kind::WorkerKilled, Kind::WorkerAsleep, Kind::WorkerDrained] {
            let mut gaps = Gaps::default();
            for fault in faults.iter().filter(|fault| fault.kind == kind) {
                for turn in turns {
                    let mut calls =
                        model_calls.iter().filter(|call| call.message == turn.message && call.at < fault.at);
                    if calls.next_back().map(|call| &call.worker) == fault.worker.as_ref() {
                        gaps.add(turn, fault.at, faults);
                    }
                }
            }
            self.row(&format!("gap, {kind:?}"), gaps);
        }
        for (own, name) in [(false, "gap, connection lost to a fault"), (true, "gap, connection dropped by its client")]
        {
            let mut gaps = Gaps::default();
            for turn in turns {
                turn.losses.iter().filter(|loss| loss.own == own).for_each(|loss| gaps.add(turn, loss.at, faults));
            }
            self.row(name, gaps);
        }
    }

    /// The figures as a table.
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines = self.rows.iter().map(|(name, value)| format!("  {name:width$}  {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn without_spaces(texts: &[String]) -> String {
    texts.iter().flat_map(|text| text.split_whitespace()).collect()
}

/// The times from the last frame before a disturbance to the first one after it.
#[derive(Default)]
struct Gaps {
    /// Gaps that no other fault explains.
    alone: Vec<Duration>,
    others: Vec<Duration>,
}

impl Gaps {
    fn add(&mut self, turn: &Seen, at: Instant, faults: &[Fault]) {
        let next = turn.arrivals.partition_point(|arrival| arrival.at <= at);
        let Some(after) = turn.arrivals.get(next) else { return };
        let before = next.checked_sub(1).map(|last| &turn.arrivals[last]);
        // A turn that waits for a person has no gap, nor has one that is not sent yet.
        if before.is_some_and(|before| before.parked) || turn.sent_at > at {
            return;
        }
        let since = before.map_or(turn.sent_at, |before| before.at);
        let mut others = faults.iter().filter(|fault| fault.at != at && fault.holds_up(since, after.at));
        let gaps = if others.next().is_none() { &mut self.alone } else { &mut self.others };
        gaps.push(after.at - since);
    }
}

impl std::fmt::Display for Gaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quantile = |gaps: &[Duration], q: f64| {
            let mut sorted = gaps.to_vec();
            sorted.sort();
            let index = (sorted.len().saturating_sub(1) as f64 * q).round() as usize;
            sorted.get(index).map_or("-".into(), |gap| format!("{:.2} s", gap.as_secs_f64()))
        };
        let (alone, others) = (&self.alone, &self.others);
        write!(f, "{} turns, p50 {}, p99 {}", alone.len(), quantile(alone, 0.5), quantile(alone, 0.99))?;
        write!(f, "; with other faults meanwhile: {}, p50 {}", others.len(), quantile(others, 0.5))?;
        write!(f, ", p99 {}", quantile(others, 0.99))
    }
}
