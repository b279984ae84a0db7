//! The steps of a turn, as they change it.

use chrono::{DateTime, Utc};

use super::RecordedEvent;
use crate::domain::{
    event::{ModelReplied, Prompt, ToolCalled, ToolReturned, TurnParked, TurnResumed},
    turn::{CallResult, CallState, Park, ToolRound, Turn},
};

/// The call with this id in the model's last reply, while it has no result.
fn open_call<'a>(turn: &'a mut Turn, id: &str) -> Option<&'a mut CallState> {
    turn.replies.last_mut()?.calls.iter_mut().find(|call| call.request.id == id && call.result.is_none())
}

pub(super) fn reply(turn: &mut Turn, e: &ModelReplied, at: DateTime<Utc>) {
    turn.replies.push(ToolRound::of(e));
    turn.usage = match (turn.usage, e.usage) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (a, b) => a.or(b),
    };
    turn.citations.extend(e.grounding.iter().cloned());
    turn.claims = 0;
    turn.progress_at = at;
}

pub(super) fn tool_called(turn: &mut Turn, e: &ToolCalled, at: DateTime<Utc>) {
    if let Some(call) = open_call(turn, &e.call) {
        call.called = true;
        call.is_repeated = call.elicited.is_some();
        call.task = e.task.clone().or(call.task.take());
        turn.progress_at = at;
    }
}

pub(super) fn tool_returned(turn: &mut Turn, e: &ToolReturned, at: DateTime<Utc>) {
    if let Some(call) = open_call(turn, &e.call) {
        let notices = u8::from(e.otp.is_some()) + u8::from(e.otp.as_ref().is_some_and(|otp| otp.sent.is_some()));
        call.result = Some(CallResult { is_error: e.is_error, text: e.result.clone(), notices });
        turn.citations.extend(e.grounding.iter().cloned());
        turn.claims = 0;
        turn.progress_at = at;
    }
}

pub(super) fn park(turn: &mut Turn, e: &TurnParked) {
    for elicited in &e.elicited {
        if let Some(call) = open_call(turn, &elicited.call) {
            (call.elicited, call.is_repeated) = (Some(elicited.clone()), false);
        }
    }
    turn.park = Some(Park { id: e.park, prompt: e.prompt.clone(), deadline: e.deadline });
}

pub(super) fn resume(turn: &mut Turn, e: &TurnResumed, recorded: &RecordedEvent) {
    if let Some(park) = turn.park.take_if(|park| park.id == e.park) {
        if let Some(call) = open_call(turn, park.prompt.call()) {
            match (&park.prompt, &mut call.elicited) {
                (Prompt::Elicitation { .. }, Some(elicited)) => elicited.answer(e.resolution, e.values.clone()),
                (Prompt::Elicitation { .. }, None) | (Prompt::Task { .. }, _) => {}
                _ => (call.decision, call.values) = (Some(e.resolution), e.values.clone()),
            }
        }
        turn.item = recorded.seq;
        turn.progress_at = recorded.time;
        turn.epoch = None;
        turn.claims = 0;
    }
}
