//! A conversation's events as swim lanes: actors side by side, with the time each takes.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::message_view::MessageView;
use crate::domain::{
    Event, RecordedEvent,
    event::{Prompt, kind},
};

/// The actor of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Lane")]
pub enum SwimLane {
    User,
    Edge,
    Worker,
    Model,
    Tools,
}

/// A period of an actor's work.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Span")]
pub struct LaneSpan {
    pub lane: SwimLane,
    pub label: String,
    /// The event that begins the span.
    pub seq: u64,
    pub from: DateTime<Utc>,
    /// The event that ends the span; absent = the span lasts until the last event.
    pub end_seq: Option<u64>,
    pub to: DateTime<Utc>,
}

/// Returns the lane of an event by its stored name.
pub fn lane_of(name: &str) -> SwimLane {
    match name {
        kind::TURN_REQUESTED | kind::TURN_RESUMED | kind::TURN_CANCELLED => SwimLane::User,
        kind::TURN_STARTED | kind::TURN_RELEASED | kind::TURN_PARKED | kind::TURN_FAILED => SwimLane::Worker,
        kind::TURN_MODEL_REPLIED | kind::TURN_COMPLETED => SwimLane::Model,
        kind::TURN_TOOL_CALLED | kind::TURN_TOOL_RETURNED => SwimLane::Tools,
        _ => SwimLane::Edge,
    }
}

/// The condition that ends a span.
#[derive(Clone, Copy, PartialEq)]
enum End<'a> {
    /// A worker claims the turn.
    Claim,
    /// A person decides.
    Decision(Uuid),
    Result(&'a str),
    /// The worker releases the turn.
    LetGo,
}

struct OpenSpan<'a> {
    end: End<'a>,
    turn: Uuid,
    span: LaneSpan,
}

/// Collects spans, event by event.
#[derive(Default)]
struct SwimLanes<'a> {
    open: Vec<OpenSpan<'a>>,
    done: Vec<LaneSpan>,
    /// The event before.
    last: Option<&'a RecordedEvent>,
}

/// Returns the spans of the events.
///
/// A span that began before the first event is not seen; an open one lasts until the last event.
pub fn spans(events: &[MessageView]) -> Vec<LaneSpan> {
    let recorded = || events.iter().filter_map(|seen| seen.event.as_ref().ok()).map(|stored| &stored.recorded);
    let mut lanes = SwimLanes::default();
    for event in recorded() {
        lanes.take(event);
        lanes.last = Some(event);
    }
    let SwimLanes { open, mut done, last } = lanes;
    let last = last.map_or_else(DateTime::default, |last| last.time);
    done.extend(open.into_iter().map(|open| LaneSpan { to: last.max(open.span.from), ..open.span }));
    done.sort_by_key(|span| span.seq);
    done
}

impl<'a> SwimLanes<'a> {
    fn take(&mut self, at: &'a RecordedEvent) {
        match &at.event {
            Event::TurnRequested(e) => self.begin(at, e.turn, SwimLane::Edge, "queued", End::Claim),
            Event::TurnStarted(e) => {
                // A worker that lost the turn did not release it.
                self.end(at, e.turn, |end| matches!(end, End::Claim | End::LetGo));
                self.begin(at, e.turn, SwimLane::Worker, "works", End::LetGo);
            }
            Event::TurnModelReplied(_) => self.model(at),
            Event::TurnToolCalled(e) => {
                // A call that became a task is told of twice.
                self.end(at, e.turn, |end| *end == End::Result(&e.call));
                self.begin(at, e.turn, SwimLane::Tools, &e.name, End::Result(&e.call));
            }
            Event::TurnToolReturned(e) => {
                self.end(at, e.turn, |end| matches!(end, End::Result(call) if *call == e.call));
            }
            Event::TurnParked(e) => {
                let label = match &e.prompt {
                    Prompt::Approval { .. } => Some("decides"),
                    Prompt::Interaction { .. } | Prompt::Elicitation { .. } => Some("fills in a form"),
                    Prompt::Task { .. } => None,
                };
                for elicited in &e.elicited {
                    self.end(at, e.turn, |end| *end == End::Result(&elicited.call));
                }
                self.end(at, e.turn, |end| *end == End::LetGo);
                if let Some(label) = label {
                    self.begin(at, e.turn, SwimLane::User, label, End::Decision(e.park));
                }
            }
            Event::TurnResumed(e) => {
                self.end(at, e.turn, |end| *end == End::Decision(e.park));
                self.begin(at, e.turn, SwimLane::Edge, "queued", End::Claim);
            }
            // The last release of a cancelled turn's worker puts nothing back into the queue.
            Event::TurnReleased(e) if self.open.iter().any(|open| open.turn == e.turn && open.end == End::LetGo) => {
                self.end(at, e.turn, |end| *end == End::LetGo);
                self.begin(at, e.turn, SwimLane::Edge, "queued", End::Claim);
            }
            Event::TurnReleased(_) => {}
            Event::TurnCompleted(_) | Event::TurnFailed(_) | Event::TurnCancelled(_) => {
                if matches!(at.event, Event::TurnCompleted(_)) {
                    self.model(at);
                }
                let turn = at.event.turn().unwrap_or_default();
                self.end(at, turn, |_| true);
            }
            Event::SessionOpened(_)
            | Event::SessionIdentified(_)
            | Event::ConversationRenamed(_)
            | Event::Erased(_)
            | Event::Unreadable(_) => {}
        }
    }

    /// Adds the span of a model call: the model was asked as soon as the event before was stored.
    fn model(&mut self, at: &RecordedEvent) {
        if let Some(last) = self.last.filter(|last| last.event.turn() == at.event.turn()) {
            let (from, to) = (last.time, at.time.max(last.time));
            let label = "thinks".into();
            self.done.push(LaneSpan { lane: SwimLane::Model, label, seq: last.seq, from, end_seq: Some(at.seq), to });
        }
    }

    fn begin(&mut self, at: &RecordedEvent, turn: Uuid, lane: SwimLane, label: &str, end: End<'a>) {
        let span = LaneSpan { lane, label: label.into(), seq: at.seq, from: at.time, end_seq: None, to: at.time };
        self.open.push(OpenSpan { end, turn, span });
    }

    fn end(&mut self, at: &RecordedEvent, turn: Uuid, ends: impl Fn(&End) -> bool) {
        for open in self.open.extract_if(.., |open| open.turn == turn && ends(&open.end)) {
            // Clocks of machines differ a little.
            self.done.push(LaneSpan { end_seq: Some(at.seq), to: at.time.max(open.span.from), ..open.span });
        }
    }
}
