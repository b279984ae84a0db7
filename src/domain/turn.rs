//! A running turn, and the next step that a worker takes for it.
//!
//! [`next_step`] is a function of the fold alone. Continuing after a crash, continuing after an approval that came a day
//! later, and the ordinary case are therefore the same code: load, ask, do, append, ask again.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    elicitation::{Elicitation, ElicitedQuestion},
    event::{CallRequested, Citation, Ending, ModelReplied, Prompt, Resolution, TurnRequested, Usage},
};
use crate::limits;

/// A turn between `turn.requested` and its terminal event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub request: TurnRequested,
    pub requested_seq: u64,
    pub requested_at: DateTime<Utc>,
    /// Time of the last event that brought the turn forward: a step, or the end of a wait.
    pub progress_at: DateTime<Utc>,
    /// Sequence of the last `turn.requested` or `turn.resumed`: the only work item that may drive the turn.
    pub item: u64,
    /// Sequence of the last `turn.started`; fences workers that lost the turn.
    pub epoch: Option<u64>,
    /// Claims since the last step forward, without released ones.
    pub claims: u32,
    pub replies: Vec<ToolRound>,
    pub usage: Option<Usage>,
    pub citations: Vec<Citation>,
    pub park: Option<Park>,
}

/// A reply of the model that asked for tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolRound {
    pub text: String,
    pub calls: Vec<CallState>,
    /// `None`: unknown, counted as whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ending>,
    /// Opaque fields of the provider, returned to it with the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
}

impl ToolRound {
    pub fn of(e: &ModelReplied) -> Self {
        let calls = e.calls.iter().map(|request| CallState {
            request: request.clone(),
            called: false,
            decision: None,
            values: None,
            elicited: None,
            is_repeated: false,
            task: None,
            result: None,
        });
        let ended = e.ended.as_ref().map(|ended| ended.ending);
        Self { text: e.text.clone(), calls: calls.collect(), ended, opaque: e.opaque.clone() }
    }
}

/// A tool call and its progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallState {
    pub request: CallRequested,
    /// The intent (`turn.tool_called`) is in the log.
    pub called: bool,
    pub decision: Option<Resolution>,
    /// Values that the person submitted.
    pub values: Option<Map<String, Value>>,
    /// The questions that its server asked instead of a result, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elicited: Option<Elicitation>,
    /// The intent to make it again with the answers is in the log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_repeated: bool,
    /// The task that its server made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    pub result: Option<CallResult>,
}

impl CallState {
    /// Whether the call's outcome is unknown: an intent is in the log, and no result, question or task came of it.
    pub fn is_in_doubt(&self) -> bool {
        let is_intended = if self.elicited.is_some() { self.is_repeated } else { self.called };
        is_intended && self.result.is_none() && self.task.is_none()
    }

    /// The question of its server that waits for an answer.
    pub fn question(&self) -> Option<&ElicitedQuestion> {
        self.elicited.as_ref().filter(|_| self.result.is_none())?.open()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallResult {
    pub is_error: bool,
    pub text: String,
    /// Number of frames that a client is shown after the result.
    pub notices: u8,
}

/// A wait for a person, or for a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Park {
    pub id: Uuid,
    pub prompt: Prompt,
    pub deadline: DateTime<Utc>,
}

impl Park {
    /// Returns a park with an erased prompt: the deadline ends it, under any park id.
    pub fn erased(at: DateTime<Utc>) -> Self {
        let nothing = String::new;
        let prompt =
            Prompt::Approval { call: nothing(), tool: nothing(), arguments: nothing(), description: nothing() };
        Self { id: Uuid::nil(), prompt, deadline: at }
    }
}

impl Turn {
    /// Returns the number of finished model calls, which is also the index of the running or next one.
    pub fn model_calls(&self) -> u32 {
        self.replies.len() as u32
    }

    /// Returns whether the worker that claimed the turn under this epoch still drives it.
    pub fn held_under(&self, epoch: u64) -> bool {
        self.epoch == Some(epoch) && self.park.is_none()
    }

    /// Returns the call with this id in the model's last reply.
    pub fn call(&self, id: &str) -> Option<&CallState> {
        self.replies.last()?.calls.iter().find(|call| call.request.id == id)
    }

    /// Counts the frames of tool activity that a client was shown.
    ///
    /// A streaming client is shown each call when it begins (a call that waits for a person: when they are asked) and each
    /// result. Notices after a result are shown to every client.
    pub fn activity(&self) -> u64 {
        let is_asked = |call: &CallState| self.park.as_ref().is_some_and(|park| park.prompt.call() == call.request.id);
        let begun = |call: &CallState| match call.request.waits() {
            true => call.decision.is_some() || is_asked(call),
            false => call.called,
        };
        let streamed = |call: &CallState| match self.request.stream {
            true => u64::from(begun(call)) + u64::from(call.result.is_some()),
            false => 0,
        };
        let notices = |call: &CallState| call.result.as_ref().map_or(0, |result| u64::from(result.notices));
        self.replies.iter().flat_map(|reply| &reply.calls).map(|call| streamed(call) + notices(call)).sum()
    }

    /// Counts the activity shown before the pending prompt; the prompt's own call is shown after it.
    pub fn activity_before_prompt(&self) -> u64 {
        let is_shown_after =
            matches!(&self.park, Some(Park { prompt: Prompt::Approval { .. } | Prompt::Interaction { .. }, .. }));
        self.activity().saturating_sub(u64::from(self.request.stream && is_shown_after))
    }

    /// Returns the bytes of text that the turn holds.
    pub fn text_bytes(&self) -> usize {
        let result = |call: &CallState| call.result.as_ref().map_or(0, |result| result.text.len());
        let opaque = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let call = |call: &CallState| {
            let CallRequested { arguments, description, .. } = &call.request;
            let elicited = call.elicited.as_ref().map_or(0, Elicitation::text_bytes);
            arguments.len() + description.len() + opaque(&call.request.opaque) + elicited + result(call)
        };
        let reply =
            |reply: &ToolRound| reply.text.len() + opaque(&reply.opaque) + reply.calls.iter().map(call).sum::<usize>();
        let images = self.request.images.iter().map(|image| image.content.text_bytes());
        let files = self.request.files.iter().map(|file| file.name.len() + file.content.text_bytes());
        let citations = self.citations.iter().map(|citation| citation.title.len() + citation.snippet.len());
        let asked = self.request.message.len() + images.chain(files).sum::<usize>();
        asked + citations.sum::<usize>() + self.replies.iter().map(reply).sum::<usize>()
    }

    /// Returns the text that was streamed before the current model call.
    pub fn streamed_text(&self) -> String {
        let parts: Vec<&str> =
            self.replies.iter().map(|reply| reply.text.trim()).filter(|text| !text.is_empty()).collect();
        parts.join("\n\n")
    }
}

/// The next action of a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum NextStep {
    /// Ask the model, with everything so far.
    CallModel,
    /// Call these tools, in parallel; all finish before the next step is asked for.
    CallTools(Vec<CallRequested>),
    /// State a result without calling: a person refused the tool.
    StateRefused(CallRequested, Resolution),
    /// State the person's answer to a form.
    StateAnswer(CallRequested, Resolution, Option<Map<String, Value>>),
    /// State a result without calling: the reply that asks for it was not whole.
    StateCut(CallRequested, Ending),
    /// State a result without calling: an earlier worker may or may not have called the tool.
    StateUnknown(CallRequested),
    /// Ask a person, and release the turn.
    Park(CallRequested),
    /// Put the server's question to a person, and let go.
    Elicit(CallRequested, ElicitedQuestion),
    /// The turn is parked; nothing to do until an answer or the deadline comes.
    Wait,
    /// The cap of model calls is reached: end with an honest answer.
    EndAtCap,
    /// The turn was claimed too often without a step forward: end as failed.
    GiveUp,
}

/// Returns the next step of a turn.
///
/// `max_model_calls` is the cap of model calls.
pub fn next_step(turn: &Turn, max_model_calls: u32) -> NextStep {
    if turn.park.is_some() {
        return NextStep::Wait;
    }
    if turn.claims > limits::CLAIMS_MAX {
        return NextStep::GiveUp;
    }
    let calls = turn.replies.last().map_or(&[][..], |reply| &reply.calls);
    let open = || calls.iter().filter(|call| call.result.is_none());
    let ending = turn.replies.last().and_then(|reply| reply.ended).filter(|ending| !ending.allows_calls());
    if let Some((ending, call)) = ending.zip(open().next()) {
        return NextStep::StateCut(call.request.clone(), ending);
    }
    if let Some(call) = open().find(|call| call.is_in_doubt() && !call.request.idempotent) {
        return NextStep::StateUnknown(call.request.clone());
    }
    let is_free = |call: &&CallState| !call.request.waits() && call.question().is_none();
    let free: Vec<_> = open().filter(is_free).map(|call| call.request.clone()).collect();
    if !free.is_empty() {
        return NextStep::CallTools(free);
    }
    match open().next() {
        Some(call) if let Some(question) = call.question() => NextStep::Elicit(call.request.clone(), question.clone()),
        Some(call) => match call.decision {
            None => NextStep::Park(call.request.clone()),
            Some(answer) if call.request.ask.is_some() => {
                NextStep::StateAnswer(call.request.clone(), answer, call.values.clone())
            }
            Some(Resolution::Approved) => NextStep::CallTools(vec![call.request.clone()]),
            Some(refused) => NextStep::StateRefused(call.request.clone(), refused),
        },
        None if turn.model_calls() >= max_model_calls => NextStep::EndAtCap,
        None => NextStep::CallModel,
    }
}
