//! The turns of a report: their events as steps, with the time each took.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{ReportStep, ReportStepKind, ReportToolCall, ReportTurn};
use crate::domain::{
    Event, RecordedEvent,
    event::{CallRequested, TurnRequested, Usage},
};

/// Returns the turns in the order of their requests.
///
/// Events of a turn without a request are left out.
pub(super) fn turns(told: &[FoldedEvent], names: &HashMap<Uuid, String>) -> Vec<ReportTurn> {
    let mut telling: Vec<TurnNarrator> = Vec::new();
    for told in told {
        let Some(turn) = told.recorded.event.turn() else { continue };
        match &told.recorded.event {
            Event::TurnRequested(e) => telling.push(TurnNarrator::of(e, told, names)),
            _ => {
                // A request without effect may have been repeated under the same turn id.
                let ours = telling.iter_mut().rfind(|known| known.turn.turn == turn);
                if let Some(known) = ours {
                    known.take(told);
                }
            }
        }
    }
    telling.into_iter().map(|known| known.turn).collect()
}

/// A turn as far as its events were taken.
struct TurnNarrator<'a> {
    turn: ReportTurn,
    names: &'a HashMap<Uuid, String>,
    /// Calls that the model requested.
    calls: Vec<CallRequested>,
    /// The time since which a worker or the model has been awaited.
    since: DateTime<Utc>,
    /// A worker holds the turn.
    is_held: bool,
    called_at: HashMap<String, DateTime<Utc>>,
    retries: HashMap<String, usize>,
    asked_at: HashMap<Uuid, DateTime<Utc>>,
}

impl<'a> TurnNarrator<'a> {
    fn of(e: &TurnRequested, told: &FoldedEvent, names: &'a HashMap<Uuid, String>) -> Self {
        let FoldedEvent { recorded, had_effect } = told;
        let turn = ReportTurn {
            turn: e.turn,
            request_id: e.request_id.clone(),
            seq: recorded.seq,
            asked_at: recorded.time,
            session: e.session,
            user: e.user.name.clone(),
            user_id: e.user.id,
            asker: e.asker.clone(),
            message: e.message.clone(),
            images: e.images.clone(),
            files: e.files.clone(),
            model_asked: e.model.clone(),
            models: Vec::new(),
            agent_config: e.agent_config.clone(),
            skill: e.skill.clone(),
            pool: e.pool.clone(),
            is_void: !had_effect,
            usage: None,
            steps: Vec::new(),
            outcome: None,
        };
        Self {
            turn,
            names,
            calls: Vec::new(),
            since: recorded.time,
            is_held: false,
            called_at: HashMap::new(),
            retries: HashMap::new(),
            asked_at: HashMap::new(),
        }
    }

    fn take(&mut self, told: &FoldedEvent) {
        let FoldedEvent { recorded, had_effect } = told;
        let took = self.took(recorded);
        let Some(what) = self.what(recorded) else { return };
        if *had_effect {
            self.learn(recorded);
        }
        let took_ms = took.map(|since| (recorded.time - since).num_milliseconds().max(0));
        self.turn.steps.push(ReportStep {
            seq: recorded.seq,
            at: recorded.time,
            had_effect: *had_effect,
            took_ms,
            what,
        });
    }

    /// Returns the time since which the event had been awaited.
    fn took(&self, recorded: &RecordedEvent) -> Option<DateTime<Utc>> {
        match &recorded.event {
            Event::TurnToolReturned(e) => self.called_at.get(&e.call).copied(),
            Event::TurnResumed(e) => self.asked_at.get(&e.park).copied(),
            Event::TurnStarted(_) | Event::TurnModelReplied(_) | Event::TurnCompleted(_) => Some(self.since),
            _ => None,
        }
    }

    fn what(&self, recorded: &RecordedEvent) -> Option<ReportStepKind> {
        let name = |session: &Uuid| self.names.get(session).cloned();
        Some(match &recorded.event {
            Event::TurnStarted(e) => ReportStepKind::Claimed { worker: e.worker, is_takeover: self.is_held },
            Event::TurnReleased(e) => ReportStepKind::Released { epoch: e.epoch },
            Event::TurnModelReplied(e) => ReportStepKind::ModelReplied(e.clone()),
            Event::TurnToolCalled(e) => ReportStepKind::ToolCalled(ReportToolCall {
                epoch: e.epoch,
                idempotency_key: format!("{}-{}", e.turn.simple(), e.call),
                name: e.name.clone(),
                request: self.calls.iter().rfind(|call| call.id == e.call).cloned(),
            }),
            Event::TurnToolReturned(e) => ReportStepKind::ToolReturned {
                result: e.clone(),
                retries: self.retries.get(&e.call).copied().unwrap_or_default(),
            },
            Event::TurnParked(e) => ReportStepKind::Asked(e.clone()),
            Event::TurnResumed(e) => {
                ReportStepKind::Decided { resolution: e.clone(), by_name: e.by.as_ref().and_then(name) }
            }
            Event::TurnCompleted(e) => ReportStepKind::Completed(Box::new(e.clone())),
            Event::TurnFailed(e) => ReportStepKind::Failed(e.clone()),
            Event::TurnCancelled(e) => ReportStepKind::Cancelled { cancelled: e.clone(), by_name: name(&e.by) },
            Event::SessionOpened(_)
            | Event::SessionIdentified(_)
            | Event::ConversationRenamed(_)
            | Event::TurnRequested(_)
            | Event::Erased(_)
            | Event::Unreadable(_) => return None,
        })
    }

    /// Updates the state by an event that had an effect.
    fn learn(&mut self, recorded: &RecordedEvent) {
        self.since = recorded.time;
        match &recorded.event {
            Event::TurnStarted(_) => {
                self.is_held = true;
                // Calls without a result are repeated if they are idempotent.
                for call in self.calls.iter().filter(|call| call.idempotent && self.called_at.contains_key(&call.id)) {
                    *self.retries.entry(call.id.clone()).or_default() += 1;
                }
            }
            Event::TurnReleased(_) | Event::TurnResumed(_) => self.is_held = false,
            Event::TurnModelReplied(e) => {
                self.answered(e.model.as_ref());
                self.turn.usage = sum(self.turn.usage, e.usage);
                self.calls.extend(e.calls.iter().cloned());
            }
            Event::TurnToolCalled(e) => {
                self.called_at.insert(e.call.clone(), recorded.time);
            }
            Event::TurnToolReturned(e) => {
                self.called_at.remove(&e.call);
            }
            Event::TurnParked(e) => {
                self.asked_at.insert(e.park, recorded.time);
                self.is_held = false;
            }
            Event::TurnCompleted(e) => {
                self.answered(e.model.as_ref());
                self.turn.usage = e.usage.or(self.turn.usage);
                self.turn.outcome = Some("completed");
            }
            Event::TurnFailed(_) => self.turn.outcome = Some("failed"),
            Event::TurnCancelled(_) => self.turn.outcome = Some("cancelled"),
            Event::SessionOpened(_)
            | Event::SessionIdentified(_)
            | Event::ConversationRenamed(_)
            | Event::TurnRequested(_)
            | Event::Erased(_)
            | Event::Unreadable(_) => {}
        }
    }

    fn answered(&mut self, model: Option<&String>) {
        let new = model.filter(|model| !self.turn.models.contains(model));
        self.turn.models.extend(new.cloned());
    }
}

fn sum(a: Option<Usage>, b: Option<Usage>) -> Option<Usage> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (a, b) => a.or(b),
    }
}

/// An event, and whether it changed the state.
pub(super) struct FoldedEvent<'a> {
    pub recorded: &'a RecordedEvent,
    pub had_effect: bool,
}
