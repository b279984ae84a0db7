//! Counts and log lines of appended events: they equal the log, since the append makes them.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::ExecuteError;
use crate::{
    domain::{
        Conversation, Event, RecordedEvent, Turn,
        event::{ReplyEnd, ReplyTiming, Usage},
    },
    log::AppendReceipt,
    metrics::{gateway::ReportedUsage, metrics, turns::TurnLabels},
    nats::AppendError,
    subjects::ConversationKey,
    wire::codes::stored_name,
};

/// The end of a turn, for its counts and its log line.
struct TurnEnd<'a> {
    outcome: &'static str,
    /// The stored reason of a failed or cancelled turn.
    code: String,
    usage: Option<Usage>,
    model: Option<&'a str>,
    timing: Option<ReplyTiming>,
    detail: Option<&'a str>,
}

/// Counts the outcome of an append.
pub(super) fn tried(appended: &Result<AppendReceipt, ExecuteError>, event: &str, took: Duration) {
    let storage = &metrics().storage;
    match appended {
        Ok(_) => storage.appended(event, took),
        Err(ExecuteError::Append(AppendError::Conflict)) => storage.conflicted(),
        Err(ExecuteError::Append(AppendError::Unavailable(_))) => storage.failed("append"),
        Err(_) => {}
    }
}

/// Counts an event that is in the log and not void; `before` is the state that it changed.
pub(super) fn appended(key: &ConversationKey, before: &Conversation, recorded: &RecordedEvent) {
    let at = recorded.time;
    if let Event::TurnRequested(e) = &recorded.event {
        let agent = e.agent_config.as_ref().map_or("", |config| &config.agent);
        metrics().turns.requested(TurnLabels { agent, pool: &e.pool, org: &key.org });
    }
    let Some(turn) = before.turn.as_ref().filter(|turn| recorded.event.turn() == Some(turn.request.turn)) else {
        return;
    };
    match &recorded.event {
        Event::TurnStarted(_) => claimed(turn, at),
        Event::TurnModelReplied(e) => replied(key, (e.model.as_deref(), e.ended.as_ref()), e.usage),
        Event::TurnToolReturned(e) => metrics().calls.returned(&e.name, e.is_error),
        Event::TurnParked(e) => metrics().calls.waits(e.prompt.kind()),
        Event::TurnResumed(e) => metrics().calls.waited(&stored_name(&e.resolution), since(turn.progress_at, at)),
        Event::TurnCompleted(e) => {
            let own = e.usage.map(|all| all.minus(turn.usage.unwrap_or_default()));
            replied(key, (e.model.as_deref(), e.ended.as_ref()), own);
            let model = e.model.as_deref();
            let (outcome, code) = ("completed", String::new());
            let end = TurnEnd { outcome, code, usage: e.usage, model, timing: e.timing, detail: None };
            ended(key, turn, recorded, &end);
        }
        Event::TurnFailed(e) => {
            let (outcome, code, detail) = ("failed", stored_name(&e.reason), Some(e.detail.as_str()));
            let end = TurnEnd { outcome, code, usage: turn.usage, model: None, timing: e.timing, detail };
            ended(key, turn, recorded, &end);
        }
        Event::TurnCancelled(e) => {
            let (outcome, code) = ("cancelled", e.reason.map_or("user".into(), |reason| stored_name(&reason)));
            let end = TurnEnd { outcome, code, usage: turn.usage, model: None, timing: None, detail: None };
            ended(key, turn, recorded, &end);
        }
        Event::SessionOpened(_)
        | Event::SessionIdentified(_)
        | Event::ConversationRenamed(_)
        | Event::TurnRequested(_)
        | Event::TurnReleased(_)
        | Event::TurnToolCalled(_)
        | Event::Erased(_)
        | Event::Unreadable(_) => {}
    }
}

/// Records the wait of a work item for its first claim.
fn claimed(turn: &Turn, at: DateTime<Utc>) {
    if turn.epoch.is_none() {
        let stored_at = if turn.item == turn.requested_seq { turn.requested_at } else { turn.progress_at };
        metrics().turns.claimed(&turn.request.pool, since(stored_at, at));
    }
}

fn replied(key: &ConversationKey, (model, ended): (Option<&str>, Option<&ReplyEnd>), usage: Option<Usage>) {
    let model = model.unwrap_or_default();
    if let Some(ended) = ended {
        metrics().gateway.recorded(model, &stored_name(&ended.ending));
    }
    if let Some(usage) = usage {
        let reported = ReportedUsage {
            input: usage.prompt_tokens,
            output: usage.completion_tokens,
            cached: usage.cached_tokens.unwrap_or_default(),
            reasoning: usage.reasoning_tokens.unwrap_or_default(),
            cost_usd: usage.cost_usd,
        };
        metrics().gateway.used(model, &key.org, reported);
    }
}

/// Counts a turn's end, and writes its one line in the log.
fn ended(key: &ConversationKey, turn: &Turn, recorded: &RecordedEvent, end: &TurnEnd) {
    let request = &turn.request;
    let took = since(turn.requested_at, recorded.time);
    let agent = request.agent_config.as_ref();
    let labels = TurnLabels { agent: agent.map_or("", |agent| &agent.agent), pool: &request.pool, org: &key.org };
    metrics().turns.ended(labels, end.outcome, &end.code, took);
    let usage = end.usage.unwrap_or_default();
    let is_answered = end.outcome == "completed";
    tracing::info!(
        org = key.org,
        conversation = %key.conversation,
        turn = %request.turn,
        request_id = request.request_id,
        agent = agent.map(|agent| agent.agent.as_str()),
        revision = agent.map(|agent| agent.revision),
        pool = request.pool,
        model = end.model,
        outcome = end.outcome,
        code = Some(end.code.as_str()).filter(|code| !code.is_empty()),
        detail = end.detail,
        seq = recorded.seq,
        digest = %recorded.digest,
        duration_ms = took.as_millis() as u64,
        first_token_ms = end.timing.and_then(|timing| timing.first_token_ms),
        model_calls = u64::from(turn.model_calls()) + u64::from(is_answered),
        tool_calls = turn.replies.iter().map(|reply| reply.calls.len()).sum::<usize>(),
        claims = turn.claims,
        input_tokens = end.usage.map(|_| usage.prompt_tokens),
        output_tokens = end.usage.map(|_| usage.completion_tokens),
        cached_tokens = usage.cached_tokens,
        reasoning_tokens = usage.reasoning_tokens,
        cost_usd = usage.cost_usd,
        "a turn ended"
    );
}

/// Returns the time between two events; clocks of two processes may differ.
fn since(earlier: DateTime<Utc>, later: DateTime<Utc>) -> Duration {
    (later - earlier).to_std().unwrap_or_default()
}
