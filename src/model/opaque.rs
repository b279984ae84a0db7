//! Opaque fields that a provider wants back: signatures of thoughts, reasoning, other additions to a message or a call.
//!
//! Contract: a value that came whole is given back byte for byte. A value that came in pieces is assembled the way its
//! kind streams: reasoning text is joined, lists are appended to each other (pieces of one block become that block),
//! objects are merged, and of every other kind the later value counts. Nothing is interpreted, sorted or rounded.
//!
//! A value stays the received text until a second piece comes; growing values are kept in parts and joined at the end,
//! so that a piece costs its own size. Values are merged to a fixed depth, below which the later one counts.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    content::text,
    raw::{RawFields, fields, is_empty, list},
};

/// Texts of a message that come in pieces.
const STREAMED: [&str; 4] = ["reasoning_content", "reasoning", "reasoning_text", "thinking"];
/// Texts of a block that come in pieces.
const BLOCK_TEXTS: [&str; 3] = ["text", "thinking", "summary"];
/// The deepest values that are merged.
const DEPTH_MAX: usize = 8;
/// The most fields of an assembled object; more are left out.
const FIELDS_MAX: usize = 256;
/// A repeated list is detected only where it has at least this part of the bytes that came before.
const AGAIN_PART: usize = 32;

/// The opaque fields of a message or a call, as they come.
#[derive(Debug, Default)]
pub(super) struct OpaqueFields(Object);

/// Fields in the order in which they came first.
#[derive(Debug, Default)]
struct Object(Vec<(String, Value)>);

#[derive(Debug)]
enum Value {
    /// JSON as it was written.
    Json(String),
    /// Text that comes in pieces.
    Text(String),
    Object(Object),
    List(List),
}

/// A list that comes in pieces.
#[derive(Debug)]
struct List {
    elements: Vec<Value>,
    /// The pieces, and the bytes, that were received.
    pieces: usize,
    taken: usize,
}

impl OpaqueFields {
    /// Takes the fields of one chunk; returns their size in bytes.
    pub fn take(&mut self, fields: &RawFields<'_>) -> usize {
        self.0.take(fields, &STREAMED, DEPTH_MAX);
        fields.iter().map(|(name, raw)| name.len() + raw.get().len()).sum()
    }

    /// Returns the fields as the JSON text of an object, with another object's text under a name if there is one.
    ///
    /// `None`: there are no fields.
    pub fn text(&self, inner: Option<(&str, String)>) -> Option<String> {
        let mut out = String::new();
        self.0.write(&mut out);
        if let Some((name, json)) = inner {
            out.truncate(out.len() - 1);
            let gap = if self.0.0.is_empty() { "" } else { "," };
            out += &format!("{gap}{}:{json}}}", quoted(name));
        }
        (out != "{}").then_some(out)
    }
}

impl Object {
    /// Takes fields; `texts` names those that come as pieces of one text.
    fn take(&mut self, fields: &RawFields<'_>, texts: &[&str], depth: usize) {
        for (name, raw) in fields {
            let is_piece = texts.contains(&name.as_ref()) && raw.get().starts_with('"');
            let says_nothing = is_empty(raw) && !is_piece;
            let has_room = self.0.len() < FIELDS_MAX;
            match self.0.iter_mut().find(|(known, _)| known == name) {
                // Providers that want reasoning back also want an empty one.
                None if says_nothing && depth == DEPTH_MAX => {}
                Some(_) if says_nothing => {}
                Some((_, known)) if is_piece && known.is_text() => known.append(&text(raw)),
                Some((_, known)) => known.take(raw, depth),
                None if has_room => self.0.push((name.to_string(), Value::Json(raw.get().to_owned()))),
                None => {}
            }
        }
    }

    /// Returns all fields of an object as they came.
    fn of(raw: &RawValue) -> Self {
        let all = fields(raw).into_iter().take(FIELDS_MAX);
        Self(all.map(|(name, raw)| (name.into_owned(), Value::Json(raw.get().to_owned()))).collect())
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn write(&self, out: &mut String) {
        out.push('{');
        for (n, (name, value)) in self.0.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            value.write(out);
        }
        out.push('}');
    }
}

impl Value {
    /// Takes a later value of the same field.
    fn take(&mut self, later: &RawValue, depth: usize) {
        if matches!(self, Self::Json(known) if known == later.get() && !is_open(later)) {
            return;
        }
        let Some(depth) = depth.checked_sub(1) else {
            *self = Self::Json(later.get().to_owned());
            return;
        };
        let first = later.get().as_bytes().first();
        if let Self::Json(known) = self {
            match (raw(known), first) {
                (Some(known), Some(b'{')) if known.get().starts_with('{') => *self = Self::Object(Object::of(known)),
                (Some(known), Some(b'[')) if known.get().starts_with('[') => *self = Self::List(List::of(known)),
                _ => {}
            }
        }
        match (self, first) {
            (Self::Object(object), Some(b'{')) => object.take(&fields(later), &[], depth),
            (Self::List(list), Some(b'[')) => list.take(later, depth),
            (this, _) => *this = Self::Json(later.get().to_owned()),
        }
    }

    fn is_text(&self) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Json(json) => json.starts_with('"'),
            _ => false,
        }
    }

    /// Appends a piece to a text.
    fn append(&mut self, piece: &str) {
        if let Self::Json(json) = self {
            *self = Self::Text(raw(json).map(text).unwrap_or_default().into_owned());
        }
        if let Self::Text(known) = self {
            known.push_str(piece);
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Json(json) => out.push_str(json),
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::Object(object) => object.write(out),
            Self::List(list) => list.write(out),
        }
    }
}

impl List {
    fn of(raw: &RawValue) -> Self {
        let elements = list(raw).into_iter().map(|one| Value::Json(one.get().to_owned())).collect();
        Self { elements, pieces: 1, taken: raw.get().len() }
    }

    /// Takes the next elements; the pieces of a block become one element.
    fn take(&mut self, later: &RawValue, depth: usize) {
        // Some providers repeat the whole list at the end.
        if self.pieces > 1 && later.get().len() >= self.taken / AGAIN_PART {
            let mut known = String::new();
            self.write(&mut known);
            if known == later.get() {
                return;
            }
        }
        self.pieces += 1;
        self.taken += later.get().len();
        for next in list(later) {
            let piece = fields(next);
            match self.elements.last_mut().and_then(|last| last.continued_by(&piece)) {
                Some(block) => block.take(&piece, &BLOCK_TEXTS, depth),
                None => self.elements.push(Value::Json(next.get().to_owned())),
            }
        }
    }

    fn write(&self, out: &mut String) {
        out.push('[');
        for (n, element) in self.elements.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            element.write(out);
        }
        out.push(']');
    }
}

impl Value {
    /// Returns this block if a piece continues it: both have one kind, number and text, and the first has no signature.
    fn continued_by(&mut self, piece: &RawFields<'_>) -> Option<&mut Object> {
        if let Self::Json(json) = self {
            let block = raw(json).filter(|raw| raw.get().starts_with('{')).map(Object::of)?;
            if !goes_on(&block, piece) {
                return None;
            }
            *self = Self::Object(block);
        }
        match self {
            Self::Object(block) if goes_on(block, piece) => Some(block),
            _ => None,
        }
    }
}

/// Returns whether a list is a piece of a block, which can be like the piece before it: "ha", "ha".
fn is_open(raw: &RawValue) -> bool {
    let [only] = list(raw)[..] else { return false };
    only.get().starts_with('{') && goes_on(&Object::of(only), &fields(only))
}

fn goes_on(block: &Object, piece: &RawFields<'_>) -> bool {
    let known = |name: &str| match block.get(name)? {
        Value::Json(json) => Some(Cow::Borrowed(json.as_str())).filter(|json| json != "null"),
        // The value grows, so it is present, and is equal to no other.
        Value::Text(_) | Value::Object(_) | Value::List(_) => Some(Cow::Borrowed("")),
    };
    let next = |name: &str| {
        let found = piece.iter().find(|(known, _)| known == name).map(|(_, raw)| raw.get());
        found.filter(|json| *json != "null")
    };
    let alike = |name: &str| match (known(name), next(name)) {
        (Some(known), Some(next)) => known == next,
        _ => true,
    };
    let is_signed = known("signature").is_some_and(|signature| signature != "\"\"");
    known("type").is_some_and(|kind| next("type") == Some(kind.as_ref()))
        && ["index", "id", "format"].iter().all(|name| alike(name))
        && BLOCK_TEXTS.iter().any(|name| known(name).is_some())
        && (BLOCK_TEXTS.iter().any(|name| next(name).is_some()) || next("signature").is_some())
        && !is_signed
}

fn raw(json: &str) -> Option<&RawValue> {
    serde_json::from_str(json).ok()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_together(pieces: &[&str]) -> Option<String> {
        let mut opaque = OpaqueFields::default();
        for piece in pieces {
            let raw: &RawValue = serde_json::from_str(piece).unwrap();
            opaque.take(&fields(raw));
        }
        opaque.text(None)
    }

    #[test]
    fn opaque_fields_are_returned_byte_for_byte() {
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
    fn streamed_opaque_fields_are_joined_by_kind() {
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

    #[test]
    fn unstreamed_reasoning_stays_as_written() {
        for whole in [r#"{"reasoning_content":"I see \/ \u00e9 \ud83e"}"#, r#"{"reasoning":""}"#] {
            assert_eq!(put_together(&[whole]).as_deref(), Some(whole));
        }
        assert_eq!(
            put_together(&[r#"{"reasoning":"\u00e9"}"#, r#"{"reasoning":null}"#, r#"{"reasoning":"a"}"#]).as_deref(),
            Some(r#"{"reasoning":"éa"}"#)
        );
    }

    #[test]
    fn a_list_repeated_at_the_end_is_kept_once() {
        let piece = |text: &str| format!(r#"{{"d":[{{"type":"reasoning.text","text":"{text}","index":0}}]}}"#);
        let (first, then, whole) = (piece("one "), piece("two"), piece("one two"));
        assert_eq!(put_together(&[&first, &then, &whole]).as_deref(), Some(whole.as_str()));
        assert_eq!(put_together(&[&piece("ha"), &piece("ha")]), Some(piece("haha")), "two pieces that are alike");
    }

    #[test]
    fn values_are_merged_to_a_depth_that_is_bounded() {
        let deep = |inner: &str| format!(r#"{{"x":{}{inner}{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        assert_eq!(put_together(&[&deep("1"), &deep("2")]), Some(deep("2")), "the later one counts");
        let deep = |inner: &str| format!(r#"{{"x":{}{inner}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(put_together(&[&deep("1"), &deep("2")]).is_some());
        assert_eq!(
            put_together(&[r#"{"x":{"a":{"b":{"c":1}}}}"#, r#"{"x":{"a":{"b":{"d":2}}}}"#]).as_deref(),
            Some(r#"{"x":{"a":{"b":{"c":1,"d":2}}}}"#)
        );
    }

    #[test]
    fn pieces_are_joined_in_linear_time() {
        // Many pieces of a block, of an object and of a list take minutes if each piece copies the ones before it.
        let mut opaque = OpaqueFields::default();
        for n in 0..30_000 {
            let piece = format!(
                r#"{{"reasoning_details":[{{"type":"reasoning.text","text":"word ","index":0}}],"list":[{n}],"o":{{"f{n}":{n},"t":"{n}"}}}}"#
            );
            opaque.take(&fields(serde_json::from_str(&piece).unwrap()));
        }
        let whole: serde_json::Value = serde_json::from_str(&opaque.text(None).unwrap()).unwrap();
        assert_eq!(whole["reasoning_details"][0]["text"].as_str().unwrap().len(), 150_000);
        assert_eq!((whole["list"].as_array().unwrap().len(), &whole["list"][29_999]), (30_000, &29_999.into()));
        assert_eq!(whole["o"].as_object().unwrap().len(), FIELDS_MAX);
        assert_eq!(whole["o"]["t"], "29999");
    }
}
