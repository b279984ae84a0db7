//! The reply as it grows: deltas out, text, tool calls and usage kept.
//!
//! Contract: what the gateway sends is taken as it is. A delta is never held against the text
//! before it ("ha", "ha" is "haha"), and no id, token count or cost is made up, except the id of
//! a tool call that came without one (see [`ToolCall`]).

use super::chunk::{CallFragment, Choice, Chunk, FunctionFragment};
use super::error::{ModelError, excerpt};
use super::request::ToolCall;

/// The most that text, reasoning and tool arguments of one reply may hold together.
const REPLY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most tool calls in one reply.
const TOOL_CALLS_MAX: usize = 128;

/// A piece of the answer while it is being written.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    Text(String),
    Reasoning(String),
}

/// What a call used, as the gateway counted it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cost_usd: Option<f64>,
}

/// A whole reply. `tool_calls` are in the model's order; reasoning is streamed but not kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelReply {
    pub text: String,
    pub tool_calls: Vec<ToolCall>,
    pub usage: Option<Usage>,
    pub model: Option<String>,
    pub response_id: Option<String>,
    pub finish_reason: Option<String>,
}

/// Puts a reply together from its chunks.
#[derive(Default)]
pub(super) struct ReplyBuilder {
    reply: ModelReply,
    calls: Vec<PartialCall>,
    received_bytes: usize,
    /// The JSON of the last usage object: some gateways send a running one with every chunk.
    usage_json: String,
    header_cost_usd: Option<f64>,
}

struct PartialCall {
    index: u32,
    id: String,
    name: String,
    arguments: String,
}

impl ReplyBuilder {
    pub fn new(header_cost_usd: Option<f64>) -> Self {
        Self { header_cost_usd: header_cost_usd.filter(is_cost), ..Self::default() }
    }

    /// Takes a chunk; what it adds to the answer goes to the end of `deltas`, merged into the last
    /// one when that is of the same kind.
    pub fn take(&mut self, chunk: &Chunk<'_>, deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        if let Some(error) = chunk.error {
            let detail = excerpt(error.get().as_bytes());
            return Err(ModelError::Reported { detail });
        }
        keep_first(&mut self.reply.response_id, chunk.id.as_str());
        keep_first(&mut self.reply.model, chunk.model.as_str());
        if let Some(usage) = chunk.usage {
            self.usage_json.clear();
            self.usage_json.push_str(usage.get());
        }
        let choices = chunk.choices.as_deref().unwrap_or_default();
        for choice in choices.iter().filter(|c| c.index.unwrap_or(0) == 0) {
            self.take_choice(choice, deltas)?;
        }
        Ok(())
    }

    fn take_choice(&mut self, choice: &Choice<'_>, deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        if let Some(delta) = &choice.delta {
            let reasoning = delta.reasoning();
            let (reasoning, text) = (reasoning.as_str(), delta.content.as_str());
            self.count(reasoning.len() + text.len())?;
            if !reasoning.is_empty() {
                match deltas.last_mut() {
                    Some(Delta::Reasoning(last)) => last.push_str(reasoning),
                    _ => deltas.push(Delta::Reasoning(reasoning.to_owned())),
                }
            }
            if !text.is_empty() {
                self.reply.text.push_str(text);
                match deltas.last_mut() {
                    Some(Delta::Text(last)) => last.push_str(text),
                    _ => deltas.push(Delta::Text(text.to_owned())),
                }
            }
            for fragment in delta.tool_calls.as_deref().unwrap_or_default() {
                self.take_call(fragment)?;
            }
        }
        keep_first(&mut self.reply.finish_reason, choice.finish_reason.as_str());
        Ok(())
    }

    fn take_call(&mut self, fragment: &CallFragment<'_>) -> Result<(), ModelError> {
        let empty = FunctionFragment::default();
        let function = fragment.function.as_ref().unwrap_or(&empty);
        let (id, name) = (fragment.id.as_str(), function.name.as_str());
        let arguments = function.arguments.as_str();
        self.count(id.len() + name.len() + arguments.len())?;

        let at = match fragment.index {
            Some(index) => self.calls.iter().rposition(|call| call.index == index),
            None => self.calls.len().checked_sub(1),
        };
        // Gateways exist that number every parallel call 0, or not at all, so a fragment that
        // brings another id together with a name begins a new call. The id alone does not: others
        // make a new id for every fragment.
        let at = at.filter(|at| {
            let other_id = !id.is_empty() && !self.calls[*at].id.is_empty();
            name.is_empty() || !other_id || self.calls[*at].id == id
        });
        if let Some(at) = at {
            let call = &mut self.calls[at];
            fill_once(&mut call.id, id);
            fill_once(&mut call.name, name);
            call.arguments.push_str(arguments);
            return Ok(());
        }
        if self.calls.len() == TOOL_CALLS_MAX {
            let detail = format!("more than {TOOL_CALLS_MAX} tool calls");
            return Err(ModelError::TooLarge { detail });
        }
        let last = self.calls.iter().map(|call| call.index).max();
        let next = last.map_or(0, |last| last.saturating_add(1));
        self.calls.push(PartialCall {
            index: fragment.index.unwrap_or(next),
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        });
        Ok(())
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

    /// A call that no tool can be found for is no call.
    pub fn check_calls(&self) -> Result<(), ModelError> {
        if self.calls.iter().any(|call| call.name.is_empty()) {
            let detail = "a tool call without a name".to_owned();
            return Err(ModelError::NotTheApi { detail });
        }
        Ok(())
    }

    pub fn into_reply(self) -> ModelReply {
        let mut calls = self.calls;
        calls.sort_by_key(|call| call.index);
        ModelReply {
            tool_calls: calls.into_iter().map(whole_call).collect(),
            usage: usage_of(&self.usage_json, self.header_cost_usd),
            ..self.reply
        }
    }
}

fn whole_call(call: PartialCall) -> ToolCall {
    let PartialCall { index, mut id, name, mut arguments } = call;
    if id.is_empty() {
        id = format!("call_{index}_{:016x}", rand::random::<u64>());
    }
    if arguments.trim().is_empty() {
        arguments = "{}".to_owned();
    }
    ToolCall { id, name, arguments }
}

/// The usage, when the gateway gave both counts; the cost only when it gave one.
fn usage_of(json: &str, header_cost_usd: Option<f64>) -> Option<Usage> {
    let usage: serde_json::Value = serde_json::from_str(json).ok()?;
    let cost = |key: &str| usage.get(key)?.as_f64().filter(is_cost);
    Some(Usage {
        prompt_tokens: usage.get("prompt_tokens")?.as_u64()?,
        completion_tokens: usage.get("completion_tokens")?.as_u64()?,
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

fn fill_once(slot: &mut String, value: &str) {
    if slot.is_empty() {
        slot.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(chunks: &[&str]) -> Result<(ModelReply, Vec<Delta>), ModelError> {
        let mut builder = ReplyBuilder::new(Some(0.5));
        let mut deltas = Vec::new();
        for json in chunks {
            let chunk = serde_json::from_str(json).unwrap();
            builder.take(&chunk, &mut deltas)?;
        }
        builder.check_calls()?;
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
            r#"{"id":"r2","choices":[{"index":1,"delta":{"content":"other choice"}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#,
        ])
        .unwrap();
        assert_eq!(reply.text, "hahah\u{fc}\n");
        assert_eq!(deltas, [Delta::Reasoning("hm \"so\"".into()), Delta::Text("hahah\u{fc}\n".into())]);
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
        let counted = |cost_usd| Usage { prompt_tokens: 3, completion_tokens: 4, cost_usd };
        let with = |more: &str| {
            let json = format!(r#"{{"choices":[],"usage":{{"prompt_tokens":3,"completion_tokens":4{more}}}}}"#);
            usage(&json).unwrap()
        };
        assert_eq!(with(""), counted(Some(0.5)));
        assert_eq!(with(r#","cost":0.25"#), counted(Some(0.25)));
        assert_eq!(with(r#","cost":"much","cost_usd":1"#), counted(Some(1.0)));
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
    fn errors_and_nameless_calls_fail_the_reply() {
        let error = build(&[r#"{"error":{"message":"quota of org-7"}}"#]).unwrap_err();
        assert!(error.detail().contains("org-7"));
        assert!(!error.to_string().contains("org-7"));
        assert!(matches!(
            build(&[&calls(r#"{"index":0,"function":{"arguments":"{}"}}"#)]),
            Err(ModelError::NotTheApi { .. })
        ));
    }
}
