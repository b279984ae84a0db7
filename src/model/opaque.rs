//! Fields of a provider's that it wants back: signatures of thoughts, reasoning, whatever else it adds to a message or a call.
//!
//! Contract: a value that came whole is given back byte for byte. One that came in pieces is put together the way its kind
//! streams: reasoning text is joined, lists are appended to each other (pieces of one block become that block), objects are
//! merged, and of everything else the later value counts. Nothing is interpreted, sorted or rounded.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::chunk::{Fields, fields, is_empty, list, text};

/// Texts of a message that come in pieces.
const STREAMED: [&str; 4] = ["reasoning_content", "reasoning", "reasoning_text", "thinking"];
/// Texts of a block that come in pieces.
const BLOCK_TEXTS: [&str; 3] = ["text", "thinking", "summary"];

/// The opaque fields of a message or a call, as they come.
#[derive(Debug, Default)]
pub(super) struct Opaque(Vec<(String, Value)>);

#[derive(Debug)]
enum Value {
    /// Text that comes in pieces.
    Text(String),
    /// JSON as it was written.
    Json(String),
}

impl Opaque {
    /// Takes the fields of one chunk; returns how many bytes they are.
    pub fn take(&mut self, fields: &Fields<'_>) -> usize {
        for (name, raw) in fields {
            let known = self.0.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value);
            let is_piece = STREAMED.contains(&name.as_ref()) && raw.get().starts_with('"');
            // Reasoning that is empty is still reasoning to those that want it back.
            if is_empty(raw) && !is_piece {
                continue;
            }
            match known {
                None if is_piece => self.0.push((name.to_string(), Value::Text(text(raw).into_owned()))),
                None => self.0.push((name.to_string(), Value::Json(raw.get().to_owned()))),
                Some(Value::Text(known)) if is_piece => known.push_str(&text(raw)),
                Some(Value::Json(known)) => *known = joined(known, raw),
                Some(known) => *known = Value::Json(raw.get().to_owned()),
            }
        }
        fields.iter().map(|(name, raw)| name.len() + raw.get().len()).sum()
    }

    /// The fields as the JSON text of an object, with another object's text under a name if there is one. `None`: there are none.
    pub fn text(&self, inner: Option<(&str, String)>) -> Option<String> {
        let own = self.0.iter().map(|(name, value)| match value {
            Value::Text(text) => field(name, &quoted(text)),
            Value::Json(json) => field(name, json),
        });
        let all: Vec<String> = own.chain(inner.map(|(name, json)| field(name, &json))).collect();
        (!all.is_empty()).then(|| format!("{{{}}}", all.join(",")))
    }
}

/// A value and a later one of the same field.
fn joined(known: &str, later: &RawValue) -> String {
    if known == later.get() {
        return known.to_owned();
    }
    let Ok(raw) = serde_json::from_str::<&RawValue>(known) else { return later.get().to_owned() };
    match (known.as_bytes().first(), later.get().as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => merged(raw, later, &[]),
        (Some(b'['), Some(b'[')) => appended(list(raw), list(later)),
        _ => later.get().to_owned(),
    }
}

/// Two objects in one; `texts` name fields whose texts are pieces of one.
fn merged(known: &RawValue, later: &RawValue, texts: &[&str]) -> String {
    let mut all: Vec<(Cow<'_, str>, String)> =
        fields(known).into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect();
    for (name, raw) in fields(later) {
        let at = all.iter().position(|(known, _)| *known == name);
        match at.map(|at| &mut all[at].1) {
            None => all.push((name, raw.get().to_owned())),
            Some(known) if known.starts_with('"') && texts.contains(&name.as_ref()) && raw.get().starts_with('"') => {
                let before: String = serde_json::from_str(known).unwrap_or_default();
                *known = quoted(&(before + &text(raw)));
            }
            Some(_) if is_empty(raw) => {}
            Some(known) => *known = joined(known, raw),
        }
    }
    let all: Vec<String> = all.iter().map(|(name, json)| field(name, json)).collect();
    format!("{{{}}}", all.join(","))
}

/// A list and its next elements; the pieces of a block become one element.
fn appended(known: Vec<&RawValue>, later: Vec<&RawValue>) -> String {
    let mut all: Vec<String> = known.into_iter().map(|raw| raw.get().to_owned()).collect();
    for raw in later {
        let last = all.last().and_then(|last| serde_json::from_str::<&RawValue>(last).ok());
        match last.filter(|last| goes_on(last, raw)).map(|last| merged(last, raw, &BLOCK_TEXTS)) {
            Some(whole) => *all.last_mut().expect("it has a last element") = whole,
            None => all.push(raw.get().to_owned()),
        }
    }
    format!("[{}]", all.join(","))
}

/// Whether an element is the next piece of the one before it: of one kind and number, both with text, and the first not signed.
fn goes_on(last: &RawValue, next: &RawValue) -> bool {
    let (last, next) = (fields(last), fields(next));
    let value = |fields: &Fields<'_>, name: &str| {
        let found = fields.iter().find(|(known, _)| known == name).map(|(_, raw)| raw.get().to_owned());
        found.filter(|json| json != "null")
    };
    let alike = |name: &str| {
        let (a, b) = (value(&last, name), value(&next, name));
        a == b || a.is_none() || b.is_none()
    };
    let has_text = |fields: &Fields<'_>| BLOCK_TEXTS.iter().any(|name| value(fields, name).is_some());
    let is_signed = value(&last, "signature").is_some_and(|signature| signature != "\"\"");
    value(&last, "type") == value(&next, "type")
        && value(&last, "type").is_some()
        && ["index", "id", "format"].iter().all(|name| alike(name))
        && has_text(&last)
        && (has_text(&next) || value(&next, "signature").is_some())
        && !is_signed
}

fn field(name: &str, json: &str) -> String {
    format!("{}:{json}", quoted(name))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_together(pieces: &[&str]) -> Option<String> {
        let mut opaque = Opaque::default();
        for piece in pieces {
            let raw: &RawValue = serde_json::from_str(piece).unwrap();
            opaque.take(&fields(raw));
        }
        opaque.text(None)
    }

    #[test]
    fn what_came_whole_is_given_back_byte_for_byte() {
        for whole in [
            r#"{"extra_content":{ "google" : {"thought_signature":"CtQ\/\u00e9==","n":1.50e2,"big":12345678901234567890123} }}"#,
            r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"AA==","b":2,"a":1}]}"#,
            r#"{"thought_signature":"x","z":1,"a":2}"#,
        ] {
            assert_eq!(put_together(&[whole]).as_deref(), Some(whole));
            assert_eq!(put_together(&[whole, whole]).as_deref(), Some(whole), "said twice");
            assert_eq!(
                put_together(&[whole, r#"{"extra_content":null,"reasoning_details":[],"z":null}"#]).as_deref(),
                Some(whole)
            );
        }
        assert_eq!(put_together(&[]), None);
        assert_eq!(put_together(&[r#"{"extra_content":null}"#]), None);
    }

    #[test]
    fn what_came_in_pieces_is_put_together_as_its_kind_streams() {
        for (pieces, whole) in [
            (
                &[r#"{"reasoning_content":"I "}"#, r#"{"reasoning_content":"think"}"#][..],
                r#"{"reasoning_content":"I think"}"#,
            ),
            (
                &[
                    r#"{"extra_content":{"google":{"thought":true}}}"#,
                    r#"{"extra_content":{"google":{"thought_signature":"S"}}}"#,
                ],
                r#"{"extra_content":{"google":{"thought":true,"thought_signature":"S"}}}"#,
            ),
            (&[r#"{"reasoning_content":""}"#, r#"{"reasoning_content":null}"#], r#"{"reasoning_content":""}"#),
            (&[r#"{"signature":"a"}"#, r#"{"signature":"b"}"#], r#"{"signature":"b"}"#),
            (
                &[
                    r#"{"thinking_blocks":[{"type":"thinking","thinking":"I ","signature":null}]}"#,
                    r#"{"thinking_blocks":[{"type":"thinking","thinking":"see","signature":null}]}"#,
                    r#"{"thinking_blocks":[{"type":"thinking","thinking":"","signature":"S="}]}"#,
                    r#"{"thinking_blocks":[{"type":"thinking","thinking":"and","signature":null}]}"#,
                ],
                r#"{"thinking_blocks":[{"type":"thinking","thinking":"I see","signature":"S="},{"type":"thinking","thinking":"and","signature":null}]}"#,
            ),
            (
                &[
                    r#"{"reasoning_details":[{"type":"reasoning.text","text":"a","index":0}]}"#,
                    r#"{"reasoning_details":[{"type":"reasoning.text","text":"b","index":0}]}"#,
                    r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"X","index":1}]}"#,
                    r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"Y","index":2}]}"#,
                ],
                r#"{"reasoning_details":[{"type":"reasoning.text","text":"ab","index":0},{"type":"reasoning.encrypted","data":"X","index":1},{"type":"reasoning.encrypted","data":"Y","index":2}]}"#,
            ),
        ] {
            assert_eq!(put_together(pieces).as_deref(), Some(whole));
        }
    }
}
