//! Calls that end without a result: their server asks the visitor first, or they became a task.
//!
//! On a client with forms the visitor is asked in one, and the turn parks. On another one the model asks in words: then the
//! call waits over the end of its turn, and goes on with `submit_interaction`. A turn with a lasting task parks as well, and looks at
//! the task again at the park's deadline.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{
    Worker,
    deadline::{self, AbandonedTask, DeadlineMessage},
    open_task::OpenTask,
    profile::TurnProfile,
    turn_run::{TurnExit, TurnRun},
};
use crate::{
    domain::{
        Event, Turn,
        elicitation::{Elicitation, ElicitedQuestion, WaitingCall},
        event::{CallRequested, Prompt, Resolution, ToolCalled, TurnParked},
        interaction::Form,
    },
    ids, limits,
    subjects::ConversationKey,
    tools::{CallContext, ToolCallOutcome, ToolResult, interactions},
    wire::render,
};

/// The capability of clients that show a server's questions.
const CAPABILITY: &str = "elicitation_form";

/// The calls of a step that have ended without a result.
#[derive(Default)]
pub(super) struct UnfinishedCalls {
    pub asks: Vec<(CallRequested, String, Elicitation)>,
    /// The first call with a task that goes on, and the shortest time until one is looked at again.
    pub works: Option<(CallRequested, Duration)>,
}

impl UnfinishedCalls {
    pub fn works(&mut self, call: CallRequested, wait: Duration) {
        self.works = match self.works.take() {
            Some((first, shortest)) => Some((first, shortest.min(wait))),
            None => Some((call, wait)),
        };
    }
}

impl TurnRun<'_> {
    /// Whether the visitor's client shows the form of a server.
    pub(super) fn shows_elicitations(&self) -> bool {
        self.state.supports.iter().any(|capability| capability == CAPABILITY)
    }

    /// Waits for the calls of a step: for a person before a task, since a task goes on by itself.
    pub(super) async fn settle(&mut self, turn: &Turn, unfinished: UnfinishedCalls) -> Result<(), TurnExit> {
        let UnfinishedCalls { mut asks, works } = unfinished;
        let order = |call: &CallRequested| {
            turn.replies.last().and_then(|reply| reply.calls.iter().position(|known| known.request.id == call.id))
        };
        asks.sort_by_key(|(call, ..)| order(call));
        let most = match self.shows_elicitations() {
            true => limits::ELICITED_PARK_MAX_BYTES,
            false => limits::ELICITED_WAITING_MAX_BYTES,
        };
        for call in too_much(&mut asks, most) {
            let text = "Not done: more is asked of the visitor than can be kept. Make fewer calls at once.";
            self.record_result(turn, call, ToolResult::error(text)).await?;
        }
        if self.shows_elicitations() {
            let first = asks.first().and_then(|(call, _, elicited)| Some((call.clone(), elicited.open()?.clone())));
            if let Some((call, question)) = first {
                let elicited = asks.into_iter().map(|(.., elicited)| elicited).collect();
                return self.elicit(turn, call, question, elicited).await;
            }
        } else {
            self.ask_in_words(turn, asks).await?;
        }
        match works {
            Some((call, wait)) => self.park_for_task(turn, call, wait).await,
            None => Ok(()),
        }
    }

    /// Shows a server's question and lets go of the turn; `elicited`: the questions that the log does not have yet.
    pub(super) async fn elicit(
        &mut self,
        turn: &Turn,
        call: CallRequested,
        question: ElicitedQuestion,
        elicited: Vec<Elicitation>,
    ) -> Result<(), TurnExit> {
        let ElicitedQuestion { form, message: reason, .. } = question;
        let prompt = Prompt::Elicitation { call: call.id, tool: call.name, form, reason };
        let deadline = Utc::now() + self.profile.human_wait();
        self.park_at(turn, prompt, deadline, elicited).await
    }

    /// Parks until a task is looked at again: for longer, the older the turn is.
    async fn park_for_task(&mut self, turn: &Turn, call: CallRequested, wait: Duration) -> Result<(), TurnExit> {
        let age = (Utc::now() - turn.requested_at).to_std().unwrap_or_default();
        let most = Duration::from_millis(limits::MCP_TASK_PARK_MAX_MS);
        let wait = wait.max(age / 8).clamp(Duration::from_millis(limits::MCP_TASK_PARK_MIN_MS), most);
        let deadline = Utc::now() + TimeDelta::from_std(wait).unwrap_or_default();
        let prompt = Prompt::Task { call: call.id, tool: call.name };
        self.park_at(turn, prompt, deadline, vec![]).await
    }

    /// Records a park, sets its deadline, shows its prompt and lets go of the turn.
    pub(super) async fn park_at(
        &mut self,
        turn: &Turn,
        prompt: Prompt,
        deadline: DateTime<Utc>,
        elicited: Vec<Elicitation>,
    ) -> Result<(), TurnExit> {
        let park = ids::new_random();
        let event = TurnParked { turn: self.turn_id, epoch: self.epoch, park, prompt, deadline, elicited };
        let recorded = self.record(Event::TurnParked(event)).await?;
        let parked = self.turn().unwrap_or(turn).clone();
        schedule(self.worker, &self.key, &parked).await?;
        for (kind, frame) in render::render(&turn.request.request_id, turn.request.stream, &recorded, Utc::now()) {
            self.relay.publish(kind, frame, 0).await;
        }
        Err(TurnExit::Done)
    }

    /// The server made a task of a call: from now on the task is asked for, by whichever worker goes on.
    pub(super) async fn record_task(&mut self, call: &CallRequested, task: String) -> Result<(), TurnExit> {
        self.tasks.push(OpenTask { tool: call.name.clone(), id: task.clone() });
        let (call, name) = (call.id.clone(), call.name.clone());
        let event = ToolCalled { turn: self.turn_id, epoch: self.epoch, call, name, task: Some(task) };
        self.record(Event::TurnToolCalled(event)).await.map(drop)
    }

    /// Has the model ask the servers' questions. One call's question at a time: an answer in words names none.
    async fn ask_in_words(
        &mut self,
        turn: &Turn,
        asks: Vec<(CallRequested, String, Elicitation)>,
    ) -> Result<(), TurnExit> {
        for (n, (call, idempotency_key, elicited)) in asks.into_iter().enumerate() {
            let result = if n > 0 {
                ToolResult::error(
                    "Not done: the tool asks the visitor something, and another question has to be answered first. Call it \
                     again afterwards.",
                )
            } else if call.arguments.len() > limits::ELICITED_ARGUMENTS_MAX_BYTES {
                ToolResult::error(
                    "Not done: the tool asks the visitor something, and its arguments are too long to be kept.",
                )
            } else {
                let waiting = WaitingCall {
                    tool: call.name.clone(),
                    arguments: call.arguments.clone(),
                    idempotency_key,
                    idempotent: call.idempotent,
                    approved: call.confirm,
                    elicited,
                };
                in_words(waiting)
            };
            self.record_result(turn, call, result).await?;
        }
        Ok(())
    }

    /// The turn is over, and its tasks may still go on at their servers.
    pub(super) async fn cancel_tasks(&mut self) {
        let goes_on = |state: Arc<crate::domain::Conversation>| state.active(self.turn_id).is_some();
        if self.tasks.is_empty() || self.worker.conversations.cached(&self.key).is_none_or(goes_on) {
            return;
        }
        for task in std::mem::take(&mut self.tasks) {
            cancel(self.worker, &self.key, &task).await;
        }
    }
}

/// Takes out the calls with questions too large to keep.
fn too_much(asks: &mut Vec<(CallRequested, String, Elicitation)>, most: usize) -> Vec<CallRequested> {
    let mut bytes = 0;
    let has_no_room = |(.., elicited): &mut (CallRequested, String, Elicitation)| {
        bytes += elicited.text_bytes();
        bytes > most
    };
    asks.extract_if(.., has_no_room).map(|(call, ..)| call).collect()
}

/// Tells a server that its task is no longer wanted. Nothing depends on it, so it is tried once.
pub(super) async fn cancel(worker: &Worker, key: &ConversationKey, task: &OpenTask) {
    match worker.tools.find(&key.org, &task.tool, |_| true) {
        Some(tool) => worker.tools.cancel(&tool, &task.id).await,
        None => tracing::info!(tool = task.tool, "a task is not cancelled: its server is not known here"),
    }
}

/// The deadline of a park, which names the task that it waits for.
pub(super) fn deadline_of(key: &ConversationKey, turn: &Turn) -> Option<DeadlineMessage> {
    let park = turn.park.as_ref()?;
    let task = match &park.prompt {
        Prompt::Task { call, tool } => turn.call(call).and_then(|call| call.task.clone()).map(|id| AbandonedTask {
            turn: turn.request.turn,
            tool: tool.clone(),
            id,
        }),
        _ => None,
    };
    Some(DeadlineMessage { org: key.org.clone(), conversation: key.conversation, park: park.id, put_off: 0, task })
}

/// The result of a call with a question for the model to ask.
fn in_words(waiting: WaitingCall) -> ToolResult {
    let Some(question) = waiting.elicited.open() else { return ToolResult::outcome_unknown() };
    let result = interactions::elicited_in_words(question);
    ToolResult { waiting: Some(Box::new(waiting)), ..result }
}

/// Passes a visitor's answer in words on to a server's question, and goes on with the call when it was the last one.
pub(super) async fn go_on(
    worker: &Worker,
    profile: &TurnProfile,
    (key, demands): (&ConversationKey, bool),
    arguments: &str,
    mut waiting: WaitingCall,
    mut context: CallContext,
) -> ToolCallOutcome {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let form: Option<Form> = waiting.elicited.open().map(|question| question.form.clone());
    let submitted = interactions::submit(&arguments, form.as_ref());
    let Some(values) = submitted.values else { return submitted.into() };
    match arguments["declined"] == true {
        true => waiting.elicited.answer(Resolution::Declined, None),
        false => waiting.elicited.answer(Resolution::Submitted, Some(values.clone())),
    }
    if waiting.elicited.open().is_some() {
        return in_words(waiting).into();
    }
    let over = |result: ToolResult| ToolCallOutcome::Result(ToolResult { values: Some(values.clone()), ..result });
    let Some((tool, rule)) = profile.tool(key, &waiting.tool) else {
        return over(ToolResult::error(format!("There is no tool `{}`.", waiting.tool)));
    };
    if demands || (profile.needs_approval(&tool, &rule) && !waiting.approved) {
        return over(ToolResult::error("Not done: the tool may not be called like this any more. Call it again."));
    }
    context.tool = tool.name.clone();
    context.call_id = waiting.idempotency_key.clone();
    context.settings = rule.settings.map(|settings| Value::Object(settings).to_string());
    context.elicited = Some(waiting.elicited.clone());
    match worker.tools.call(&tool, &waiting.arguments, &context).await {
        ToolCallOutcome::Result(result) => over(result),
        ToolCallOutcome::Asks(elicited) => in_words(WaitingCall { elicited, ..waiting }).into(),
        outcome @ (ToolCallOutcome::Task(_) | ToolCallOutcome::Working(_)) => outcome,
    }
}

/// Has the log's server send a message when the wait for a person is over.
pub(super) async fn schedule(worker: &Worker, key: &ConversationKey, turn: &Turn) -> Result<(), TurnExit> {
    let Some((deadline, park)) = deadline_of(key, turn).zip(turn.park.as_ref()) else { return Ok(()) };
    let put = deadline::schedule(worker, &deadline, park.deadline).await;
    put.map_err(|error| TurnExit::Unavailable(error.to_string()))
}
