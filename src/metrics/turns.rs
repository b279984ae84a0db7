//! Turns: their number by outcome, and their times.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::{Counters, Times, add, labels, long, names::BoundedNames, short};

/// The labels that a turn's counts share.
#[derive(Clone, Copy)]
pub struct TurnLabels<'a> {
    /// The agent of the turn's configuration; empty = none.
    pub agent: &'a str,
    pub pool: &'a str,
    pub org: &'a str,
}

pub struct TurnMetrics {
    requested: Counters,
    ended: Counters,
    durations: Times,
    accept: Histogram,
    first_token: Times,
    queue_wait: Times,
    /// Live frames that were published: counted on the way of each token.
    pub frames: Counter,
    agents: BoundedNames,
    pools: BoundedNames,
    orgs: BoundedNames,
}

impl TurnMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            requested: add(r, "turns_requested", "Messages accepted", Counters::default()),
            ended: add(r, "turns", "Turns ended, by outcome and code", Counters::default()),
            durations: add(
                r,
                "turn_duration_seconds",
                "From the accepted message to the terminal event",
                Times::new_with_constructor(long),
            ),
            accept: add(r, "turn_accept_seconds", "From the frame with a message to the 202", short()),
            first_token: add(
                r,
                "turn_first_token_seconds",
                "From the accepted message to the first token of its answer",
                Times::new_with_constructor(short),
            ),
            queue_wait: add(
                r,
                "queue_wait_seconds",
                "From the stored work item to its claim",
                Times::new_with_constructor(short),
            ),
            frames: add(r, "stream_frames", "Live frames published", Counter::default()),
            agents: BoundedNames::default(),
            pools: BoundedNames::default(),
            orgs: BoundedNames::default(),
        }
    }

    pub fn requested(&self, turn: TurnLabels) {
        self.requested.get_or_create(&labels(self.of(turn))).inc();
    }

    /// Counts a turn's end; `code` is the error code or the reason, empty for a completed turn.
    pub fn ended(&self, turn: TurnLabels, outcome: &str, code: &str, took: Duration) {
        let [agent, pool, org] = self.of(turn);
        self.ended.get_or_create(&labels([("outcome", outcome), ("code", code), agent, pool, org])).inc();
        self.durations.get_or_create(&labels([("outcome", outcome)])).observe(took.as_secs_f64());
    }

    /// Records the time until a message was accepted.
    pub fn accepted(&self, took: Duration) {
        self.accept.observe(took.as_secs_f64());
    }

    pub fn first_token(&self, pool: &str, took: Duration) {
        self.first_token.get_or_create(&labels([("pool", self.pools.bounded(pool))])).observe(took.as_secs_f64());
    }

    pub fn claimed(&self, pool: &str, waited: Duration) {
        self.queue_wait.get_or_create(&labels([("pool", self.pools.bounded(pool))])).observe(waited.as_secs_f64());
    }

    fn of<'a>(&self, TurnLabels { agent, pool, org }: TurnLabels<'a>) -> [(&'static str, &'a str); 3] {
        [
            ("agent", self.agents.bounded(agent)),
            ("pool", self.pools.bounded(pool)),
            ("organisation", self.orgs.organisation(org)),
        ]
    }
}
