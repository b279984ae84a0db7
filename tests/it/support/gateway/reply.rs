//! The scriptable gateway's replies, and their events.

use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Lets a test release the tokens of a gated reply one by one.
#[derive(Clone)]
pub struct Gate(pub(super) Arc<Semaphore>);

impl Gate {
    /// Returns a closed gate.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets `count` more tokens through; the end of the reply follows its last token by itself.
    pub fn release(&self, count: usize) {
        self.0.add_permits(count);
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.0.close();
    }
}

/// The gateway's reply to one request.
#[derive(Clone)]
pub struct Reply(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Stream(Script),
    Raw(Vec<Bytes>, End),
    Page { status: u16, content_type: &'static str, body: String },
    Hang,
}

#[derive(Clone)]
pub(super) struct Script {
    reasoning: Vec<String>,
    tokens: Vec<String>,
    calls: Vec<(String, String)>,
    pub(super) pace: Pace,
    pub(super) end: End,
}

#[derive(Clone)]
pub(super) enum Pace {
    AtOnce,
    Delay(Duration),
    Gate(Gate),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum End {
    Complete,
    Silent,
    Cut,
}

impl Reply {
    /// Streams the text, one token per word.
    pub fn text(text: &str) -> Self {
        Self::tokens(words(text))
    }

    pub fn tokens(tokens: Vec<String>) -> Self {
        Self(Kind::Stream(Script {
            reasoning: Vec::new(),
            tokens,
            calls: Vec::new(),
            pace: Pace::AtOnce,
            end: End::Complete,
        }))
    }

    /// Makes one tool call; the arguments are JSON text or a JSON value.
    pub fn tool_call(name: &str, arguments: impl ToString) -> Self {
        Self::tool_calls(vec![(name.to_owned(), arguments.to_string())])
    }

    /// Makes several tool calls, as (name, arguments), in one reply.
    pub fn tool_calls(calls: Vec<(String, String)>) -> Self {
        Self::tokens(Vec::new()).with_calls(calls)
    }

    /// Refuses the request with this status.
    ///
    /// The refusal asks for a retry at once, so that a test need not wait through the client's own pauses.
    pub fn status(status: u16) -> Self {
        let error = json!({"error": {"message": "gateway-internal refusal", "code": status}});
        Self(Kind::Page { status, content_type: "application/json", body: error.to_string() })
    }

    /// Answers for an endpoint other than completions.
    pub fn json(body: &Value) -> Self {
        Self(Kind::Page { status: 200, content_type: "application/json", body: body.to_string() })
    }

    /// Takes the request and never answers.
    pub fn hang() -> Self {
        Self(Kind::Hang)
    }

    /// Streams the tokens, then is silent without an end.
    pub fn hang_after(tokens: Vec<String>) -> Self {
        Self::tokens(tokens).change(|script| script.end = End::Silent)
    }

    /// Streams the tokens, then breaks the connection off.
    pub fn cut_after(tokens: Vec<String>) -> Self {
        Self::tokens(tokens).change(|script| script.end = End::Cut)
    }

    /// Sends an event stream in exactly these pieces, each a write of its own.
    pub fn raw(pieces: Vec<Vec<u8>>) -> Self {
        Self(Kind::Raw(pieces.into_iter().map(Bytes::from).collect(), End::Complete))
    }

    /// Sends an event stream of these bytes, cut into pieces of this size.
    pub fn bytes(body: &str, piece: usize) -> Self {
        Self::raw(body.as_bytes().chunks(piece).map(<[u8]>::to_vec).collect())
    }

    /// Breaks the connection off after the last piece.
    pub fn breaks(self) -> Self {
        match self.0 {
            Kind::Raw(pieces, _) => Self(Kind::Raw(pieces, End::Cut)),
            _ => panic!("only a raw reply has this setting"),
        }
    }

    /// Sends a web page in place of the API's answer.
    pub fn garbage() -> Self {
        Self(Kind::Page {
            status: 200,
            content_type: "text/html",
            body: "<html><body>gateway-internal welcome</body></html>".to_owned(),
        })
    }

    /// Sends an error object under a status of success.
    pub fn json_error_200() -> Self {
        Self(Kind::Page {
            status: 200,
            content_type: "application/json",
            body: json!({"error": {"message": "gateway-internal failure"}}).to_string(),
        })
    }

    /// Streams a token each time the gate lets one through.
    pub fn gated(tokens: Vec<String>, gate: &Gate) -> Self {
        Self::tokens(tokens).change(|script| script.pace = Pace::Gate(gate.clone()))
    }

    /// Waits this long before every token.
    pub fn delay_per_token(self, delay: Duration) -> Self {
        self.change(|script| script.pace = Pace::Delay(delay))
    }

    /// Ends with these tool calls, as (name, arguments).
    pub fn with_calls(self, calls: Vec<(String, String)>) -> Self {
        self.change(|script| script.calls = calls)
    }

    /// Sends this text before the tool calls.
    pub fn with_text(self, text: &str) -> Self {
        self.change(|script| script.tokens = words(text))
    }

    /// Sends this reasoning before the answer.
    pub fn with_reasoning(self, text: &str) -> Self {
        self.change(|script| script.reasoning = words(text))
    }

    fn change(mut self, change: impl FnOnce(&mut Script)) -> Self {
        match &mut self.0 {
            Kind::Stream(script) => change(script),
            Kind::Raw(..) | Kind::Page { .. } | Kind::Hang => panic!("only a streamed reply has this setting"),
        }
        self
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// One SSE event; a paced one is a token.
pub(super) struct Event {
    pub(super) bytes: Bytes,
    pub(super) paced: bool,
}

impl Event {
    fn of(data: &str, paced: bool) -> Self {
        Self { bytes: format!("data: {data}\n\n").into(), paced }
    }
}

impl Script {
    /// Returns a script without events that ends in this way.
    pub(super) fn ends(end: End) -> Self {
        Self { reasoning: vec![], tokens: vec![], calls: vec![], pace: Pace::AtOnce, end }
    }

    pub(super) fn events(&self, number: usize, model: &Value, calls_made: &AtomicUsize) -> VecDeque<Event> {
        let chunk = |choices: Value, usage: Value| {
            json!({
                "id": format!("chatcmpl-{number}"), "object": "chat.completion.chunk",
                "created": 0, "model": model, "choices": choices, "usage": usage,
            })
        };
        let delta = |delta: Value, finish_reason: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
            chunk(json!([choice]), Value::Null)
        };
        let event = |json: Value, paced| Event::of(&json.to_string(), paced);
        let first = delta(json!({"role": "assistant", "content": ""}), Value::Null);
        let mut events = VecDeque::from([event(first, false)]);
        for token in &self.reasoning {
            let token = delta(json!({"reasoning_content": token}), Value::Null);
            events.push_back(event(token, false));
        }
        for token in &self.tokens {
            events.push_back(event(delta(json!({"content": token}), Value::Null), true));
        }
        for (index, (name, arguments)) in self.calls.iter().enumerate() {
            for call in call_fragments(index, name, arguments, calls_made) {
                let call = delta(json!({"tool_calls": [call]}), Value::Null);
                events.push_back(event(call, false));
            }
        }
        if self.end == End::Complete {
            let reason = match self.calls.is_empty() {
                true => "stop",
                false => "tool_calls",
            };
            let usage = json!({
                "prompt_tokens": 10, "completion_tokens": self.tokens.len(),
                "total_tokens": 10 + self.tokens.len(),
            });
            events.push_back(event(delta(json!({}), json!(reason)), false));
            events.push_back(event(chunk(json!([]), usage), false));
            events.push_back(Event::of("[DONE]", false));
        }
        events
    }
}

/// Returns a call in three fragments, as gateways send it: the head, then the arguments in two halves.
fn call_fragments(index: usize, name: &str, arguments: &str, calls_made: &AtomicUsize) -> [Value; 3] {
    let id = format!("call-{}", calls_made.fetch_add(1, Ordering::Relaxed) + 1);
    let boundaries = arguments.char_indices().map(|(at, _)| at);
    let half = boundaries.take_while(|at| at * 2 <= arguments.len()).last();
    let (first, second) = arguments.split_at(half.unwrap_or(0));
    [
        json!({"index": index, "id": id, "type": "function",
               "function": {"name": name, "arguments": ""}}),
        json!({"index": index, "function": {"arguments": first}}),
        json!({"index": index, "function": {"arguments": second}}),
    ]
}
