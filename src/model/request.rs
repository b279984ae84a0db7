//! The request to the model, and its JSON form on the wire.
//!
//! Contract: tools go out in the order given, messages in the form of [`super::normal`]; no temperature is sent; usage
//! is always requested, since a gateway reports none for a stream otherwise, except from a gateway that refuses the
//! request for it ([`super::dialect`]). A provider's own fields of a message or a call go back with it as they came.

use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    adapt,
    dialect::{Dialect, RequestParts},
    messages::{ChatMessage, ChatRequest, ImageUrl, ToolCall, ToolSpec},
    normal,
    raw::{RawFields, fields},
};

/// Returns the request body in a gateway's dialect, serialised once and shared by all attempts.
pub(super) fn body(request: &ChatRequest, dialect: Dialect) -> Bytes {
    let messages = normal::messages(&adapt::before(&request.messages, dialect), dialect.has_no_system);
    let messages = adapt::after(messages, dialect);
    let tools = adapt::tools(request, &messages, dialect);
    let max_tokens = |wanted: bool| wanted.then_some(request.max_tokens);
    let wire = WireRequest {
        model: &request.model,
        messages: messages.iter().map(wire_message).collect(),
        tools: tools.iter().map(wire_tool).collect(),
        max_tokens: max_tokens(!dialect.max_completion_tokens),
        max_completion_tokens: max_tokens(dialect.max_completion_tokens),
        stream: true,
        stream_options: (!dialect.no_stream_options).then_some(StreamOptions { include_usage: true }),
        metadata: request.metadata.as_ref(),
    };
    let json = serde_json::to_vec(&wire).expect("strings and JSON values always serialise");
    Bytes::from(json)
}

/// Returns the parts of a request that a refusal may name.
pub(super) fn sent(request: &ChatRequest) -> RequestParts {
    let names = |opaque: Option<&String>| {
        let mut given = ReturnedFields::of(opaque);
        let function = given.take_function();
        given.0.into_iter().chain(function.0).map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>()
    };
    let mut given_back: Vec<String> = Vec::new();
    let mut has_calls = false;
    for message in &request.messages {
        if let ChatMessage::Assistant { tool_calls, opaque, .. } = message {
            given_back.extend(names(opaque.as_ref()));
            given_back.extend(tool_calls.iter().flat_map(|call| names(call.opaque.as_ref())));
            has_calls |= !tool_calls.is_empty();
        }
    }
    given_back.sort_unstable();
    given_back.dedup();
    RequestParts { given_back, has_tools: has_calls || !request.tools.is_empty(), has_calls }
}

#[derive(Serialize)]
struct WireRequest<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    /// `null` for an assistant message that only calls tools, as the API wants it.
    content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(flatten)]
    opaque: ReturnedFields<'a>,
}

/// Fields that are given back as they came.
#[derive(Default)]
struct ReturnedFields<'a>(RawFields<'a>);

impl<'a> ReturnedFields<'a> {
    fn of(opaque: Option<&'a String>) -> Self {
        let raw = opaque.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        Self(raw.map(fields).unwrap_or_default())
    }

    /// Removes and returns the fields that belong into the function.
    fn take_function(&mut self) -> ReturnedFields<'a> {
        let at = self.0.iter().position(|(name, _)| name == "function");
        ReturnedFields(at.map(|at| fields(self.0.remove(at).1)).unwrap_or_default())
    }
}

impl Serialize for ReturnedFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: &'a ImageUrl },
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireCallFunction<'a>,
    #[serde(flatten)]
    opaque: ReturnedFields<'a>,
}

#[derive(Serialize)]
struct WireCallFunction<'a> {
    name: &'a str,
    arguments: &'a str,
    #[serde(flatten)]
    opaque: ReturnedFields<'a>,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: WireToolFunction<'a>,
}

#[derive(Serialize)]
struct WireToolFunction<'a> {
    name: &'a str,
    /// An empty description is left out: some gateways want a letter at least.
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a serde_json::Value,
}

fn wire_message(message: &ChatMessage) -> WireMessage<'_> {
    let with = |role, content| WireMessage {
        role,
        content: Some(content),
        tool_calls: Vec::new(),
        tool_call_id: None,
        opaque: ReturnedFields::default(),
    };
    let plain = |role, text| with(role, Content::Text(text));
    match message {
        ChatMessage::System(text) => plain("system", text),
        ChatMessage::User(text) => plain("user", text),
        ChatMessage::Picture { text, images } => with("user", Content::Parts(parts(text, images))),
        ChatMessage::Assistant { text, tool_calls, opaque } => WireMessage {
            content: (!text.is_empty() || tool_calls.is_empty()).then_some(Content::Text(text)),
            tool_calls: tool_calls.iter().map(wire_call).collect(),
            opaque: ReturnedFields::of(opaque.as_ref()),
            ..plain("assistant", text)
        },
        ChatMessage::Tool { call_id, content } => WireMessage { tool_call_id: Some(call_id), ..plain("tool", content) },
    }
}

/// Returns the text, unless it is blank, and the pictures after it.
fn parts<'a>(text: &'a str, images: &'a [ImageUrl]) -> Vec<Part<'a>> {
    let text = (!text.trim().is_empty()).then_some(Part::Text { text });
    text.into_iter().chain(images.iter().map(|image_url| Part::ImageUrl { image_url })).collect()
}

fn wire_call(call: &ToolCall) -> WireCall<'_> {
    let mut opaque = ReturnedFields::of(call.opaque.as_ref());
    let function = WireCallFunction { name: &call.name, arguments: &call.arguments, opaque: opaque.take_function() };
    WireCall { id: &call.id, r#type: "function", function, opaque }
}

fn wire_tool(tool: &ToolSpec) -> WireTool<'_> {
    WireTool {
        r#type: "function",
        function: WireToolFunction { name: &tool.name, description: &tool.description, parameters: &tool.parameters },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sent(request: &ChatRequest) -> Value {
        serde_json::from_slice(&body(request, Dialect::default())).unwrap()
    }

    #[test]
    fn a_plain_request_has_no_tools_key_and_asks_for_usage() {
        let value = sent(&ChatRequest {
            model: "m".into(),
            messages: vec![ChatMessage::System("s".into()), ChatMessage::User("u".into())],
            tools: vec![],
            max_tokens: 12,
            metadata: None,
        });
        assert_eq!(
            value,
            json!({
                "model": "m", "max_tokens": 12, "stream": true,
                "stream_options": {"include_usage": true},
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            })
        );
    }

    #[test]
    fn pictures_follow_the_text_and_need_none() {
        let image =
            |detail: Option<&str>| ImageUrl { url: "https://e.example/a".into(), detail: detail.map(str::to_owned) };
        let value = sent(&ChatRequest {
            model: "m".into(),
            messages: vec![
                ChatMessage::Picture { text: "look".into(), images: vec![image(Some("low")), image(None)] },
                ChatMessage::Assistant { text: "nice".into(), tool_calls: vec![], opaque: None },
                ChatMessage::Picture { text: String::new(), images: vec![image(None)] },
            ],
            tools: vec![],
            max_tokens: 1,
            metadata: None,
        });
        let part = json!({"type": "image_url", "image_url": {"url": "https://e.example/a"}});
        let low = json!({"type": "image_url", "image_url": {"url": "https://e.example/a", "detail": "low"}});
        assert_eq!(
            value["messages"],
            json!([
                {"role": "user", "content": [{"type": "text", "text": "look"}, low, part]},
                {"role": "assistant", "content": "nice"},
                {"role": "user", "content": [part]},
            ])
        );
    }

    #[test]
    fn calls_and_their_results_take_the_api_shape() {
        let opaque = r#"{"extra_content":{"b":1.50,"a":"\u00e9"},"function":{"sig":"S"}}"#;
        let call =
            ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"a\":1}".into(), opaque: Some(opaque.into()) };
        let request = ChatRequest {
            model: "m".into(),
            messages: vec![
                ChatMessage::User("do it".into()),
                ChatMessage::Assistant {
                    text: String::new(),
                    tool_calls: vec![call],
                    opaque: Some(r#"{"reasoning_content":"hm"}"#.into()),
                },
                ChatMessage::Tool { call_id: "c1".into(), content: "done".into() },
                ChatMessage::Assistant { text: "ok".into(), tool_calls: vec![], opaque: None },
            ],
            tools: vec![
                ToolSpec {
                    name: "z".into(),
                    description: "last letter first".into(),
                    parameters: json!({"type": "object"}),
                },
                ToolSpec { name: "a".into(), description: "".into(), parameters: json!({"type": "object"}) },
            ],
            max_tokens: 1,
            metadata: None,
        };
        let value = sent(&request);
        let text = String::from_utf8(body(&request, Dialect::default()).to_vec()).unwrap();
        assert!(text.contains(r#""extra_content":{"b":1.50,"a":"\u00e9"}"#), "as it came: {text}");
        assert_eq!(
            value["messages"],
            json!([
                {"role": "user", "content": "do it"},
                {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                    {"id": "c1", "type": "function", "extra_content": {"b": 1.5, "a": "é"},
                     "function": {"name": "f", "arguments": "{\"a\":1}", "sig": "S"}}]},
                {"role": "tool", "content": "done", "tool_call_id": "c1"},
                {"role": "assistant", "content": "ok"},
            ])
        );
        assert_eq!(value["tools"][0]["function"]["name"], "z");
        assert_eq!(value["tools"][1]["type"], "function");
    }
}
