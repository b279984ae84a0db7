//! The reply of a step: JSON lines, checked one by one.
//!
//! Contract: [`StepReply`] takes lines in any form and either keeps a valid reply or refuses. It is pure.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::model::{FinishReason, ModelError, ModelReply, ReplyDelta, TokenUsage, ToolCall};

/// The longest line.
pub(super) const LINE_MAX_BYTES: usize = 256 * 1024;
/// The most that all lines of a reply may hold together.
const REPLY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most calls in one reply.
const CALLS_MAX: usize = 128;
/// The longest name or id of a call.
const NAME_MAX_BYTES: usize = 128;
/// The largest memo, as JSON text.
const MEMO_MAX_BYTES: usize = 64 * 1024;
/// The most tokens of one step that are believed.
const TOKENS_MAX: u64 = 1 << 40;
/// The longest piece of an agent's error text that is logged.
const DETAIL_MAX_CHARS: usize = 300;

/// A line of a reply. `{}` says that the agent is at work.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AgentMessage {
    /// More text of the answer.
    text: Option<String>,
    /// More text of the reasoning, shown apart.
    reasoning: Option<String>,
    /// A call of a tool, made when the step is done.
    call: Option<AgentToolCall>,
    /// The usage of the step; the last one counts.
    usage: Option<AgentUsage>,
    /// Any JSON of at most 64 KiB, given back with the turn's next step; the last one counts.
    memo: Option<Value>,
    /// True: the step is done. Without calls, its text is the answer, and the turn ends.
    done: Option<bool>,
    /// The step failed: the turn ends, and no visitor sees this text.
    error: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AgentToolCall {
    /// Absent: one is made.
    id: Option<String>,
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    /// A person has to approve the call, even where tool and settings demand no approval.
    #[serde(default)]
    confirm: bool,
}

/// Usage of a step, as the agent's provider counted it.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AgentUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    cost_usd: Option<f64>,
}

/// A reply as it grows.
#[derive(Debug, Default)]
pub(super) struct StepReply {
    reply: ModelReply,
    confirms: Vec<String>,
    received_bytes: usize,
    is_done: bool,
}

impl StepReply {
    /// Takes a line, and appends its text to `deltas`.
    pub fn take(&mut self, line: &[u8], deltas: &mut Vec<ReplyDelta>) -> Result<(), ModelError> {
        self.received_bytes += line.len();
        if line.len() > LINE_MAX_BYTES || self.received_bytes > REPLY_MAX_BYTES {
            return Err(ModelError::TooLarge { detail: "the agent's reply is too large".into() });
        }
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let message: AgentMessage =
            serde_json::from_slice(line).map_err(|error| refused(&format!("not a message of an agent: {error}")))?;
        if let Some(error) = message.error {
            return Err(ModelError::Reported { detail: error.chars().take(DETAIL_MAX_CHARS).collect() });
        }
        if let Some(thought) = message.reasoning.filter(|text| !text.is_empty()) {
            push(deltas, ReplyDelta::Reasoning(thought));
        }
        if let Some(text) = message.text.filter(|text| !text.is_empty()) {
            self.reply.text.push_str(&text);
            push(deltas, ReplyDelta::Text(text));
        }
        if let Some(call) = message.call {
            self.call(call)?;
        }
        if let Some(usage) = message.usage {
            self.reply.usage = Some(usage.checked()?);
        }
        if let Some(memo) = message.memo {
            let opaque = json!({ "memo": memo }).to_string();
            if opaque.len() > MEMO_MAX_BYTES {
                return Err(ModelError::TooLarge { detail: format!("a memo of {} bytes", opaque.len()) });
            }
            self.reply.opaque = Some(opaque);
        }
        self.is_done = message.done == Some(true);
        Ok(())
    }

    fn call(&mut self, call: AgentToolCall) -> Result<(), ModelError> {
        let id = call.id.unwrap_or_else(|| format!("call_{}", self.reply.tool_calls.len()));
        let is_fit = |text: &str| (1..=NAME_MAX_BYTES).contains(&text.len());
        if !is_fit(&call.name) || !is_fit(&id) {
            return Err(refused("a call's name or id is empty or too long"));
        }
        if self.reply.tool_calls.len() == CALLS_MAX {
            return Err(ModelError::TooLarge { detail: format!("more than {CALLS_MAX} calls") });
        }
        if self.reply.tool_calls.iter().any(|known| known.id == id) {
            return Err(refused("two calls have one id"));
        }
        if call.confirm {
            self.confirms.push(id.clone());
        }
        let arguments = Value::Object(call.arguments).to_string();
        self.reply.tool_calls.push(ToolCall { id, name: call.name, arguments, opaque: None });
        Ok(())
    }

    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns the reply, and the ids of calls for which the agent demands approval.
    pub fn into_reply(self) -> (ModelReply, Vec<String>) {
        (ModelReply { ending: FinishReason::Whole, ..self.reply }, self.confirms)
    }
}

impl AgentUsage {
    fn checked(self) -> Result<TokenUsage, ModelError> {
        let counts =
            [Some(self.prompt_tokens), Some(self.completion_tokens), self.cached_tokens, self.reasoning_tokens];
        let is_cost = self.cost_usd.is_none_or(|cost| cost.is_finite() && cost >= 0.0);
        if !is_cost || counts.into_iter().flatten().any(|count| count > TOKENS_MAX) {
            return Err(refused("a usage that can't be"));
        }
        Ok(TokenUsage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            cached_tokens: self.cached_tokens,
            reasoning_tokens: self.reasoning_tokens,
            cost_usd: self.cost_usd,
        })
    }
}

fn refused(detail: &str) -> ModelError {
    ModelError::NotTheApi { detail: detail.chars().take(DETAIL_MAX_CHARS).collect() }
}

/// Appends a delta, to the last one if that is of the same kind.
fn push(deltas: &mut Vec<ReplyDelta>, new: ReplyDelta) {
    match (deltas.last_mut(), &new) {
        (Some(ReplyDelta::Text(last)), ReplyDelta::Text(more))
        | (Some(ReplyDelta::Reasoning(last)), ReplyDelta::Reasoning(more)) => last.push_str(more),
        _ => deltas.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(lines: &[&str]) -> Result<(StepReply, Vec<ReplyDelta>), ModelError> {
        let (mut reply, mut deltas) = (StepReply::default(), vec![]);
        for line in lines {
            reply.take(line.as_bytes(), &mut deltas)?;
        }
        Ok((reply, deltas))
    }

    #[test]
    fn lines_become_a_reply() {
        let (reply, deltas) = take(&[
            "{}",
            r#"{"reasoning":"hm"}"#,
            r#"{"text":"ha"}"#,
            "",
            r#"{"text":"ha"}"#,
            r#"{"call":{"name":"pay","arguments":{"n":1},"confirm":true}}"#,
            r#"{"usage":{"promptTokens":3,"completionTokens":2,"costUsd":0.5}}"#,
            r#"{"memo":{"at":[1]}}"#,
            r#"{"done":true}"#,
        ])
        .unwrap();
        assert_eq!(deltas, [ReplyDelta::Reasoning("hm".into()), ReplyDelta::Text("haha".into())]);
        assert!(reply.is_done());
        let (reply, confirms) = reply.into_reply();
        assert_eq!((reply.text.as_str(), confirms), ("haha", vec!["call_0".to_owned()]));
        assert_eq!(reply.tool_calls[0].arguments, r#"{"n":1}"#);
        assert_eq!(reply.opaque.as_deref(), Some(r#"{"memo":{"at":[1]}}"#));
        assert_eq!(reply.usage.unwrap().cost_usd, Some(0.5));
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for line in [
            "hello",
            "[]",
            "null",
            r#"{"txt":"a"}"#,
            r#"{"text":1}"#,
            r#"{"text":"\ud800"}"#,
            "{\"text\":\"\u{0}\"}",
            r#"{"call":{"name":""}}"#,
            r#"{"call":{"name":"a","arguments":"{}"}}"#,
            r#"{"call":{"name":"a","epoch":7}}"#,
            r#"{"usage":{"promptTokens":-1,"completionTokens":0}}"#,
            r#"{"usage":{"promptTokens":18446744073709551615,"completionTokens":0}}"#,
            r#"{"usage":{"promptTokens":1,"completionTokens":0,"costUsd":-1}}"#,
            r#"{"text":"a"} {"text":"b"}"#,
        ] {
            assert!(matches!(take(&[line]), Err(ModelError::NotTheApi { .. })), "{line}");
        }
    }

    #[test]
    fn no_reply_is_larger_than_its_bounds() {
        let long = format!(r#"{{"text":"{}"}}"#, "a".repeat(200_000));
        assert!(matches!(take(&vec![long.as_str(); 30]), Err(ModelError::TooLarge { .. })));
        let memo = format!(r#"{{"memo":"{}"}}"#, "a".repeat(MEMO_MAX_BYTES));
        assert!(matches!(take(&[&memo]), Err(ModelError::TooLarge { .. })));
        assert!(matches!(take(&vec![r#"{"call":{"name":"a"}}"#; 129]), Err(ModelError::TooLarge { .. })));
    }

    #[test]
    fn the_text_of_an_agents_error_is_a_detail() {
        let error = take(&[r#"{"error":"password=1234"}"#]).unwrap_err();
        assert!(!error.to_string().contains("1234"));
        assert_eq!(error.detail(), "password=1234");
    }
}
