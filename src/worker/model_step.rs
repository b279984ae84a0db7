//! The step that calls the model.

use std::{pin::pin, sync::Arc};

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::future::{Either, select};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Worker,
    agent_step::{self, StepStream},
    attachments,
    model_answer::{ModelAnswer, add, ended, notice, usage},
    profile::TurnProfile,
    prompt,
    reply_extractor::ReplyExtractor,
    side_calls::{self, SideAnswer},
    turn_run::{TurnExit, TurnRun, on_heap},
};
use crate::{
    domain::{
        Conversation, Event, Turn,
        event::{CallRequested, Citation, FailureReason, ModelReplied, ReplyTiming},
        frame_trace::{FrameKind, FrameRecorder},
    },
    host::{self, AgentHost},
    limits,
    metrics::metrics,
    model::{ModelError, ModelReply, ReplyDelta, ToolCall},
    nats::ReadError,
    subjects::ConversationKey,
    tools::{
        Tool, ToolBackend,
        canonical::{CanonicalArguments, describe},
        interactions,
    },
    wire::{live::LiveKind, render},
};

/// A model request that runs while the turn is being claimed. Dropping it aborts the request.
#[derive(Default)]
pub(super) struct Prefetch(Option<SentRequest>);

/// A sent model request, with the documents in it.
struct SentRequest {
    asked_at: DateTime<Utc>,
    stream: AbortOnDropHandle<Result<StepStream, RequestError>>,
    grounding: Vec<Citation>,
    preamble: Preamble,
}

/// The pending request for the preamble.
type Preamble = Option<AbortOnDropHandle<Option<SideAnswer>>>;

/// The reason why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The message's pictures can't be read now.
    #[error(transparent)]
    Images(#[from] ReadError),
}

impl Prefetch {
    pub fn none() -> Self {
        Self(None)
    }

    /// Sends the request for the next model call of the active turn. Errors appear when the step is taken.
    pub async fn start(
        worker: &Arc<Worker>,
        key: &ConversationKey,
        profile: &TurnProfile,
        state: &Conversation,
    ) -> Self {
        Self(open(worker, key, profile, state).await.ok().flatten())
    }
}

/// Sends the next request to the model, or to the agent that this worker hosts. `None`: no gateway is available.
async fn open(
    worker: &Arc<Worker>,
    key: &ConversationKey,
    profile: &TurnProfile,
    state: &Conversation,
) -> Result<Option<SentRequest>, ReadError> {
    if let Some(agent) = &worker.settings.agent {
        return ask_agent(worker, key, profile, state, agent.clone()).await;
    }
    let Some(gateway) = profile.gateway.clone() else { return Ok(None) };
    let Some(prompt) = prompt::build(worker, key, profile, state).await? else { return Ok(None) };
    let is_wanted = |turn: &&Turn| turn.replies.is_empty() && turn.claims == 0 && turn.request.stream;
    let preamble = state.turn.as_ref().filter(is_wanted).zip(profile.preamble_model()).map(|(turn, model)| {
        let asked = side_calls::preamble(gateway.clone(), model.clone(), turn.request.message.clone());
        AbortOnDropHandle::new(tokio::spawn(asked))
    });
    let images = state.turn.as_ref().map_or(vec![], |turn| turn.request.images.clone());
    let (worker, mut request, asked_at) = (worker.clone(), prompt.request, Utc::now().trunc_subsecs(3));
    let stream = tokio::spawn(async move {
        let room = attachments::show(&worker, &images, &mut request).await?;
        let stream = gateway.chat(&request).await;
        drop(room);
        Ok(StepStream::Model(Box::new(stream?)))
    });
    let stream = AbortOnDropHandle::new(stream);
    Ok(Some(SentRequest { asked_at, stream, grounding: prompt.grounding, preamble }))
}

/// Asks the hosted agent for the next step, under the epoch of the turn's claim.
async fn ask_agent(
    worker: &Arc<Worker>,
    key: &ConversationKey,
    profile: &TurnProfile,
    state: &Conversation,
    agent: AgentHost,
) -> Result<Option<SentRequest>, ReadError> {
    let Some((prompt, turn)) = prompt::build(worker, key, profile, state).await?.zip(state.turn.clone()) else {
        return Ok(None);
    };
    let (worker, key, mut request, now) = (worker.clone(), key.clone(), prompt.request, Utc::now());
    let stream = tokio::spawn(async move {
        let room = attachments::show(&worker, &turn.request.images, &mut request).await?;
        let stream = agent.step(&agent_step::request(&key, &turn, request, now)).await;
        drop(room);
        Ok(StepStream::Agent(Box::new(stream?)))
    });
    let stream = AbortOnDropHandle::new(stream);
    Ok(Some(SentRequest { asked_at: now.trunc_subsecs(3), stream, grounding: prompt.grounding, preamble: None }))
}

impl TurnRun<'_> {
    /// Calls the model, streams its answer, and records the reply: as the turn's end, or as a request for tools.
    pub(super) async fn call_model(&mut self, turn: &Turn, prefetch: Prefetch, rerun: bool) -> Result<(), TurnExit> {
        let now = chrono::Utc::now();
        self.relay.begin_call(turn.model_calls());
        self.recorder = FrameRecorder::default();
        if rerun {
            self.stream(turn, LiveKind::Restart, render::restarted(&turn.request.request_id, now), 0).await;
        }
        let opened = match prefetch.0 {
            Some(opened) => Some(opened),
            None => {
                let opened = open(self.worker, &self.key, &self.profile, &self.state).await;
                opened.map_err(|error| TurnExit::Unavailable(error.to_string()))?
            }
        };
        let Some(SentRequest { asked_at, stream, grounding, mut preamble }) = opened else {
            return self.fail(turn, FailureReason::NoGatewayKey, "this worker has no gateway key for the turn").await;
        };
        self.timing = Some(ReplyTiming { asked_at, first_token_ms: None });
        let is_agent = self.worker.settings.agent.is_some();
        let mut has_begun = false;
        let reply = match self.meanwhile(turn, &mut preamble, stream).await? {
            Ok(Ok(stream)) => {
                has_begun = true;
                on_heap(|| self.relay_stream(turn, stream, preamble)).await?
            }
            Ok(Err(RequestError::Model(error))) => Err(error),
            Ok(Err(RequestError::Images(error))) => return Err(TurnExit::Unavailable(error.to_string())),
            Err(panic) => return self.fail(turn, FailureReason::Model, &panic.to_string()).await,
        };
        match reply.map(|answer| ModelAnswer { grounding, ..answer }) {
            Ok(ModelAnswer { reply, .. }) if reply_bytes(&reply) > limits::REPLY_MAX_BYTES => {
                self.fail(turn, FailureReason::TooLarge, "the model's reply is too large to keep").await
            }
            Ok(replied) if replied.reply.tool_calls.is_empty() => on_heap(|| self.complete(turn, replied)).await,
            Ok(replied) => on_heap(|| self.record_calls(turn, replied)).await,
            // The agent began a step and left it: as after a killed worker, another claim runs it again.
            Err(error) if is_agent && has_begun && host::is_passing(&error) => {
                Err(TurnExit::Unavailable(format!("{error}: {}", error.detail())))
            }
            Err(error) => {
                // The detail is logged only: gateways quote their input.
                let (conversation, session) = (self.key.conversation, turn.request.session);
                tracing::warn!(
                    %conversation,
                    %session,
                    turn = %self.turn_id,
                    request_id = turn.request.request_id,
                    %error,
                    "the model call failed"
                );
                let reason = match error {
                    ModelError::Filtered { .. } => FailureReason::Filtered,
                    _ => FailureReason::Model,
                };
                self.fail(turn, reason, &format!("{error}: {}", error.detail())).await
            }
        }
    }

    /// Relays the answer as it arrives, without its suggested replies.
    async fn relay_stream(
        &mut self,
        turn: &Turn,
        mut stream: StepStream,
        mut preamble: Preamble,
    ) -> Result<Result<ModelAnswer, ModelError>, TurnExit> {
        let mut cutter = ReplyExtractor::default();
        loop {
            let deltas = match self.meanwhile(turn, &mut preamble, stream.next()).await? {
                Ok(Some(deltas)) => deltas,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            // The answer has begun: a preamble would come too late.
            preamble = None;
            self.note_first_token(turn);
            for delta in deltas {
                match delta {
                    ReplyDelta::Text(new) => self.answer(turn, &cutter.push(&new)).await,
                    ReplyDelta::Reasoning(thought) => self.say(turn, FrameKind::Reasoning, &thought).await,
                }
            }
        }
        let (rest, suggestions) = cutter.finish();
        self.answer(turn, &rest).await;
        let (reply, confirms) = stream.into_reply();
        // An incomplete answer says so in its last line, which is streamed like the rest.
        let is_answer = reply.tool_calls.is_empty() && !self.recorder.text().trim().is_empty();
        if let Some(notice) = notice(ended(&reply).ending).filter(|_| is_answer) {
            self.answer(turn, &format!("\n\n{notice}")).await;
        }
        let text = self.recorder.text().to_string();
        Ok(Ok(ModelAnswer { reply: ModelReply { text, ..reply }, suggestions, grounding: vec![], confirms }))
    }

    /// Notes the time of the first token of a model call.
    fn note_first_token(&mut self, turn: &Turn) {
        let now = Utc::now();
        if let Some(timing) = self.timing.as_mut().filter(|timing| timing.first_token_ms.is_none()) {
            timing.first_token_ms = Some(u64::try_from((now - timing.asked_at).num_milliseconds()).unwrap_or_default());
            if turn.replies.is_empty() {
                let waited = (self.worker.log.now() - turn.requested_at).to_std().unwrap_or_default();
                metrics().turns.first_token(&turn.request.pool, waited);
            }
        }
    }

    /// Relays new text of the answer.
    async fn answer(&mut self, turn: &Turn, text: &str) {
        self.recorder.say(text);
        self.say(turn, FrameKind::Token, text).await;
    }

    /// Waits for the model, and shows the preamble if it comes first.
    async fn meanwhile<T>(
        &mut self,
        turn: &Turn,
        preamble: &mut Preamble,
        work: impl Future<Output = T>,
    ) -> Result<T, TurnExit> {
        let mut work = pin!(work);
        let Some(sentence) = preamble else { return self.guarded(work).await };
        match self.guarded(select(&mut work, sentence)).await? {
            Either::Left((done, _)) => Ok(done),
            Either::Right((said, _)) => {
                *preamble = None;
                if let Ok(Some(SideAnswer { text, usage })) = said {
                    self.say(turn, FrameKind::Preamble, &text).await;
                    self.preamble = Some(text);
                    self.side_usage = add(self.side_usage, usage);
                }
                self.guarded(work).await
            }
        }
    }

    async fn record_calls(&mut self, turn: &Turn, replied: ModelAnswer) -> Result<(), TurnExit> {
        let ModelAnswer { reply, grounding, confirms, .. } = replied;
        let (ended, bytes) = (ended(&reply), reply_bytes(&reply));
        let calls = reply.tool_calls.into_iter().map(|call| {
            let found = self.profile.tool(&self.key, &call.name);
            // A call that would be refused needs no approval.
            let confirm = found.as_ref().is_some_and(|(tool, rule)| {
                (self.profile.needs_approval(tool, rule) || confirms.contains(&call.id))
                    && self.profile.demands(&self.state, turn, tool, rule).is_none()
            });
            let call = requested(call, found.as_ref().map(|(tool, _)| tool), confirm, &self.state);
            // A conversation that does not exist yet asks nothing.
            if ended.ending.allows_calls() { call } else { CallRequested { confirm: false, ask: None, ..call } }
        });
        let shown = self.recorder.trace(&reply.text);
        let opaque = reply.opaque.filter(|opaque| {
            // In the event the text is escaped within JSON.
            let fits = bytes + Value::from(opaque.as_str()).to_string().len() <= limits::REPLY_MAX_BYTES;
            if !fits {
                tracing::warn!(turn = %self.turn_id, bytes = opaque.len(), "reasoning is too large to be sent back to the model");
            }
            fits
        });
        let event = Event::TurnModelReplied(ModelReplied {
            turn: self.turn_id,
            epoch: self.epoch,
            preamble: self.preamble.take(),
            text: reply.text,
            calls: distinct(calls.collect(), turn),
            usage: add(reply.usage.map(usage), self.side_usage.take()),
            model: reply.model,
            response_id: reply.response_id,
            ended: Some(ended.clone()),
            opaque,
            grounding,
            timing: self.timing.take(),
            shown,
        });
        self.record_and_show(turn, event).await
    }
}

/// Returns the stored form of a call. A tool that is not known now may be there when it is called, so only one that is known to
/// bear repetition counts as such.
fn requested(call: ToolCall, tool: Option<&Tool>, confirm: bool, state: &Conversation) -> CallRequested {
    // One form is stored, shown to a person and sent to the tool; text that is no object is refused when it is called.
    let canonical = CanonicalArguments::parse(&call.arguments).map(|arguments| arguments.text());
    let arguments: Value = canonical.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let ask = match tool.map(|tool| &tool.backend) {
        Some(ToolBackend::Builtin(builtin)) => interactions::ask(*builtin, &arguments, &state.supports).ok(),
        _ => None,
    };
    let description = describe(&call.name, &call.arguments);
    // An answer in words makes the call again that waits for it.
    let goes_on_with_another =
        |tool: &Tool| tool.passes_answers_on() && state.waiting.as_ref().is_some_and(|waiting| !waiting.idempotent);
    CallRequested {
        ask,
        // A person can't approve arguments that are unreadable or too long; such a call is refused instead.
        confirm: confirm && canonical.is_some() && description.len() <= limits::APPROVAL_MAX_BYTES,
        idempotent: tool.is_some_and(|tool| tool.idempotent && !goes_on_with_another(tool)),
        description,
        id: call.id,
        name: call.name,
        arguments: canonical.unwrap_or(call.arguments),
        opaque: call.opaque,
    }
}

/// Makes the ids of calls unique within the turn: results are matched by id, and some gateways number each reply's calls
/// from 0.
fn distinct(mut calls: Vec<CallRequested>, turn: &Turn) -> Vec<CallRequested> {
    let mut taken: std::collections::HashSet<String> =
        turn.replies.iter().flat_map(|reply| &reply.calls).map(|call| call.request.id.clone()).collect();
    for call in &mut calls {
        let wanted = call.id.clone();
        let mut n = 1;
        while !taken.insert(call.id.clone()) {
            n += 1;
            call.id = format!("{wanted}-{n}");
        }
    }
    calls
}

fn reply_bytes(reply: &ModelReply) -> usize {
    let opaque = |call: &ToolCall| call.opaque.as_ref().map_or(0, String::len);
    let call = |call: &ToolCall| call.arguments.len() + call.name.len() + opaque(call);
    reply.text.len() + reply.tool_calls.iter().map(call).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_tool_is_not_idempotent() {
        let call = ToolCall { id: "call-1".into(), name: "charge".into(), arguments: "{}".into(), opaque: None };
        assert!(!requested(call, None, false, &Conversation::default()).idempotent);
    }
}
