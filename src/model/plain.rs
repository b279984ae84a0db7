//! The chunk of a token as gateways usually send it, read without a copy.
//!
//! Contract: a chunk of another form, or with a field that needs other treatment, is rejected here. The result is the
//! one that [`CompletionChunk`] reads field by field.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{
    chunk::{ChunkChoice, CompletionChunk},
    raw::{NullableText, RawObject},
};

/// A chunk with one choice that holds text or nothing, and with no field that needs other treatment.
#[derive(serde::Deserialize)]
pub(super) struct PlainChunk<'a> {
    #[serde(borrow, default)]
    id: NullableText<'a>,
    #[serde(borrow, default)]
    model: NullableText<'a>,
    #[serde(borrow)]
    choices: [PlainChoice<'a>; 1],
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(default, rename = "error")]
    _error: (),
    #[serde(default, rename = "x_groq")]
    _x_groq: (),
}

#[derive(serde::Deserialize)]
struct PlainChoice<'a> {
    #[serde(borrow)]
    delta: PlainDelta<'a>,
    #[serde(borrow, default)]
    finish_reason: NullableText<'a>,
    #[serde(default, rename = "message")]
    _message: (),
    #[serde(default, rename = "usage")]
    _usage: (),
    #[serde(default, rename = "error")]
    _error: (),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainDelta<'a> {
    #[serde(default, rename = "role")]
    _role: IgnoredAny,
    #[serde(borrow, default)]
    content: NullableText<'a>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(default, rename = "refusal")]
    _refusal: (),
    #[serde(default, rename = "tool_calls")]
    _tool_calls: (),
    #[serde(default, rename = "function_call")]
    _function_call: (),
    #[serde(default, rename = "audio")]
    _audio: (),
    #[serde(default, rename = "annotations")]
    _annotations: (),
    #[serde(default, rename = "provider_specific_fields")]
    _provider_specific_fields: (),
}

impl<'a> CompletionChunk<'a> {
    /// Parses a chunk.
    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        match serde_json::from_slice::<PlainChunk<'a>>(json) {
            Ok(plain) => Ok(plain.into_chunk()),
            Err(_) => Ok(Self::of(serde_json::from_slice::<RawObject<'a>>(json)?.0)),
        }
    }
}

impl<'a> PlainChunk<'a> {
    pub fn into_chunk(self) -> CompletionChunk<'a> {
        let [PlainChoice { delta, finish_reason, .. }] = self.choices;
        let thoughts = [
            ("reasoning_content", delta.reasoning_content),
            ("reasoning", delta.reasoning),
            ("reasoning_details", delta.reasoning_details),
        ];
        let opaque = thoughts.into_iter().filter_map(|(name, raw)| Some((Cow::Borrowed(name), raw?)));
        CompletionChunk {
            id: self.id.0,
            model: self.model.0,
            usage: self.usage,
            error: None,
            choice: ChunkChoice {
                content: delta.content.0,
                opaque: opaque.collect(),
                finish_reason: finish_reason.0,
                ..ChunkChoice::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_token_chunk_takes_the_fast_path() {
        for delta in [
            r#"{"content":"a"}"#,
            r#"{"role":"assistant","content":"a","refusal":null}"#,
            r#"{"content":"a","function_call":null,"tool_calls":null,"audio":null,"provider_specific_fields":null}"#,
            r#"{"role":"assistant","content":"a","reasoning":null,"reasoning_details":[]}"#,
            r#"{"content":"a","reasoning_content":null}"#,
        ] {
            let json = format!(
                r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","usage":null,
                "choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}],"system_fingerprint":null}}"#
            );
            assert!(serde_json::from_str::<PlainChunk<'_>>(&json).is_ok(), "{delta}");
            let chunk = CompletionChunk::parse(json.as_bytes()).unwrap();
            assert_eq!((chunk.choice.content.as_ref(), chunk.id.as_ref()), ("a", "c"));
        }
    }
}
