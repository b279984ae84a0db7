//! The steps around tools: calling them, stating results without a call, asking a person.

use std::sync::Arc;

use futures_util::{StreamExt, future::Either, stream::FuturesUnordered};
use serde_json::{Map, Value};

use super::{
    attachments::MessageFiles,
    auth_step::is_password_sent,
    history::ConversationHistory,
    profile::AuthDemand,
    run::{TurnExit, TurnRun},
};
use crate::{
    domain::{
        Event, Turn,
        event::{Ask, CallRequested, Ending, Prompt, Resolution, ToolCalled, ToolReturned, TurnParked},
    },
    ids, limits,
    tools::{CallContext, ToolResult, canonical::CanonicalArguments, interactions},
    wire::{live::LiveKind, render},
};

impl TurnRun<'_> {
    /// Calls tools in parallel.
    ///
    /// Every intent is logged before the first call, and the turn's ownership is confirmed; every result is logged as it
    /// arrives.
    pub(super) async fn call_tools(&mut self, turn: &Turn, calls: Vec<CallRequested>) -> Result<(), TurnExit> {
        for call in &calls {
            if turn.call(&call.id).is_some_and(|known| known.called) {
                continue;
            }
            let (call_id, name) = (call.id.clone(), call.name.clone());
            let intent = ToolCalled { turn: self.turn_id, epoch: self.epoch, call: call_id, name };
            self.record(Event::TurnToolCalled(intent)).await?;
            // A call that waited for a person was shown with its prompt.
            if !call.waits() {
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
        while let Some((call, result)) = self.guarded(running.next()).await? {
            self.record_result(turn, call, result).await?;
        }
        Ok(())
    }

    /// Builds one call, as a future that borrows nothing of the run.
    fn call(
        &self,
        turn: &Turn,
        call: CallRequested,
    ) -> impl Future<Output = (CallRequested, ToolResult)> + Send + use<> {
        let (worker, profile, key) = (self.worker.clone(), self.profile.clone(), self.key.clone());
        let found = profile.tool(&key, &call.name);
        let settings = found.as_ref().and_then(|(_, rule)| rule.settings.clone());
        let context = CallContext {
            call_id: format!("{}-{}", self.turn_id.simple(), call.id),
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
        async move {
            let result = match found {
                Some((tool, rule)) if profile.needs_approval(&tool, &rule) && !call.confirm => {
                    ToolResult::error(not_asked(&call))
                }
                Some((tool, _)) => worker.tools.call(&tool, &call.arguments, &context).await,
                None => ToolResult::error(format!("There is no tool `{}`.", call.name)),
            };
            (call, result)
        }
    }

    /// States that a person refused the call, or did not decide in time.
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

    async fn record_result(&mut self, turn: &Turn, call: CallRequested, result: ToolResult) -> Result<(), TurnExit> {
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
        let park = ids::new_random();
        let event = TurnParked { turn: self.turn_id, epoch: self.epoch, park, prompt, deadline };
        let recorded = self.record(Event::TurnParked(event)).await?;
        super::end_step::schedule(self.worker, &self.key, park, deadline).await?;
        let now = chrono::Utc::now();
        for (kind, frame) in render::render(&turn.request.request_id, turn.request.stream, &recorded, now) {
            self.relay.publish(kind, frame, 0).await;
        }
        Err(TurnExit::Done)
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
