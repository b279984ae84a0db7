//! Requests to model gateways, and the usage in their replies.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{Counters, Labels, add, labels, long, names::BoundedNames, short};

/// Tokens and cost that a gateway reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportedUsage {
    pub input: u64,
    pub output: u64,
    pub cached: u64,
    pub reasoning: u64,
    pub cost_usd: Option<f64>,
}

pub struct GatewayMetrics {
    requests: Counters,
    retries: Counter,
    head: Histogram,
    reply: Histogram,
    replies: Counters,
    tokens: Counters,
    cost: Family<Labels, Counter<f64, AtomicU64>>,
    models: BoundedNames,
    orgs: BoundedNames,
}

impl GatewayMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            requests: add(r, "gateway_requests", "Requests to gateways, by HTTP status", Counters::default()),
            retries: add(r, "gateway_retries", "Requests that repeat a failed one", Counter::default()),
            head: add(r, "gateway_head_seconds", "From the request to the head of the answer", short()),
            reply: add(r, "gateway_reply_seconds", "From the request to the end of the reply", long()),
            replies: add(r, "model_replies", "Replies in the log, by finish", Counters::default()),
            tokens: add(r, "tokens", "Tokens that gateways reported", Counters::default()),
            cost: add(r, "cost_usd", "Cost that gateways reported, in US dollars", Family::default()),
            models: BoundedNames::default(),
            orgs: BoundedNames::default(),
        }
    }

    /// Counts a request by its HTTP status, or by `connect`, `timeout` or `broken`.
    pub fn requested(&self, status: &str) {
        self.requests.get_or_create(&labels([("status", status)])).inc();
    }

    /// Counts a request that was answered, with the time until the head of its answer.
    pub fn answered(&self, status: u16, took: Duration) {
        self.requested(&status.to_string());
        self.head.observe(took.as_secs_f64());
    }

    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Records the time of a whole reply.
    pub fn replied(&self, took: Duration) {
        self.reply.observe(took.as_secs_f64());
    }

    /// Counts a reply that the log holds.
    pub fn recorded(&self, model: &str, finish: &str) {
        self.replies.get_or_create(&labels([("model", self.models.bounded(model)), ("finish", finish)])).inc();
    }

    /// Adds the usage that an event of the log reports.
    pub fn used(&self, model: &str, org: &str, usage: ReportedUsage) {
        let (model, org) = (("model", self.models.bounded(model)), ("organisation", self.orgs.organisation(org)));
        let of = [
            ("input", usage.input),
            ("output", usage.output),
            ("cached", usage.cached),
            ("reasoning", usage.reasoning),
        ];
        for (direction, tokens) in of.into_iter().filter(|(_, tokens)| *tokens > 0) {
            self.tokens.get_or_create(&labels([("direction", direction), model, org])).inc_by(tokens);
        }
        if let Some(cost) = usage.cost_usd.filter(|cost| cost.is_finite() && *cost >= 0.0) {
            self.cost.get_or_create(&labels([model, org])).inc_by(cost);
        }
    }
}
