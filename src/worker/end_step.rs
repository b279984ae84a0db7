//! The steps that end a worker's work on a turn: answered, failed, given up, parked.

use super::{
    Worker, consumer,
    model_step::{ModelAnswer, add, ended, notice, usage},
    run::{TurnExit, TurnRun},
    side_calls::{self, StepJudgement},
    wait_step::deadline_of,
};
use crate::{
    domain::{
        Event, Turn,
        event::{
            Citation, Ending, FailureReason, ReplyEnd, ResolutionStatus, Response, TurnCompleted, TurnFailed,
            TurnRequested, Usage,
        },
    },
    ids, knowledge,
    live::relay::FrameRelay,
    subjects::{self, ConversationKey},
    wire::render,
};
use chrono::{DateTime, Utc};
use serde_json::json;

/// The content of a completed turn.
struct TurnAnswer {
    text: String,
    /// The model call that streamed the text.
    call: Option<u32>,
    citations: Vec<Citation>,
    usage: Option<Usage>,
    model: Option<String>,
    response_id: Option<String>,
    /// The ending of the answer's reply.
    ended: Option<ReplyEnd>,
    suggestions: Vec<String>,
    judged: Option<StepJudgement>,
}

impl TurnRun<'_> {
    /// Completes the turn with a reply without tool calls.
    pub(super) async fn complete(&mut self, turn: &Turn, replied: ModelAnswer) -> Result<(), TurnExit> {
        let ModelAnswer { reply, suggestions, grounding, .. } = replied;
        let ended = ended(&reply);
        let (text, call) = match reply.text.trim() {
            // Without a text of its own, the text streamed before the last tool call is the answer.
            "" => (turn.streamed_text(), None),
            // The beginning stays as streamed, so that offsets into the stream are offsets into the answer.
            _ => (reply.text.trim_end().to_string(), Some(turn.model_calls())),
        };
        if text.is_empty() {
            let (reason, detail) = match ended.ending {
                Ending::Cut => (FailureReason::Cut, "the model's answer was cut off before it said anything"),
                Ending::Filtered => (FailureReason::Filtered, "a content filter left nothing of the model's answer"),
                _ => (FailureReason::Model, "the model gave an empty answer"),
            };
            let word = ended.finish_reason.as_deref().unwrap_or("none");
            return self.fail(turn, reason, &format!("{detail} (finish reason: {word})")).await;
        }
        let text = match notice(ended.ending).filter(|_| call.is_none()) {
            Some(notice) => format!("{text}\n\n{notice}"),
            None => text,
        };
        let judged = match self.profile.gateway.clone() {
            Some(gateway) => {
                let (profile, state) = (self.profile.clone(), self.state.clone());
                self.guarded(async { side_calls::judge(&gateway, &profile, &state, turn, &text).await }).await?
            }
            None => None,
        };
        let of_judge = judged.as_ref().and_then(|judged| judged.usage);
        let total = [turn.usage, self.side_usage.take(), of_judge].into_iter().fold(reply.usage.map(usage), add);
        let answer = TurnAnswer {
            text,
            call,
            citations: [turn.citations.clone(), grounding].concat(),
            usage: total,
            model: reply.model,
            response_id: reply.response_id,
            ended: Some(ended),
            suggestions,
            judged,
        };
        self.end(turn, answer).await
    }

    /// Completes the turn at the cap of model calls, although the model still wants tools.
    pub(super) async fn end_at_cap(&mut self, turn: &Turn) -> Result<(), TurnExit> {
        const NOTICE: &str = "I stopped here: this took more steps than I am allowed for one message.";
        let text = match turn.streamed_text() {
            text if text.is_empty() => NOTICE.to_string(),
            text => format!("{text}\n\n{NOTICE}"),
        };
        let citations = turn.citations.clone();
        let answer = TurnAnswer {
            text,
            call: None,
            citations,
            usage: turn.usage,
            model: None,
            response_id: None,
            ended: None,
            suggestions: vec![],
            judged: None,
        };
        self.end(turn, answer).await
    }

    async fn end(&mut self, turn: &Turn, answer: TurnAnswer) -> Result<(), TurnExit> {
        let (workflow, escalation) = answer.judged.map(|judged| (judged.step, judged.escalation)).unzip();
        let escalation_reason: Option<String> = escalation.flatten();
        // A text that is not one call's own has no frame trace of its own.
        let shown = self.recorder.trace(answer.call.map_or("", |_| &answer.text));
        let mut response = Response { suggested_next_actions: answer.suggestions, ..Response::plain(answer.text) };
        if answer.ended.as_ref().is_some_and(|ended| ended.ending == Ending::Filtered) {
            response.resolution_status = ResolutionStatus::Blocked;
        }
        let event = Event::TurnCompleted(TurnCompleted {
            turn: self.turn_id,
            epoch: self.epoch,
            request_id: turn.request.request_id.clone(),
            message_id: ids::new_random(),
            response,
            call: answer.call,
            needs_escalation: escalation_reason.is_some(),
            escalation_reason,
            workflow,
            preamble: self.preamble.take(),
            citations: knowledge::distinct_citations(answer.citations),
            usage: answer.usage,
            model: answer.model,
            response_id: answer.response_id,
            ended: answer.ended,
            user: turn.request.user.clone(),
            agent: turn.request.agent.clone(),
            timing: self.timing.take(),
            shown,
        });
        self.record_and_show(turn, event).await?;
        Err(TurnExit::Done)
    }

    /// Fails the turn; `detail` is for operators.
    pub(super) async fn fail(&mut self, turn: &Turn, reason: FailureReason, detail: &str) -> Result<(), TurnExit> {
        let event = Event::TurnFailed(TurnFailed {
            turn: self.turn_id,
            epoch: self.epoch,
            request_id: turn.request.request_id.clone(),
            reason,
            detail: detail.to_string(),
            timing: self.timing.take(),
            shown: self.recorder.trace(""),
        });
        self.record_and_show(turn, event).await?;
        Err(TurnExit::Done)
    }

    /// Fails the turn because an event is larger than allowed; asking the model again would not make it shorter.
    pub(super) async fn end_too_large(&mut self, max: usize) -> TurnExit {
        let Some(turn) = self.turn().cloned() else { return TurnExit::Done };
        let detail = format!("an event of the turn would be larger than {max} bytes");
        match self.fail(&turn, FailureReason::TooLarge, &detail).await {
            Ok(()) => TurnExit::Done,
            Err(exit) => exit,
        }
    }

    /// Gives up a turn that was claimed too often.
    pub(super) async fn give_up(&mut self, turn: &Turn) -> Result<(), TurnExit> {
        let detail = format!("claimed {} times without getting further", turn.claims);
        self.dead_letter(turn, FailureReason::Poison, "poison", &detail).await
    }

    /// Ends the turn if it has made no progress, or has not ended, within its limits.
    pub(super) async fn end_if_too_old(&mut self, turn: &Turn) -> Result<(), TurnExit> {
        let settings = &self.worker.settings;
        let (limit, cap) = (settings.turn_limit_secs, settings.turn_cap_secs);
        let is_over = |since: DateTime<Utc>, seconds: u32| {
            self.worker.log.now() > since + chrono::Duration::seconds(seconds.into())
        };
        let detail = if is_over(turn.progress_at, limit) {
            format!("no further for {limit} s")
        } else if is_over(turn.requested_at, cap) {
            format!("not over within {cap} s")
        } else {
            return Ok(());
        };
        self.dead_letter(turn, FailureReason::Expired, "expired", &detail).await
    }

    /// Fails the turn through no fault of the model's, and publishes a dead letter for operators.
    async fn dead_letter(
        &mut self,
        turn: &Turn,
        reason: FailureReason,
        name: &str,
        detail: &str,
    ) -> Result<(), TurnExit> {
        let (conversation, session) = (self.key.conversation, turn.request.session);
        let request_id = &turn.request.request_id;
        tracing::error!(%conversation, %session, turn = %self.turn_id, request_id, detail, "a turn was given up");
        let note = json!({
            "turn": self.turn_id, "conversation": self.key.conversation, "org": self.key.org,
            "requestId": turn.request.request_id, "reason": name, "detail": detail,
        });
        let subject = subjects::dead(&self.key.region, self.key.conversation);
        let id = format!("dead-{}", self.turn_id);
        let put = self.worker.log.put(&subject, &id, &[], note.to_string().into()).await;
        put.map_err(|error| TurnExit::Unavailable(error.to_string()))?;
        self.fail(turn, reason, detail).await
    }
}

/// Has the log's server send a message when the wait for a person is over.
pub(super) async fn schedule(worker: &Worker, key: &ConversationKey, turn: &Turn) -> Result<(), TurnExit> {
    let Some((deadline, park)) = deadline_of(key, turn).zip(turn.park.as_ref()) else { return Ok(()) };
    let put = consumer::schedule(worker, &deadline, park.deadline).await;
    put.map_err(|error| TurnExit::Unavailable(error.to_string()))
}

/// Shows a parked turn's prompt again after a redelivery.
///
/// The worker may have died before it scheduled the deadline or showed the prompt. Both are done again; both are
/// idempotent.
pub(super) async fn show_park_again(worker: &Worker, key: &ConversationKey, turn: &Turn) -> TurnExit {
    let Some(park) = &turn.park else { return TurnExit::Done };
    if let Err(exit) = schedule(worker, key, turn).await {
        return exit;
    }
    let epoch = turn.epoch.unwrap_or_default();
    let subject = subjects::live(&key.region, key.conversation, turn.request.session);
    let chunks = turn.activity_before_prompt();
    let mut relay = FrameRelay::new(worker.client.clone(), subject, turn.request.turn, epoch, chunks);
    let TurnRequested { request_id, stream, .. } = &turn.request;
    for (kind, frame) in render::prompt(request_id, *stream, park.id, &park.prompt, Utc::now()) {
        relay.publish(kind, frame, 0).await;
    }
    TurnExit::Done
}
