//! The reply as it grows: deltas are returned; text, tool calls and usage are kept.
//!
//! Contract: the gateway's output is taken unchanged. A delta is never compared with the text before it ("ha", "ha" is
//! "haha"), and no id, token count or cost is invented, except the id of a tool call that came without one (see
//! [`ToolCall`]).

use serde_json::value::RawValue;

use super::{
    chunk::{ChunkChoice, CompletionChunk},
    content::text,
    error::ModelError,
    finish_reason::FinishReason,
    messages::ToolCall,
    opaque::OpaqueFields,
    tool_calls::ToolCallBuilder,
};

/// The most that text, reasoning, tool arguments and opaque fields of one reply may hold together.
const REPLY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most tool calls in one reply.
const TOOL_CALLS_MAX: usize = 128;
/// The longest finish reason that is kept: a word.
const FINISH_REASON_MAX_CHARS: usize = 64;
/// Fields with the model's reasoning as text, of which one is shown; some gateways fill two with the same text.
const REASONING: [&str; 4] = ["reasoning_content", "reasoning", "reasoning_text", "thinking"];

/// A piece of the answer while it is being written.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyDelta {
    Text(String),
    Reasoning(String),
}

/// The usage of a call, as the gateway counted it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenUsage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Part of the prompt that the provider had in its cache.
    pub cached_tokens: Option<u64>,
    /// Part of the completion that is reasoning.
    pub reasoning_tokens: Option<u64>,
    pub cost_usd: Option<f64>,
}

/// A whole reply. `tool_calls` are in the model's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelReply {
    pub text: String,
    pub tool_calls: Vec<ToolCall>,
    pub usage: Option<TokenUsage>,
    pub model: Option<String>,
    pub response_id: Option<String>,
    pub finish_reason: Option<String>,
    pub ending: FinishReason,
    /// Opaque fields of the provider, which go back with this message: the JSON text of an object.
    pub opaque: Option<String>,
}

/// Builds a reply from its chunks.
#[derive(Default)]
pub(super) struct ReplyBuilder {
    reply: ModelReply,
    calls: ToolCallBuilder,
    opaque: OpaqueFields,
    has_refused: bool,
    /// Content, reasoning or a call was received.
    has_begun: bool,
    /// The finish reason came last, after all content.
    has_ended: bool,
    received_bytes: usize,
    /// The JSON of the last usage object: some gateways send a running one with every chunk.
    usage_json: String,
    header_cost_usd: Option<f64>,
}

impl ReplyBuilder {
    pub fn new(header_cost_usd: Option<f64>) -> Self {
        Self { header_cost_usd: header_cost_usd.filter(is_cost), ..Self::default() }
    }

    /// Takes a chunk, and appends its content to `deltas`, merged into the last one when that is of the same kind.
    ///
    /// An error that comes after the end of the reply does not spoil it.
    pub fn take(&mut self, chunk: &CompletionChunk<'_>, deltas: &mut Vec<ReplyDelta>) -> Result<(), ModelError> {
        if let Some(error) = &chunk.error
            && !self.has_ended()
        {
            return Err(ModelError::reported(error.as_bytes()));
        }
        keep_first(&mut self.reply.response_id, &chunk.id);
        keep_first(&mut self.reply.model, &chunk.model);
        if let Some(usage) = chunk.usage.filter(|usage| counts(usage)) {
            self.usage_json.clear();
            self.usage_json.push_str(usage.get());
        }
        self.take_choice(&chunk.choice, deltas)
    }

    fn take_choice(&mut self, choice: &ChunkChoice<'_>, deltas: &mut Vec<ReplyDelta>) -> Result<(), ModelError> {
        self.count(choice.content.len() + choice.refusal.len() + choice.thinking.len())?;
        let mut thoughts = REASONING.iter().filter_map(|name| {
            let raw = choice.opaque.iter().find(|(known, _)| known == name).map(|(_, raw)| *raw)?;
            raw.get().starts_with('"').then(|| text(raw)).filter(|text| !text.is_empty())
        });
        let thought = thoughts.next().unwrap_or_default();
        push(deltas, ReplyDelta::Reasoning, if thought.is_empty() { &choice.thinking } else { &thought });
        if !choice.opaque.is_empty() {
            let bytes = self.opaque.take(&choice.opaque);
            self.count(bytes)?;
        }
        for said in [&choice.content, &choice.refusal] {
            self.reply.text.push_str(said);
            push(deltas, ReplyDelta::Text, said);
        }
        self.has_refused |= !choice.refusal.is_empty();
        for fragment in &choice.calls {
            let bytes = self.calls.take(fragment);
            self.count(bytes)?;
            if self.calls.len() > TOOL_CALLS_MAX {
                let detail = format!("more than {TOOL_CALLS_MAX} tool calls");
                return Err(ModelError::TooLarge { detail });
            }
        }
        let says = [&choice.content, &choice.refusal, &choice.thinking, &thought].iter().any(|said| !said.is_empty());
        self.finish(&choice.finish_reason, says || !choice.calls.is_empty());
        Ok(())
    }

    /// Takes a finish reason: the last one counts, but a reason for an incomplete reply stays.
    ///
    /// Some gateways write a reason into every chunk. So a reason with content after it proves no end, nor does one
    /// that comes with the first content.
    fn finish(&mut self, reason: &str, says: bool) {
        let is_none = reason.is_empty() || reason.eq_ignore_ascii_case("null") || reason.eq_ignore_ascii_case("none");
        let known = self.reply.finish_reason.as_deref();
        let is_first = known.is_none();
        if !is_none
            && known.is_none_or(|known| {
                matches!(FinishReason::of(Some(known)), FinishReason::Whole | FinishReason::Unmarked)
            })
        {
            self.reply.finish_reason = Some(reason.chars().take(FINISH_REASON_MAX_CHARS).collect());
        }
        if is_first && !is_none {
            self.has_ended = self.has_begun || !says;
        } else if says {
            self.has_ended = false;
        }
        self.has_begun |= says;
    }

    fn count(&mut self, bytes: usize) -> Result<(), ModelError> {
        self.received_bytes += bytes;
        if self.received_bytes > REPLY_MAX_BYTES {
            let detail = format!("more than {REPLY_MAX_BYTES} bytes");
            return Err(ModelError::TooLarge { detail });
        }
        Ok(())
    }

    pub fn has_finish_reason(&self) -> bool {
        self.reply.finish_reason.is_some()
    }

    /// Returns whether the finish reason proves that the model had finished, however the stream ends.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns whether the reply has text or calls.
    pub fn has_content(&self) -> bool {
        !self.reply.text.is_empty() || self.calls.len() > 0
    }

    pub fn into_reply(self) -> ModelReply {
        let ending = match FinishReason::of(self.reply.finish_reason.as_deref()) {
            FinishReason::Whole | FinishReason::Unmarked if self.has_refused => FinishReason::Refused,
            ending => ending,
        };
        ModelReply {
            tool_calls: self.calls.whole(),
            usage: usage_of(&self.usage_json, self.header_cost_usd),
            ending,
            opaque: self.opaque.text(None),
            ..self.reply
        }
    }
}

/// Appends text to the last delta, or as a new delta where the last one is of another kind.
fn push(deltas: &mut Vec<ReplyDelta>, kind: fn(String) -> ReplyDelta, text: &str) {
    if text.is_empty() {
        return;
    }
    let new = kind(String::new());
    match (deltas.last_mut(), &new) {
        (Some(ReplyDelta::Text(last)), ReplyDelta::Text(_))
        | (Some(ReplyDelta::Reasoning(last)), ReplyDelta::Reasoning(_)) => {
            last.push_str(text);
        }
        _ => deltas.push(kind(text.to_owned())),
    }
}

/// Returns whether a usage may hold counts: a later one without counts does not replace an earlier one with them.
fn counts(usage: &RawValue) -> bool {
    usage.get().starts_with('{') && usage.get().contains("_tokens\"")
}

/// Returns the usage, when the gateway gave both counts; the cost only when it gave one.
fn usage_of(json: &str, header_cost_usd: Option<f64>) -> Option<TokenUsage> {
    let usage: serde_json::Value = serde_json::from_str(json).ok()?;
    let number = |value: &serde_json::Value| {
        let whole = |n: f64| (n >= 0.0 && n.fract() == 0.0 && n < 1e15).then_some(n as u64);
        match value {
            serde_json::Value::String(text) => text.trim().parse().ok(),
            value => value.as_u64().or_else(|| value.as_f64().and_then(whole)),
        }
    };
    let count =
        |names: [&str; 2]| number(names.iter().find_map(|name| usage.get(name).filter(|value| !value.is_null()))?);
    let part = |pointers: [&str; 3]| number(pointers.iter().find_map(|pointer| usage.pointer(pointer))?);
    let cost = |key: &str| usage.get(key)?.as_f64().filter(is_cost);
    Some(TokenUsage {
        prompt_tokens: count(["prompt_tokens", "input_tokens"])?,
        completion_tokens: count(["completion_tokens", "output_tokens"])?,
        cached_tokens: part([
            "/prompt_tokens_details/cached_tokens",
            "/input_tokens_details/cached_tokens",
            "/cache_read_input_tokens",
        ]),
        reasoning_tokens: part([
            "/completion_tokens_details/reasoning_tokens",
            "/output_tokens_details/reasoning_tokens",
            "/reasoning_tokens",
        ]),
        cost_usd: cost("cost").or_else(|| cost("cost_usd")).or(header_cost_usd),
    })
}

fn is_cost(cost: &f64) -> bool {
    cost.is_finite() && *cost >= 0.0
}

fn keep_first(slot: &mut Option<String>, value: &str) {
    if slot.is_none() && !value.is_empty() {
        *slot = Some(value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(chunks: &[&str]) -> Result<(ModelReply, Vec<ReplyDelta>), ModelError> {
        let mut builder = ReplyBuilder::new(Some(0.5));
        let mut deltas = Vec::new();
        for json in chunks {
            let chunk = CompletionChunk::parse(json.as_bytes()).unwrap();
            builder.take(&chunk, &mut deltas)?;
        }
        Ok((builder.into_reply(), deltas))
    }

    fn text(content: &str) -> String {
        serde_json::json!({"choices": [{"delta": {"content": content}}]}).to_string()
    }

    fn calls(fragments: &str) -> String {
        format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{fragments}]}}}}]}}"#)
    }

    #[test]
    fn repeated_deltas_are_all_kept_and_neighbours_merged() {
        let (reply, deltas) = build(&[
            r#"{"id":"r1","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"hm","reasoning":"hm"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning":" \"so\"","content":null}}]}"#,
            r#"{"choices":[{"delta":{"reasoning":{"odd":1}}}]}"#,
            &text("ha"),
            &text("ha"),
            &text("h\u{fc}\n"),
            r#"{"id":"r2","choices":[{"index":0,"delta":{}},{"index":1,"delta":{"content":"other choice"}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#,
        ])
        .unwrap();
        assert_eq!(reply.text, "hahah\u{fc}\n");
        assert_eq!(deltas, [ReplyDelta::Reasoning("hm \"so\"".into()), ReplyDelta::Text("hahah\u{fc}\n".into())]);
        assert_eq!(reply.response_id.as_deref(), Some("r1"));
        assert_eq!(reply.model.as_deref(), Some("m-1"));
        assert_eq!(reply.finish_reason.as_deref(), Some("stop"));
        assert_eq!(reply.usage, None);
    }

    #[test]
    fn tool_calls_are_assembled_by_index() {
        let (reply, deltas) = build(&[
            &calls(r#"{"index":1,"id":"b","function":{"name":"second","arguments":"{\"x\""}}"#),
            &calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"first"}}"#),
            &calls(r#"{"index":1,"function":{"arguments":":1}"}},{"index":0,"function":{"arguments":"{}"}}"#),
            &calls(r#"{"index":2,"function":{"name":"third","arguments":""}}"#),
        ])
        .unwrap();
        assert_eq!(deltas, []);
        let seen: Vec<_> = reply.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(seen, [("first", "{}"), ("second", "{\"x\":1}"), ("third", "{}")]);
        assert_eq!(reply.tool_calls[0].id, "a");
        assert_eq!(reply.tool_calls[1].id, "b");
        assert!(reply.tool_calls[2].id.starts_with("call_2_"));
    }

    #[test]
    fn odd_numbering_does_not_mix_calls_up() {
        let (reply, _) = build(&[
            &calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}"#),
            &calls(r#"{"index":0,"id":"b","function":{"name":"f","arguments":"2"}}"#),
            &calls(r#"{"id":"c","function":{"name":"f","arguments":"3"}}"#),
            &calls(r#"{"function":{"arguments":"4"}}"#),
            &calls(r#"{"id":"changing","function":{"arguments":"5"}}"#),
        ])
        .unwrap();
        let seen: Vec<_> = reply.tool_calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
        assert_eq!(seen, [("a", "1"), ("b", "2"), ("c", "345")]);
    }

    #[test]
    fn usage_and_cost_are_the_gateways_or_absent() {
        let usage = |json: &str| build(&[json]).unwrap().0.usage;
        let counted =
            |cost_usd| TokenUsage { prompt_tokens: 3, completion_tokens: 4, cost_usd, ..TokenUsage::default() };
        let with = |more: &str| {
            let json = format!(r#"{{"choices":[],"usage":{{"prompt_tokens":3,"completion_tokens":4{more}}}}}"#);
            usage(&json).unwrap()
        };
        assert_eq!(with(""), counted(Some(0.5)));
        assert_eq!(with(r#","cost":0.25"#), counted(Some(0.25)));
        assert_eq!(with(r#","cost":"much","cost_usd":1"#), counted(Some(1.0)));
        assert_eq!(with(r#","completion_tokens":"4""#), counted(Some(0.5)));
        let parts = |more: &str| (with(more).cached_tokens, with(more).reasoning_tokens);
        let details =
            r#","prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}"#;
        assert_eq!(parts(details), (Some(2), Some(1)));
        assert_eq!(parts(r#","prompt_tokens_details":null,"cache_read_input_tokens":3"#), (Some(3), None));
        let kept = [r#"{"choices":[],"usage":{"input_tokens":3.0,"output_tokens":"4"}}"#, r#"{"usage":{}}"#];
        assert_eq!(build(&kept).unwrap().0.usage, Some(counted(Some(0.5))));
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":3}}"#), None);
        assert_eq!(usage(r#"{"choices":null}"#), None);
        assert_eq!(ReplyBuilder::new(Some(f64::NAN)).header_cost_usd, None);
    }

    #[test]
    fn a_reply_is_bounded() {
        let piece = text(&"x".repeat(1024 * 1024));
        let chunks = [piece.as_str(); 4];
        assert!(build(&chunks).is_ok());
        assert!(matches!(build(&[&chunks[..], &[&text("x")]].concat()), Err(ModelError::TooLarge { .. })));
        let many: Vec<String> =
            (0..=TOOL_CALLS_MAX).map(|at| calls(&format!(r#"{{"index":{at},"function":{{"name":"f"}}}}"#))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(build(&many[1..]).is_ok());
        assert!(matches!(build(&many), Err(ModelError::TooLarge { .. })));
    }

    #[test]
    fn an_error_fails_an_unfinished_reply() {
        let error = build(&[r#"{"error":{"message":"quota of org-7"}}"#]).unwrap_err();
        assert!(error.detail().contains("org-7"));
        assert!(!error.to_string().contains("org-7"));
        let end = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        let (reply, _) = build(&[&text("whole"), end, r#"{"error":{"message":"late"}}"#]).unwrap();
        assert_eq!((reply.text.as_str(), reply.ending), ("whole", FinishReason::Whole));
    }

    #[test]
    fn the_finish_reason_decides_the_ending() {
        let ending = |reason: &str| {
            let end = format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":{reason}}}]}}"#);
            build(&[&text("t"), &end]).unwrap().0.ending
        };
        for (reasons, expected) in [
            (&[r#""stop""#, r#""tool_calls""#, r#""end_turn""#][..], FinishReason::Whole),
            (&[r#""new_word""#, "7"], FinishReason::Unmarked),
            (&[r#""length""#, r#""MAX_TOKENS""#, r#""error""#], FinishReason::Cut),
            (&[r#""content_filter""#, r#""SAFETY""#, r#""sensitive""#], FinishReason::Filtered),
            (&[r#""refusal""#], FinishReason::Refused),
            (&["null", r#""""#, r#""null""#], FinishReason::Unmarked),
        ] {
            for reason in reasons {
                assert_eq!(ending(reason), expected, "{reason}");
            }
        }
        let end = |reason: &str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}]}}"#);
        for (first, then, last) in
            [("stop", "length", "length"), ("length", "stop", "length"), ("new_word", "tool_calls", "tool_calls")]
        {
            let reply = build(&[&end(first), &end(then)]).unwrap().0;
            assert_eq!(reply.finish_reason.as_deref(), Some(last));
        }
        let (reply, deltas) =
            build(&[r#"{"choices":[{"delta":{"refusal":"I can't."},"finish_reason":"stop"}]}"#]).unwrap();
        assert_eq!((reply.text.as_str(), reply.ending), ("I can't.", FinishReason::Refused));
        assert_eq!(deltas, [ReplyDelta::Text("I can't.".into())]);
        let part = r#"{"choices":[{"delta":{"content":[{"type":"refusal","refusal":"No."}]},"finish_reason":"stop"}]}"#;
        let (reply, _) = build(&[part]).unwrap();
        assert_eq!((reply.text.as_str(), reply.ending), ("No.", FinishReason::Refused));
    }

    #[test]
    fn opaque_fields_are_kept_with_the_message_and_its_calls() {
        let (reply, deltas) = build(&[
            r#"{"choices":[{"delta":{"reasoning_content":"I "}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"see"}}]}"#,
            &calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#),
            &calls(r#"{"index":0,"extra_content":{"google":{"thought_signature":"S/=="}}}"#),
            &calls(r#"{"index":0,"function":{"thought_signature":"T"}}"#),
        ])
        .unwrap();
        assert_eq!(deltas, [ReplyDelta::Reasoning("I see".into())]);
        assert_eq!(reply.opaque.as_deref(), Some(r#"{"reasoning_content":"I see"}"#));
        let call = r#"{"extra_content":{"google":{"thought_signature":"S/=="}},"function":{"thought_signature":"T"}}"#;
        assert_eq!(reply.tool_calls[0].opaque.as_deref(), Some(call));
    }
}
