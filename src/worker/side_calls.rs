//! Side requests to a model: the preamble, and the judge of a workflow step.

use std::time::Duration;

use serde::Deserialize;

use super::{model_answer::usage, profile::TurnProfile};
use crate::{
    domain::{
        Conversation, Turn,
        event::{StepJudged, Usage},
    },
    limits,
    model::{ChatMessage, ChatRequest, Gateway, ModelError},
};

const PREAMBLE: &str = "A visitor has just sent the message below to a support agent, who needs a moment. Write one short, \
    friendly sentence that says what is being looked into. Do not answer, promise or ask anything.";
const JUDGE: &str = "You judge whether a step of a conversation is done. Answer with JSON only: \
    {\"done\": true or false, \"reason\": \"a few words\"}.";

/// A model's answer to a side request.
pub(super) struct SideAnswer {
    pub text: String,
    pub usage: Option<Usage>,
}

/// The judge's answer.
#[derive(Deserialize)]
struct JudgeVerdict {
    done: bool,
    #[serde(default)]
    reason: String,
}

/// The result of judging a step.
pub(super) struct StepJudgement {
    pub step: StepJudged,
    /// The reason for a person to take over, if the step was tried too often.
    pub escalation: Option<String>,
    pub usage: Option<Usage>,
}

/// Requests the preamble; a failure gives none.
pub(super) async fn preamble(gateway: Gateway, model: String, message: String) -> Option<SideAnswer> {
    let messages = vec![ChatMessage::System(PREAMBLE.into()), ChatMessage::User(message)];
    let request = ChatRequest { model, messages, tools: vec![], max_tokens: limits::PREAMBLE_TOKENS, metadata: None };
    match ask(&gateway, &request).await {
        Ok(mut said) => {
            said.text = said.text.trim().chars().take(limits::PREAMBLE_MAX_CHARS).collect();
            Some(said).filter(|said| !said.text.is_empty())
        }
        Err(error) => {
            tracing::debug!(%error, "no preamble");
            None
        }
    }
}

/// Judges the current workflow step by the answer that is about to be given.
///
/// `None`: there is no current step. If the judge fails, the step is not done: the conversation stays at it.
pub(super) async fn judge(
    gateway: &Gateway,
    profile: &TurnProfile,
    state: &Conversation,
    turn: &Turn,
    answer: &str,
) -> Option<StepJudgement> {
    let (at, _, step) = profile.workflow_step(state)?;
    let question = format!(
        "The step: {}\nIt is done when: {}\n\nThe visitor said:\n{}\n\nThe agent answers:\n{answer}",
        step.instructions, step.done_when, turn.request.message
    );
    let request = ChatRequest {
        model: profile.judge_model(turn),
        messages: vec![ChatMessage::System(JUDGE.into()), ChatMessage::User(question)],
        tools: vec![],
        max_tokens: limits::JUDGE_TOKENS,
        metadata: profile.gateway_metadata(),
    };
    let asked = tokio::time::timeout(Duration::from_millis(limits::JUDGE_MS), ask(gateway, &request)).await;
    let (verdict, usage) = match asked {
        Ok(Ok(said)) => (read_verdict(&said.text), said.usage),
        Ok(Err(error)) => (undecided(&error.to_string()), None),
        Err(_) => (undecided("not in time"), None),
    };
    let next = if verdict.done { profile.step_after(at) } else { Some(step) };
    let attempts = if state.workflow.step.as_ref() == Some(&step.id) { state.workflow.attempts } else { 0 } + 1;
    let is_stuck = !verdict.done && step.max_attempts.is_some_and(|max| attempts >= max);
    let escalation = is_stuck.then(|| format!("The step `{}` was not finished in {attempts} attempts.", step.id));
    let step = StepJudged {
        step: step.id.clone(),
        done: verdict.done,
        next: next.map(|step| step.id.clone()),
        reason: verdict.reason,
    };
    Some(StepJudgement { step, escalation, usage })
}

/// Sends one request and reads the whole answer.
pub(super) async fn ask(gateway: &Gateway, request: &ChatRequest) -> Result<SideAnswer, ModelError> {
    let mut stream = gateway.chat(request).await?;
    while stream.next().await?.is_some() {}
    let reply = stream.into_reply();
    Ok(SideAnswer { text: reply.text, usage: reply.usage.map(usage) })
}

/// Parses the verdict from a judge's text; models tend to put JSON into a fence.
fn read_verdict(text: &str) -> JudgeVerdict {
    let json = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| text.get(from..=to));
    let read = json.and_then(|json| serde_json::from_str::<JudgeVerdict>(json).ok());
    read.unwrap_or_else(|| undecided("not a verdict"))
}

fn undecided(why: &str) -> JudgeVerdict {
    tracing::warn!(why, "a step of a workflow could not be judged");
    JudgeVerdict { done: false, reason: format!("not judged: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_verdict_finishes_no_step() {
        for text in ["", "done", "{}", "{\"done\": \"yes\"}", "} {", "{\"done\": false}"] {
            assert!(!read_verdict(text).done, "{text}");
        }
        let fenced = read_verdict("```json\n{\"done\": true, \"reason\": \"named it\"}\n```");
        assert!(fenced.done && fenced.reason == "named it");
    }
}
