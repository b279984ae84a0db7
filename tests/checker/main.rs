//! The core, checked exhaustively: every order of steps and faults within the bounds of each world.
//!
//! `stateright` explores a model of one conversation breadth-first. The product's decisions are made by the product
//! itself: the model runs the real `domain::{decide, evolve, next_step}`. Their surroundings are modelled in small
//! steps, cut where another actor, a crash or a lost message can come between:
//!
//! - the log ([`log`]): append on an expected sequence, known ids, lost acks, requests that arrive late or never, and
//!   the retries of `Conversations::execute` and `NatsLog::append` over it;
//! - the consumer of work items ([`state`]): delivery, redelivery to a second worker while the first is only slow, ack,
//!   nak;
//! - workers ([`worker`]): two runs of `worker::run`, from claim to exit, with looks at the log, crashes and
//!   hand-overs; a crash can come between intent, call, result, park, deadline and ack;
//! - people ([`people`]): two edges with `send_message` from a stale cache and its retry, `confirm_tool_action` for any
//!   prompt that was ever shown, `cancel`, another session; deadlines that fire at any time, and again after they were
//!   settled;
//! - the model's answers: the final one, a call that must not be repeated, gated calls, a gated one beside a free one.
//!
//! [`facts`] reads each log a second time with other code and judges the fold by it. [`invariants`] lists the
//! invariants, and each breach is noted where it happens. When only people, deadlines and faults can act, every turn
//! must have ended or wait with its deadline set. No path goes on for ever, so that is the liveness of the core.
//!
//! Not modelled: time but for one `not_after`, tokens and frames, the contents of messages, sizes, several
//! conversations, the snapshots in the bucket (but every fold is also continued from its stored form), the NATS
//! server's own faults beyond late and lost messages, clocks that disagree.
//!
//! [`worlds`] holds the bounds. Measured states: takeovers 248,258; hand-overs 560,802; approvals 338,230; decisions
//! 110,649; cancels 485,428; successions 97,509; requests 484,415; requests after the dedupe window 64,980; poison
//! 225,305. Each world also names the states that its exploration must reach ([`coverage`]), so that no invariant holds
//! for lack of events.
//!
//! [`mutation`] lists faults of the product's logic. A test for each shows that the checker catches it; with
//! `--nocapture` it prints the shortest path to the breach that it found.

mod coverage;
mod facts;
mod invariants;
mod log;
mod model;
mod mutation;
mod people;
mod state;
mod words;
mod worker;
mod worlds;

use std::{collections::BTreeSet, io::Write};

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    invariants::Invariant::{self, *},
    model::{Checked, World},
    mutation::Mutation,
};

const THREADS: usize = 2;

/// Explores a world to its end: every invariant holds in every state, and all required states are reached.
fn explore(world: World) {
    let name = world.name;
    let checker = Checked::new(world, None).checker().threads(THREADS).spawn_bfs().join();
    let (states, transitions) = (checker.unique_state_count(), checker.state_count());
    let logs = checker.model().rules.server.logs();
    // Straight to stderr: the test harness captures the output of passing tests.
    let _ = writeln!(
        std::io::stderr(),
        "{name}: {states} states, {transitions} transitions, {logs} logs, depth {}",
        checker.max_depth()
    );
    checker.assert_properties();
}

/// Explores a mutated world until these invariants are seen to break.
fn break_by(mutation: Mutation, world: World, expected: &[Invariant]) {
    let names: BTreeSet<_> = expected.iter().map(|invariant| invariant.name()).collect();
    let checked = Checked::new(world, Some(mutation));
    let checker =
        checked.checker().threads(THREADS).finish_when(HasDiscoveries::AllOf(names.clone())).spawn_bfs().join();
    let found = checker.discoveries();
    println!("{mutation:?}: {} states", checker.unique_state_count());
    for name in names {
        let path = found.get(name).unwrap_or_else(|| panic!("{mutation:?} was not caught by: {name}"));
        println!("{name}:");
        for action in path.clone().into_actions() {
            println!("  {action:?}");
        }
    }
}

#[test]
fn takeovers() {
    explore(worlds::takeovers());
}

#[test]
fn hand_overs() {
    explore(worlds::hand_overs());
}

#[test]
fn approvals() {
    explore(worlds::approvals());
}

#[test]
fn decisions() {
    explore(worlds::decisions());
}

#[test]
fn cancels() {
    explore(worlds::cancels());
}

#[test]
fn supersessions() {
    explore(worlds::supersessions());
}

#[test]
fn successions() {
    explore(worlds::successions());
}

#[test]
fn requests() {
    explore(worlds::requests());
}

#[test]
fn late_requests() {
    explore(worlds::late_requests());
}

#[test]
fn poison() {
    explore(worlds::poison());
}

#[test]
fn an_append_that_ignores_the_expected_sequence_is_caught() {
    break_by(Mutation::ExpectedIgnored, worlds::cancels(), &[OneChain, OneEnd, NothingAfterTheEnd, FencedAreSilent]);
    break_by(Mutation::ExpectedIgnored, worlds::requests(), &[OneActive]);
}

#[test]
fn an_ack_before_the_append_is_caught() {
    break_by(Mutation::AckFirst, worlds::takeovers(), &[AcksWait, NothingLost]);
}

#[test]
fn an_ack_of_a_fenced_worker_is_caught() {
    break_by(Mutation::FencedAcks, worlds::takeovers(), &[AcksWait, NothingLost]);
}

#[test]
fn a_confirm_that_binds_again_is_caught() {
    break_by(Mutation::ConfirmRebinds, worlds::decisions(), &[DecisionsBind]);
}

#[test]
fn a_second_call_of_a_tool_is_caught() {
    break_by(Mutation::CalledAgain, worlds::takeovers(), &[CalledOnce]);
}

#[test]
fn a_record_without_a_claim_is_caught() {
    break_by(Mutation::ClaimUnchecked, worlds::cancels(), &[FencedAreSilent, NothingAfterTheEnd, OneEnd]);
}

#[test]
fn an_ack_for_another_workers_park_is_caught() {
    break_by(Mutation::ParkTaken, worlds::approvals(), &[AcksWait, NothingLost]);
}

#[test]
fn a_persons_decision_on_a_stale_copy_is_caught() {
    break_by(Mutation::StalePeople, worlds::decisions(), &[ConfirmsCount]);
    break_by(Mutation::StalePeople, worlds::successions(), &[CancelsCount]);
}

#[test]
fn a_foreign_event_taken_for_an_own_one_is_caught() {
    break_by(Mutation::TwinTaken, worlds::requests(), &[OwnFold]);
}

#[test]
fn a_fold_by_the_writers_clock_is_caught() {
    break_by(Mutation::OwnClock, worlds::requests(), &[OwnFold]);
}
