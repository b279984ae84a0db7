//! The step that asks the model.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{
    Worker, attachments, prompt,
    run::{Exit, Run},
};
use crate::{
    domain::{
        Conversation, Event, Turn,
        event::{CallRequested, Citation, FailureReason, ModelReplied, Usage},
    },
    limits,
    log::ReadError,
    model::{ChatStream, Delta, ModelError, ModelReply, ToolCall},
    subjects::ConversationKey,
    tools::{Tool, call::describe},
    wire::{live::Kind, render},
};

/// A model request that is under way while the turn is being claimed. Dropping it aborts the request.
#[derive(Default)]
pub(super) struct Opening(Option<Opened>);

/// A request to the model, sent, and the documents that were put before it.
struct Opened {
    stream: AbortOnDropHandle<Result<ChatStream, OpenError>>,
    grounding: Vec<Citation>,
}

/// Why there is no answer to a request.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its pictures can't be read now.
    #[error(transparent)]
    Images(#[from] ReadError),
}

impl Opening {
    pub fn none() -> Self {
        Self(None)
    }

    /// Sends the request for the next model call of the active turn. Failures show when the step is done.
    pub async fn start(worker: &Arc<Worker>, key: &ConversationKey, state: &Conversation) -> Self {
        Self(open(worker, key, state).await.ok().flatten())
    }
}

/// `None`: there is no gateway to ask.
async fn open(worker: &Arc<Worker>, key: &ConversationKey, state: &Conversation) -> Result<Option<Opened>, ReadError> {
    let Some(gateway) = worker.gateway.clone() else { return Ok(None) };
    let Some(prompt) = prompt::build(worker, key, state).await? else { return Ok(None) };
    let images = state.turn.as_ref().map_or(vec![], |turn| turn.request.images.clone());
    let (worker, mut request) = (worker.clone(), prompt.request);
    let stream = tokio::spawn(async move {
        let room = attachments::show(&worker, &images, &mut request).await?;
        let stream = gateway.chat(&request).await;
        drop(room);
        Ok(stream?)
    });
    Ok(Some(Opened { stream: AbortOnDropHandle::new(stream), grounding: prompt.grounding }))
}

impl Run<'_> {
    /// Asks the model, streams its answer, and records it: as the turn's end, or as a reply that asks for tools.
    pub(super) async fn call_model(&mut self, turn: &Turn, opening: Opening, rerun: bool) -> Result<(), Exit> {
        let now = chrono::Utc::now();
        self.relay.begin_call(turn.model_calls());
        if rerun {
            self.stream(turn, Kind::Restart, render::restarted(&turn.request.request_id, now), 0).await;
        }
        let opened = match opening.0 {
            Some(opened) => Some(opened),
            None => open(self.worker, &self.key, &self.state).await.map_err(|e| Exit::Unavailable(e.to_string()))?,
        };
        let Some(Opened { stream, grounding }) = opened else {
            return self.fail(turn, FailureReason::NoGatewayKey, "this worker has no gateway key").await;
        };
        let reply = match self.guarded(stream).await? {
            Ok(Ok(stream)) => self.relay_stream(turn, stream).await?,
            Ok(Err(OpenError::Model(error))) => Err(error),
            Ok(Err(OpenError::Images(error))) => return Err(Exit::Unavailable(error.to_string())),
            Err(panic) => return self.fail(turn, FailureReason::Model, &panic.to_string()).await,
        };
        match reply {
            Ok(reply) if reply_bytes(&reply) > limits::REPLY_MAX_BYTES => {
                self.fail(turn, FailureReason::TooLarge, "the model's reply is too large to keep").await
            }
            Ok(reply) if reply.tool_calls.is_empty() => self.complete(turn, reply, grounding).await,
            Ok(reply) => self.record_calls(turn, reply, grounding).await,
            Err(error) => {
                tracing::warn!(turn = %self.turn_id, %error, detail = error.detail(), "the model call failed");
                self.fail(turn, FailureReason::Model, &format!("{error}: {}", error.detail())).await
            }
        }
    }

    /// Passes the answer on as it comes.
    async fn relay_stream(
        &mut self,
        turn: &Turn,
        mut stream: ChatStream,
    ) -> Result<Result<ModelReply, ModelError>, Exit> {
        let request_id = &turn.request.request_id;
        loop {
            let deltas = match self.guarded(stream.next()).await? {
                Ok(Some(deltas)) => deltas,
                Ok(None) => return Ok(Ok(stream.into_reply())),
                Err(error) => return Ok(Err(error)),
            };
            if !turn.request.stream {
                continue;
            }
            let now = chrono::Utc::now();
            for delta in deltas {
                match delta {
                    Delta::Text(text) => {
                        self.relay.publish(Kind::Token, render::token(request_id, &text, now), text.len()).await;
                    }
                    Delta::Reasoning(text) => {
                        self.relay.publish(Kind::Reasoning, render::reasoning(request_id, &text, now), 0).await;
                    }
                }
            }
        }
    }

    async fn record_calls(&mut self, turn: &Turn, reply: ModelReply, grounding: Vec<Citation>) -> Result<(), Exit> {
        let calls = reply.tool_calls.into_iter().map(|call| {
            let tool = self.worker.tools.find(&self.key.org, &call.name);
            let confirm = tool.as_ref().is_some_and(|tool| self.worker.needs_approval(tool));
            requested(call, tool.as_ref(), confirm)
        });
        let event = Event::TurnModelReplied(ModelReplied {
            turn: self.turn_id,
            epoch: self.epoch,
            text: reply.text,
            calls: distinct(calls.collect(), turn),
            usage: reply.usage.map(usage),
            model: reply.model,
            response_id: reply.response_id,
            grounding,
        });
        self.record_and_show(turn, event).await
    }
}

/// What the log keeps of a call. A tool that is not known now may be there when it is called, so only one that is known to
/// bear repetition counts as such.
fn requested(call: ToolCall, tool: Option<&Tool>, confirm: bool) -> CallRequested {
    CallRequested {
        confirm,
        idempotent: tool.is_some_and(|tool| tool.idempotent),
        description: describe(&call.name, &call.arguments),
        id: call.id,
        name: call.name,
        arguments: call.arguments,
    }
}

/// Calls whose ids are unique within the turn: results are matched by id, and some gateways number each reply's from 0.
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
    reply.text.len() + reply.tool_calls.iter().map(|call| call.arguments.len() + call.name.len()).sum::<usize>()
}

pub(super) fn usage(usage: crate::model::Usage) -> Usage {
    Usage { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens, cost_usd: usage.cost_usd }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_not_known_does_not_bear_repetition() {
        let call = ToolCall { id: "call-1".into(), name: "charge".into(), arguments: "{}".into() };
        assert!(!requested(call, None, false).idempotent);
    }
}
