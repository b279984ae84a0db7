//! One chat completion chunk, as the gateway sends it, borrowed from the received bytes.
//!
//! Contract: a field of an unexpected form is read as well as it can be, or counts as absent; it never spoils the
//! fields beside it. Only text that is no JSON object is rejected. The usual chunk of a token is read without a copy,
//! since this happens once a token ([`super::plain`]); every other chunk is read field by field ([`fields`]).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    content::{ContentText, said, text},
    raw::{RawFields, fields, get, has, is_empty, list, take},
};

/// A chunk, or a whole completion that was not streamed.
#[derive(Default)]
pub(super) struct CompletionChunk<'a> {
    pub id: Cow<'a, str>,
    pub model: Cow<'a, str>,
    pub usage: Option<&'a RawValue>,
    pub error: Option<Cow<'a, str>>,
    pub choice: ChunkChoice<'a>,
}

/// The part of the answer that a chunk holds.
#[derive(Default)]
pub(super) struct ChunkChoice<'a> {
    pub content: Cow<'a, str>,
    pub refusal: Cow<'a, str>,
    /// Reasoning that the content itself holds, as parts.
    pub thinking: Cow<'a, str>,
    pub calls: Vec<CallFragment<'a>>,
    /// Unknown fields of the message, in their order.
    pub opaque: RawFields<'a>,
    pub finish_reason: Cow<'a, str>,
}

#[derive(Default)]
pub(super) struct CallFragment<'a> {
    pub index: Option<u32>,
    pub id: Cow<'a, str>,
    pub name: Cow<'a, str>,
    pub arguments: Cow<'a, str>,
    /// Unknown fields of the call, and of the function in it.
    pub opaque: RawFields<'a>,
    pub function_opaque: RawFields<'a>,
}

/// Fields of a message that are never given back: they are read here, or describe the answer.
const MESSAGE_FIELDS: [&str; 20] = [
    "role",
    "content",
    "refusal",
    "tool_calls",
    "function_call",
    "name",
    "id",
    "index",
    "object",
    "created",
    "model",
    "usage",
    "error",
    "finish_reason",
    "stop_reason",
    "logprobs",
    "annotations",
    "citations",
    "audio",
    "images",
];

impl<'a> CompletionChunk<'a> {
    /// Reads a chunk field by field.
    pub(super) fn of(mut chunk: RawFields<'a>) -> Self {
        let kind = take(&mut chunk, "object").or_else(|| take(&mut chunk, "type")).map(text).unwrap_or_default();
        let error = take(&mut chunk, "error").filter(|raw| !is_empty(raw)).map(|raw| Cow::Borrowed(raw.get()));
        let says_error = kind == "error" || (!has(&chunk, "choices") && has(&chunk, "message"));
        let told = says_error.then(|| take(&mut chunk, "message").map_or(Cow::Borrowed("an error"), text));
        let mut of_choice = take(&mut chunk, "choices").map(choice).unwrap_or_default();
        // The usage stands at the top level, in the choice, or in a provider's own field.
        let own = take(&mut chunk, "x_groq").map(fields).and_then(|mut own| take(&mut own, "usage"));
        Self {
            id: take(&mut chunk, "id").map(text).unwrap_or_default(),
            model: take(&mut chunk, "model").map(text).unwrap_or_default(),
            usage: take(&mut chunk, "usage").or_else(|| take(&mut of_choice, "usage")).or(own),
            error: error.or(told).or_else(|| take(&mut of_choice, "error").map(|raw| Cow::Borrowed(raw.get()))),
            choice: ChunkChoice::of(of_choice),
        }
    }
}

/// Returns the one choice of a chunk: that with index 0, else the first. Only one is requested, so any index counts.
fn choice(choices: &RawValue) -> RawFields<'_> {
    let mut all: Vec<RawFields<'_>> = match choices.get().as_bytes().first() {
        Some(b'[') => list(choices).into_iter().map(fields).filter(|fields| !fields.is_empty()).collect(),
        _ => vec![fields(choices)],
    };
    let is_first = |choice: &RawFields<'_>| get(choice, "index").is_some_and(|index| number(index) == Some(0));
    let at = all.iter().position(is_first).unwrap_or(0);
    if all.is_empty() { Vec::new() } else { all.swap_remove(at) }
}

impl<'a> ChunkChoice<'a> {
    fn of(mut choice: RawFields<'a>) -> Self {
        let finish_reason = take(&mut choice, "finish_reason").map(text).unwrap_or_default();
        let completion = take(&mut choice, "text").map(text).unwrap_or_default();
        let delta = take(&mut choice, "delta").filter(|raw| !is_empty(raw)).or_else(|| take(&mut choice, "message"));
        let mut delta = delta.map(fields).unwrap_or_default();
        let content = take(&mut delta, "content").map(said);
        let ContentText { text: content, thought: thinking, refusal: refused } =
            content.unwrap_or_else(|| ContentText { text: completion, ..ContentText::default() });
        let mut calls: Vec<CallFragment<'a>> = take(&mut delta, "tool_calls").map(calls).unwrap_or_default();
        if let Some(function) = take(&mut delta, "function_call") {
            calls.push(CallFragment::default().with_function(fields(function)));
        }
        let refusal = take(&mut delta, "refusal").map(text).filter(|text| !text.is_empty()).unwrap_or(refused);
        delta.retain(|(name, value)| !MESSAGE_FIELDS.contains(&name.as_ref()) && value.get() != "null");
        Self { content, refusal, thinking, calls, opaque: delta, finish_reason }
    }
}

fn calls(raw: &RawValue) -> Vec<CallFragment<'_>> {
    let all = match raw.get().as_bytes().first() {
        Some(b'[') => list(raw),
        _ => vec![raw],
    };
    all.into_iter().map(fields).filter(|fields| !fields.is_empty()).map(CallFragment::of).collect()
}

impl<'a> CallFragment<'a> {
    fn of(mut call: RawFields<'a>) -> Self {
        let index = take(&mut call, "index").and_then(number);
        let id = take(&mut call, "id").map(text).unwrap_or_default();
        take(&mut call, "type");
        let function = take(&mut call, "function").map(fields);
        // Some gateways put the function's fields beside the id.
        let function = function.unwrap_or_else(|| {
            let own = ["name", "arguments"].map(|name| take(&mut call, name).map(|raw| (Cow::Borrowed(name), raw)));
            own.into_iter().flatten().collect()
        });
        call.retain(|(_, value)| !is_empty(value));
        Self { index, id, opaque: call, ..Self::default() }.with_function(function)
    }

    fn with_function(self, mut function: RawFields<'a>) -> Self {
        let name = take(&mut function, "name").map(text).unwrap_or_default();
        // A string holds the model's JSON text; an object is that JSON already.
        let arguments = take(&mut function, "arguments").map(text).unwrap_or_default();
        function.retain(|(_, value)| !is_empty(value));
        Self { name, arguments, function_opaque: function, ..self }
    }
}

/// Parses a small whole number, also from a string.
fn number(raw: &RawValue) -> Option<u32> {
    text(raw).trim().parse::<f64>().ok().filter(|n| *n >= 0.0 && *n <= f64::from(u32::MAX)).map(|n| n as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(delta: &str) -> String {
        let json = format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#);
        let choice = CompletionChunk::parse(json.as_bytes()).unwrap().choice;
        format!("{}|{}|{}", choice.content, choice.thinking, choice.refusal)
    }

    #[test]
    fn content_is_text_in_every_form() {
        for (delta, expected) in [
            (r#"{"content":"a\nb"}"#, "a\nb||"),
            (r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#, "ab||"),
            (r#"{"content":["a",{"type":"image_url","image_url":{"url":"x"}},{"text":"b"}]}"#, "ab||"),
            (r#"{"content":{"type":"text","text":"a"}}"#, "a||"),
            (
                r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"a"}]}"#,
                "a|hm|",
            ),
            (r#"{"content":5}"#, "5||"),
            (r#"{"content":null,"refusal":"no"}"#, "||no"),
            (r#"{"content":[null,{"type":"refusal","refusal":"no"}]}"#, "||no"),
            (r#"{"content":"a","content":"b"}"#, "b||"),
            (r#"{"content":"a\ud83e b\n\"c\" é \u00e9"}"#, "a\u{fffd} b\n\"c\" é é||"),
            (r#"{"content":false,"refusal":true}"#, "||"),
            ("null", "||"),
            ("[]", "||"),
            (r#""text""#, "||"),
        ] {
            assert_eq!(read(delta), expected, "{delta}");
        }
    }

    #[test]
    fn a_malformed_field_spoils_no_other() {
        for odd in [
            r#"{"id":7,"model":["m"],"usage":"much","choices":[{"index":3,"delta":{"content":"a","tool_calls":null}}]}"#,
            r#"{"choices":[null,{"index":"0","delta":{"content":"a"},"finish_reason":null}],"created":"now"}"#,
            r#"{"choices":{"delta":{"content":"a"}}}"#,
            r#"{"choices":[{"index":-1,"delta":{"content":"a","tool_calls":[null,5],"function_call":null}}],"error":null}"#,
            r#"{"choices":[{"delta":{},"message":{"role":"assistant","content":"a"}}]}"#,
            r#"{"choices":[{"text":"a","index":0}]}"#,
            r#"{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}"#,
        ] {
            let chunk = CompletionChunk::parse(odd.as_bytes()).unwrap();
            assert_eq!(chunk.choice.content, "a", "{odd}");
            assert!(chunk.error.is_none() && chunk.choice.calls.is_empty(), "{odd}");
        }
        assert_eq!(CompletionChunk::parse(br#"{"id":7,"choices":[]}"#).unwrap().id, "7");
        for none in ["", "{", "[1]", "x", "{\"choices\":[{\"delta\":{\"content\":\"a"] {
            assert!(CompletionChunk::parse(none.as_bytes()).is_err(), "{none}");
        }
    }

    #[test]
    fn an_error_is_found_in_every_position() {
        for told in [
            r#"{"error":{"message":"m"}}"#,
            r#"{"error":"m"}"#,
            r#"{"object":"error","message":"m","code":400}"#,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
            r#"{"message":"m"}"#,
            r#"{"choices":[{"delta":{"content":""},"error":{"message":"m"},"finish_reason":"error"}]}"#,
        ] {
            let error = CompletionChunk::parse(told.as_bytes()).unwrap().error;
            assert!(error.is_some_and(|error| error.contains('m')), "{told}");
        }
        for none in [r#"{"error":{},"choices":[]}"#, r#"{"error":"","choices":[]}"#, r#"{"error":false}"#] {
            assert!(CompletionChunk::parse(none.as_bytes()).unwrap().error.is_none(), "{none}");
        }
    }

    #[test]
    fn usage_is_found_in_every_position() {
        for json in [
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"n":1}}"#,
            r#"{"choices":[{"delta":{},"usage":{"n":1}}],"usage":null}"#,
            r#"{"choices":[],"x_groq":{"id":"r","usage":{"n":1}}}"#,
        ] {
            assert_eq!(CompletionChunk::parse(json.as_bytes()).unwrap().usage.unwrap().get(), r#"{"n":1}"#, "{json}");
        }
    }

    #[test]
    fn unused_fields_are_kept_as_written() {
        let json = r#"{"choices":[{"delta":{"reasoning_details":[{"b":1.50,"a":"\u00e9"}],"audio":null,"x":{},
            "tool_calls":[{"index":"1","id":7,"type":"function","extra_content":{"google":{"thought_signature":"A+/="}},
            "function":{"name":"f","arguments":{ "a" : 1 },"thought_signature":"S"}}]}}]}"#;
        let choice = CompletionChunk::parse(json.as_bytes()).unwrap().choice;
        let kept =
            |fields: &RawFields<'_>| fields.iter().map(|(name, raw)| format!("{name}={raw}")).collect::<Vec<_>>();
        assert_eq!(kept(&choice.opaque), [r#"reasoning_details=[{"b":1.50,"a":"\u00e9"}]"#, "x={}"]);
        let call = &choice.calls[0];
        assert_eq!((call.index, call.id.as_ref(), call.name.as_ref()), (Some(1), "7", "f"));
        assert_eq!(call.arguments, r#"{ "a" : 1 }"#);
        assert_eq!(kept(&call.opaque), [r#"extra_content={"google":{"thought_signature":"A+/="}}"#]);
        assert_eq!(kept(&call.function_opaque), [r#"thought_signature="S""#]);
    }
}
