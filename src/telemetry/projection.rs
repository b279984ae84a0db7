//! Events of turns to spans: the agent's invocation, and in it inferences, calls of tools and waits.
//!
//! A turn's spans are complete with its terminal event, so the outcome is known when they are made. A turn that a second worker
//! took over is one trace: its spans are the log's, by whichever worker.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::span::{Span, SpanId};
use crate::{
    domain::{
        Event,
        event::{ModelReplied, ReplyEnd, ReplyTiming, ToolReturned, TurnCompleted, TurnRequested, Usage},
    },
    log::StoredEvent,
    wire::codes::stored_name,
};

/// The part of a turn's own span in its trace.
const ROOT: &str = "turn";
/// The API that gateways speak; which provider is behind one is not known.
const PROVIDER: &str = "openai";

/// Makes spans of events, which come in the log's order.
#[derive(Default)]
pub struct SpanProjection {
    /// Messages, answers, arguments and results are attributes, too.
    has_text: bool,
    open: HashMap<Uuid, OpenTurn>,
}

/// A turn without its terminal event so far.
struct OpenTurn {
    request: TurnRequested,
    org: String,
    conversation: Uuid,
    started: DateTime<Utc>,
    /// The end of the last step: an inference without a time of its own began then.
    step_at: DateTime<Utc>,
    spans: Vec<Span>,
    inferences: u32,
    usage: Option<Usage>,
    calls: HashMap<String, DateTime<Utc>>,
    arguments: HashMap<String, String>,
    waits: HashMap<Uuid, (DateTime<Utc>, &'static str)>,
}

/// A model's reply as an event has it.
struct Inference<'a> {
    model: Option<&'a str>,
    response: Option<&'a str>,
    ended: Option<&'a ReplyEnd>,
    usage: Option<Usage>,
    timing: Option<ReplyTiming>,
    text: Option<&'a str>,
    error: Option<String>,
}

impl SpanProjection {
    pub fn new(has_text: bool) -> Self {
        Self { has_text, open: HashMap::new() }
    }

    /// Returns the number of turns without an end so far.
    pub fn open_turns(&self) -> usize {
        self.open.len()
    }

    /// Takes an event; returns the spans of the turn that it ends.
    pub fn take(&mut self, org: &str, stored: &StoredEvent) -> Vec<Span> {
        let recorded = &stored.recorded;
        if recorded.event.is_void_at(recorded.stored_at) {
            return vec![];
        }
        if let Event::TurnRequested(request) = &recorded.event {
            let turn = OpenTurn::new(request.clone(), org.to_string(), stored.envelope.conversation, recorded.time);
            self.open.entry(request.turn).or_insert(turn);
            return vec![];
        }
        let Some(id) = recorded.event.turn() else { return vec![] };
        let Some(turn) = self.open.get_mut(&id) else { return vec![] };
        let has_text = self.has_text;
        match &recorded.event {
            Event::TurnModelReplied(e) => turn.replied(e, stored, has_text),
            Event::TurnToolCalled(e) => drop(turn.calls.entry(e.call.clone()).or_insert(recorded.time)),
            Event::TurnToolReturned(e) => turn.returned(e, stored, has_text),
            Event::TurnParked(e) => drop(turn.waits.insert(e.park, (recorded.time, e.prompt.kind()))),
            Event::TurnResumed(e) => turn.resumed(e.park, &stored_name(&e.resolution), stored),
            Event::TurnStarted(_) => turn.step_at = turn.step_at.max(recorded.time),
            Event::TurnCompleted(e) => return self.ended(id, stored, None, Some(e)),
            Event::TurnFailed(e) => {
                if let Some(timing) = e.timing {
                    let error = Some(stored_name(&e.reason));
                    turn.inference(stored, Inference { error, ..Inference::none(Some(timing)) });
                }
                return self.ended(id, stored, Some(stored_name(&e.reason)), None);
            }
            Event::TurnCancelled(_) => return self.ended(id, stored, Some("cancelled".into()), None),
            Event::SessionOpened(_)
            | Event::SessionIdentified(_)
            | Event::ConversationRenamed(_)
            | Event::TurnRequested(_)
            | Event::TurnReleased(_)
            | Event::Erased(_)
            | Event::Unreadable(_) => {}
        }
        vec![]
    }

    /// Returns all spans of a turn, its own first.
    fn ended(
        &mut self,
        id: Uuid,
        stored: &StoredEvent,
        error: Option<String>,
        answer: Option<&TurnCompleted>,
    ) -> Vec<Span> {
        let Some(mut turn) = self.open.remove(&id) else { return vec![] };
        let usage = answer.map_or(turn.usage, |answer| answer.usage);
        if let Some(answer) = answer.filter(|answer| answer.ended.is_some() || answer.timing.is_some()) {
            let own = answer.usage.map(|all| all.minus(turn.usage.unwrap_or_default()));
            let text = answer.response.text();
            let inference = Inference {
                model: answer.model.as_deref(),
                response: answer.response_id.as_deref(),
                ended: answer.ended.as_ref(),
                usage: own,
                timing: answer.timing,
                text: self.has_text.then_some(text.as_str()),
                error: None,
            };
            turn.inference(stored, inference);
        }
        let mut root = turn.root(stored, error, usage);
        if self.has_text {
            root.attributes.push(("gen_ai.input.messages", said("user", &turn.request.message)));
            let answered = answer.map(|answer| ("gen_ai.output.messages", said("assistant", &answer.response.text())));
            root.attributes.extend(answered);
        }
        let mut spans = vec![root];
        spans.append(&mut turn.spans);
        spans
    }
}

impl Inference<'_> {
    fn none(timing: Option<ReplyTiming>) -> Self {
        Self { model: None, response: None, ended: None, usage: None, timing, text: None, error: None }
    }
}

impl OpenTurn {
    fn new(request: TurnRequested, org: String, conversation: Uuid, at: DateTime<Utc>) -> Self {
        Self {
            request,
            org,
            conversation,
            started: at,
            step_at: at,
            spans: vec![],
            inferences: 0,
            usage: None,
            calls: HashMap::new(),
            arguments: HashMap::new(),
            waits: HashMap::new(),
        }
    }

    /// Returns a span below the turn's own, made of this event.
    fn child(&self, part: &str, name: String, start: DateTime<Utc>, stored: &StoredEvent) -> Span {
        let turn = self.request.turn;
        Span {
            turn,
            id: SpanId::of(turn, part),
            parent: Some(SpanId::of(turn, ROOT)),
            name,
            is_call: false,
            start,
            end: stored.recorded.time,
            attributes: self.source(stored),
            error: None,
        }
    }

    /// Returns the attributes that lead from a span to its event.
    fn source(&self, stored: &StoredEvent) -> Vec<(&'static str, Value)> {
        vec![
            ("gen_ai.conversation.id", self.conversation.to_string().into()),
            ("turnstream.turn.id", self.request.turn.to_string().into()),
            ("turnstream.organization", self.org.as_str().into()),
            ("turnstream.event.name", stored.recorded.event.kind().into()),
            ("turnstream.event.seq", stored.recorded.seq.into()),
            ("turnstream.event.digest", stored.recorded.digest.to_string().into()),
        ]
    }

    fn root(&self, stored: &StoredEvent, error: Option<String>, usage: Option<Usage>) -> Span {
        let agent = self.request.agent_config.as_ref();
        let name = agent.map_or(self.request.agent.name.as_str(), |agent| agent.agent.as_str());
        let mut root = self.child(ROOT, format!("invoke_agent {name}"), self.started, stored);
        root.parent = None;
        root.error = error;
        root.attributes.extend([
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("gen_ai.provider.name", PROVIDER.into()),
            ("gen_ai.agent.name", name.into()),
            ("turnstream.request.id", self.request.request_id.as_str().into()),
            ("turnstream.pool", self.request.pool.as_str().into()),
        ]);
        root.attributes.extend(agent.map(|agent| ("gen_ai.agent.version", agent.revision.to_string().into())));
        root.attributes.extend(used(usage));
        root
    }

    fn inference(&mut self, stored: &StoredEvent, inference: Inference) {
        self.inferences += 1;
        let start = inference.timing.map_or(self.step_at, |timing| timing.asked_at);
        let name = inference.model.map_or("chat".into(), |model| format!("chat {model}"));
        let mut span = self.child(&format!("inference {}", self.inferences), name, start, stored);
        (span.is_call, span.error) = (true, inference.error);
        let first = inference.timing.and_then(|timing| timing.first_token_ms);
        let finish = inference.ended.and_then(|ended| ended.finish_reason.as_deref());
        let attributes = &mut span.attributes;
        attributes.push(("gen_ai.operation.name", "chat".into()));
        attributes.push(("gen_ai.provider.name", PROVIDER.into()));
        attributes.extend(self.request.model.as_deref().map(|model| ("gen_ai.request.model", model.into())));
        attributes.extend(inference.model.map(|model| ("gen_ai.response.model", model.into())));
        attributes.extend(inference.response.map(|id| ("gen_ai.response.id", id.into())));
        attributes.extend(finish.map(|finish| ("gen_ai.response.finish_reasons", json!([finish]))));
        attributes.extend(inference.ended.map(|ended| ("turnstream.ending", stored_name(&ended.ending).into())));
        attributes.extend(first.map(|ms| ("gen_ai.response.time_to_first_chunk", json!(ms as f64 / 1e3))));
        attributes.extend(used(inference.usage));
        attributes.extend(inference.text.map(|text| ("gen_ai.output.messages", said("assistant", text))));
        self.spans.push(span);
        self.step_at = stored.recorded.time;
    }

    fn replied(&mut self, e: &ModelReplied, stored: &StoredEvent, has_text: bool) {
        for call in &e.calls {
            self.arguments.insert(call.id.clone(), call.arguments.clone());
        }
        self.usage = match (self.usage, e.usage) {
            (Some(a), Some(b)) => Some(a.plus(b)),
            (a, b) => a.or(b),
        };
        let inference = Inference {
            model: e.model.as_deref(),
            response: e.response_id.as_deref(),
            ended: e.ended.as_ref(),
            usage: e.usage,
            timing: e.timing,
            text: has_text.then_some(e.text.as_str()),
            error: None,
        };
        self.inference(stored, inference);
    }

    fn returned(&mut self, e: &ToolReturned, stored: &StoredEvent, has_text: bool) {
        let called = self.calls.remove(&e.call);
        // A result that was stated without a call: refused, unknown, or not asked for in time.
        let start = called.unwrap_or(stored.recorded.time);
        let mut span = self.child(&format!("tool {}", e.call), format!("execute_tool {}", e.name), start, stored);
        span.error = e.is_error.then(|| "tool_error".into());
        span.attributes.extend([
            ("gen_ai.operation.name", "execute_tool".into()),
            ("gen_ai.tool.name", e.name.as_str().into()),
            ("gen_ai.tool.call.id", e.call.as_str().into()),
            ("gen_ai.tool.type", "function".into()),
            ("turnstream.tool.called", called.is_some().into()),
        ]);
        if has_text {
            let arguments =
                self.arguments.get(&e.call).map(|text| ("gen_ai.tool.call.arguments", text.as_str().into()));
            span.attributes.extend(arguments);
            span.attributes.push(("gen_ai.tool.call.result", e.result.as_str().into()));
        }
        self.spans.push(span);
        self.step_at = stored.recorded.time;
    }

    fn resumed(&mut self, park: Uuid, resolution: &str, stored: &StoredEvent) {
        let Some((since, kind)) = self.waits.remove(&park) else { return };
        let mut span = self.child(&format!("wait {park}"), format!("wait {kind}"), since, stored);
        span.attributes.push(("turnstream.wait.kind", kind.into()));
        span.attributes.push(("turnstream.wait.resolution", resolution.into()));
        self.spans.push(span);
        self.step_at = stored.recorded.time;
    }
}

fn used(usage: Option<Usage>) -> Vec<(&'static str, Value)> {
    let Some(usage) = usage else { return vec![] };
    let mut used = vec![
        ("gen_ai.usage.input_tokens", usage.prompt_tokens.into()),
        ("gen_ai.usage.output_tokens", usage.completion_tokens.into()),
    ];
    used.extend(usage.cached_tokens.map(|tokens| ("gen_ai.usage.cache_read.input_tokens", tokens.into())));
    used.extend(usage.reasoning_tokens.map(|tokens| ("gen_ai.usage.reasoning.output_tokens", tokens.into())));
    used.extend(usage.cost_usd.map(|cost| ("turnstream.usage.cost_usd", json!(cost))));
    used
}

/// Returns a message in the form of the conventions, as JSON text.
fn said(role: &str, text: &str) -> Value {
    json!([{"role": role, "parts": [{"type": "text", "content": text}]}]).to_string().into()
}
