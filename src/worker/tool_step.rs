//! The steps around tools: calling them, stating results without a call, asking a person.

use std::{sync::Arc, time::Instant};

use futures_util::{StreamExt, future::Either, stream::FuturesUnordered};
use serde_json::{Map, Value};

use super::{
    attachments::MessageFiles,
    auth_step::is_password_sent,
    history::ConversationHistory,
    profile::AuthDemand,
    turn_run::{TurnExit, TurnRun},
    wait_step::{self, UnfinishedCalls},
};
use crate::{
    domain::{
        Event, Turn,
        event::{Ask, CallRequested, Ending, Prompt, Resolution, ToolCalled, ToolReturned},
    },
    limits,
    metrics::metrics,
    tools::{CallContext, ToolCallOutcome, ToolResult, canonical::CanonicalArguments, interactions},
    wire::{live::LiveKind, render},
};

impl TurnRun<'_> {
    /// Calls tools in parallel.
    ///
    /// Every intent is logged before the first call, and the turn's ownership is confirmed; every result is logged as it
    /// arrives.
    pub(super) async fn call_tools(&mut self, turn: &Turn, calls: Vec<CallRequested>) -> Result<(), TurnExit> {
        for call in &calls {
            let known = turn.call(&call.id);
            if known.is_some_and(|known| known.is_in_doubt() || known.task.is_some()) {
                continue;
            }
            let is_shown = known.is_some_and(|known| known.called);
            let (call_id, name) = (call.id.clone(), call.name.clone());
            let intent = ToolCalled { turn: self.turn_id, epoch: self.epoch, call: call_id, name, task: None };
            self.record(Event::TurnToolCalled(intent)).await?;
            // A call that waited for a person was shown with its prompt.
            if !call.waits() && !is_shown {
                let frame =
                    render::tool_call(&turn.request.request_id, &call.name, &call.arguments, chrono::Utc::now());
                self.stream(turn, LiveKind::Chunk, frame, 0).await;
            }
        }
        self.confirm_lease().await?;
        // One password is enough for all tools that demand one.
        let mut may_send = !turn.replies.iter().flat_map(|reply| &reply.calls).any(is_password_sent);
        let mut running = FuturesUnordered::new();
        for call in calls {
            let called = match self.refused(turn, &call) {
                Some(refused) => {
                    let sends = std::mem::take(&mut may_send) && refused.demand == AuthDemand::ProveIdentity;
                    Either::Left(self.refuse(turn, call, refused, sends))
                }
                None => Either::Right(self.call(turn, call)),
            };
            running.push(called);
        }
        let mut unfinished = UnfinishedCalls::default();
        while let Some((call, outcome)) = self.guarded(running.next()).await? {
            match outcome {
                ToolCallOutcome::Result(result) => self.record_result(turn, call, result).await?,
                ToolCallOutcome::Asks(elicited) => {
                    let key = self.idempotency_key(&call);
                    unfinished.asks.push((call, key, elicited));
                }
                ToolCallOutcome::Task(id) => self.record_task(&call, id).await?,
                ToolCallOutcome::Working(wait) => unfinished.works(call, wait),
            }
        }
        self.settle(turn, unfinished).await
    }

    /// One call, as a future that borrows nothing of the run.
    fn call(
        &self,
        turn: &Turn,
        call: CallRequested,
    ) -> impl Future<Output = (CallRequested, ToolCallOutcome)> + Send + use<> {
        let (worker, profile, key) = (self.worker.clone(), self.profile.clone(), self.key.clone());
        let found = profile.tool(&key, &call.name);
        let settings = found.as_ref().and_then(|(_, rule)| rule.settings.clone());
        let context = CallContext {
            call: call.id.clone(),
            tool: call.name.clone(),
            elicited: turn.call(&call.id).and_then(|known| known.elicited.clone()),
            task: turn.call(&call.id).and_then(|known| known.task.clone()),
            may_ask: self.shows_elicitations() || self.profile.asks_visitors(),
            call_id: self.idempotency_key(&call),
            org: self.key.org.clone(),
            conversation: self.key.conversation,
            user: turn.request.user.id,
            reader: self.profile.reader(&self.key, turn),
            files: turn.request.files.clone(),
            reader_of_files: Arc::new(MessageFiles(self.worker.clone())),
            asked: self.state.asked.clone(),
            settings: settings.map(|settings| Value::Object(settings).to_string()),
            history: Arc::new(ConversationHistory { worker: self.worker.clone(), key: self.key.clone() }),
            epoch: self.epoch,
        };
        let waiting = found.as_ref().filter(|(tool, _)| tool.passes_answers_on()).and(self.state.waiting.clone());
        let demands = waiting.as_ref().is_some_and(|waiting| self.demands_of(turn, &waiting.tool));
        async move {
            let begun = Instant::now();
            let result = match found {
                Some(_) if let Some(waiting) = waiting => {
                    wait_step::go_on(&worker, &profile, (&key, demands), &call.arguments, *waiting, context).await
                }
                Some((tool, rule)) if profile.needs_approval(&tool, &rule) && !call.confirm => {
                    ToolResult::error(not_asked(&call)).into()
                }
                Some((tool, _)) => worker.tools.call(&tool, &call.arguments, &context).await,
                None => ToolResult::error(format!("There is no tool `{}`.", call.name)).into(),
            };
            metrics().calls.took(begun.elapsed());
            (call, result)
        }
    }

    /// The key of a call, which its provider gets with each repetition.
    fn idempotency_key(&self, call: &CallRequested) -> String {
        format!("{}-{}", self.turn_id.simple(), call.id)
    }

    /// A person refused the call, or did not decide in time.
    pub(super) async fn state_refused(
        &mut self,
        turn: &Turn,
        call: CallRequested,
        resolution: Resolution,
    ) -> Result<(), TurnExit> {
        let text = match resolution {
            Resolution::Expired => "The user did not approve this action in time, so it was rejected. It was not done.",
            Resolution::Declined | Resolution::Approved | Resolution::Submitted => {
                "The user rejected this action. It was not done."
            }
        };
        self.record_result(turn, call, ToolResult::error(text)).await
    }

    /// States a person's answer to a form, or that there was none.
    pub(super) async fn state_answer(
        &mut self,
        turn: &Turn,
        call: CallRequested,
        resolution: Resolution,
        values: Option<Map<String, Value>>,
    ) -> Result<(), TurnExit> {
        self.record_result(turn, call, interactions::answer(resolution, values.as_ref())).await
    }

    /// States that the call's reply was incomplete: the arguments may be cut.
    pub(super) async fn state_cut(&mut self, turn: &Turn, call: CallRequested, ending: Ending) -> Result<(), TurnExit> {
        let text = match ending {
            Ending::Cut => {
                "Not called: your reply was cut off at its length limit. If the call is still wanted, make it again, with \
                 shorter arguments or in several calls."
            }
            Ending::Filtered => "Not called: your reply was stopped by a content filter.",
            Ending::Refused => "Not called: your reply was a refusal. If the call is wanted, make it again.",
            Ending::Unmarked | Ending::Other | Ending::Whole => {
                "Not called: it is not known whether your reply was whole. If the call is still wanted, make it again."
            }
        };
        self.record_result(turn, call, ToolResult::error(text)).await
    }

    /// States that the outcome is unknown: an earlier worker logged the intent and then vanished.
    pub(super) async fn state_unknown(&mut self, turn: &Turn, call: CallRequested) -> Result<(), TurnExit> {
        self.record_result(turn, call, ToolResult::outcome_unknown()).await
    }

    pub(super) async fn record_result(
        &mut self,
        turn: &Turn,
        call: CallRequested,
        result: ToolResult,
    ) -> Result<(), TurnExit> {
        let event = Event::TurnToolReturned(ToolReturned {
            turn: self.turn_id,
            epoch: self.epoch,
            call: call.id,
            name: call.name,
            is_error: result.is_error,
            result: result.text,
            grounding: result.grounding,
            values: result.values,
            otp: result.otp,
            waiting: result.waiting,
        });
        self.record_and_show(turn, event).await
    }

    /// Asks a person and releases the turn.
    pub(super) async fn park(&mut self, turn: &Turn, call: CallRequested) -> Result<(), TurnExit> {
        let deadline = chrono::Utc::now() + self.profile.human_wait();
        let CallRequested { id, name: tool, arguments, description, ask, .. } = call;
        let prompt = match ask {
            Some(Ask { form, reason, .. }) => Prompt::Interaction { call: id, tool, arguments, form, reason },
            None => Prompt::Approval { call: id, tool, arguments, description },
        };
        self.park_at(turn, prompt, deadline, vec![]).await
    }
}

/// Returns the reason why a call that needs approval was not shown to a person.
fn not_asked(call: &CallRequested) -> &'static str {
    if CanonicalArguments::parse(&call.arguments).is_none() {
        return "The arguments are not a JSON object.";
    }
    match call.description.len() > limits::APPROVAL_MAX_BYTES {
        true => "Not done: a person has to approve this, and the arguments are too long to be read.",
        // The tool's provider appeared, or began to require approvals, after the model's reply was recorded.
        false => "The tool was not available. It was not called; it is now.",
    }
}
