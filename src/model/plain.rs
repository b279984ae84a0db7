//! The chunk of a token as gateways usually send it, read without a copy.
//!
//! Contract: a chunk of another form, or with a field that needs other treatment, is rejected here. The result is the
//! one that [`Chunk`] reads field by field.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, Visitor};
use serde_json::value::RawValue;

use super::chunk::{Choice, Chunk};

/// A chunk with one choice that holds text or nothing, and with no field that needs other treatment.
#[derive(serde::Deserialize)]
pub(super) struct Plain<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    model: Text<'a>,
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
    finish_reason: Text<'a>,
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
    content: Text<'a>,
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

impl<'a> Plain<'a> {
    pub fn into_chunk(self) -> Chunk<'a> {
        let [PlainChoice { delta, finish_reason, .. }] = self.choices;
        let thoughts = [
            ("reasoning_content", delta.reasoning_content),
            ("reasoning", delta.reasoning),
            ("reasoning_details", delta.reasoning_details),
        ];
        let opaque = thoughts.into_iter().filter_map(|(name, raw)| Some((Cow::Borrowed(name), raw?)));
        Chunk {
            id: self.id.0,
            model: self.model.0,
            usage: self.usage,
            error: None,
            choice: Choice {
                content: delta.content.0,
                opaque: opaque.collect(),
                finish_reason: finish_reason.0,
                ..Choice::default()
            },
        }
    }
}

/// A string that may be absent or null, which both read as empty.
///
/// (`Option<Cow<str>>` would always copy: serde borrows only a bare `Cow`.)
#[derive(Default)]
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or null")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E: Error>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
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
            assert!(serde_json::from_str::<Plain<'_>>(&json).is_ok(), "{delta}");
            let chunk = Chunk::parse(json.as_bytes()).unwrap();
            assert_eq!((chunk.choice.content.as_ref(), chunk.id.as_ref()), ("a", "c"));
        }
    }
}
