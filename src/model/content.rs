//! The content of a message: a string, or parts of which some hold text.
//!
//! Contract: parts are read to a fixed depth, for the parser of raw values sets none; deeper parts are ignored. A
//! refusal among the parts counts as if it stood beside the content.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::raw::{NullableText, fields, get, list};

/// The deepest nesting of parts; providers use two levels.
const DEPTH_MAX: usize = 8;

/// The text of a content, by its kind.
#[derive(Default)]
pub(super) struct ContentText<'a> {
    pub text: Cow<'a, str>,
    pub thought: Cow<'a, str>,
    pub refusal: Cow<'a, str>,
}

/// Reads a content.
pub(super) fn said(raw: &RawValue) -> ContentText<'_> {
    if !matches!(raw.get().as_bytes().first(), Some(b'[' | b'{')) {
        return ContentText { text: text(raw), ..ContentText::default() };
    }
    let mut all = ContentText::default();
    add(raw, DEPTH_MAX, PartKind::Text, &mut all);
    all
}

#[derive(Clone, Copy)]
enum PartKind {
    Text,
    Thought,
    Refusal,
}

/// Adds the texts of a value, which are of this kind unless the value names another.
fn add(raw: &RawValue, depth: usize, kind: PartKind, all: &mut ContentText<'_>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let parts = match raw.get().as_bytes().first() {
        Some(b'[') => list(raw),
        Some(b'{') => vec![raw],
        _ => {
            let to = match kind {
                PartKind::Text => &mut all.text,
                PartKind::Thought => &mut all.thought,
                PartKind::Refusal => &mut all.refusal,
            };
            to.to_mut().push_str(&text(raw));
            return;
        }
    };
    for part in parts {
        if part.get().starts_with('"') {
            add(part, depth, kind, all);
            continue;
        }
        let part = fields(part);
        let named = get(&part, "type").map(text).unwrap_or_default();
        let own = match kind {
            PartKind::Text if named.contains("think") || named.contains("reason") => PartKind::Thought,
            PartKind::Text if named == "refusal" => PartKind::Refusal,
            kind => kind,
        };
        for name in ["text", "refusal", "thinking", "content"] {
            let Some(value) = get(&part, name) else { continue };
            let own = if name == "refusal" && matches!(own, PartKind::Text) { PartKind::Refusal } else { own };
            add(value, depth, own, all);
        }
    }
}

/// Returns a value as text: a string's content, nothing for `null`, `true` and `false`, the JSON of any other value.
pub(super) fn text(raw: &RawValue) -> Cow<'_, str> {
    match raw.get().as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<NullableText<'_>>(raw.get()) {
            Ok(text) => text.0,
            Err(_) => Cow::Owned(with_halves(raw.get())),
        },
        Some(b'n' | b't' | b'f') | None => Cow::default(),
        Some(_) => Cow::Borrowed(raw.get()),
    }
}

/// Returns the text of a JSON string with unpaired surrogate escapes.
fn with_halves(json: &str) -> String {
    let mut units: Vec<u16> = Vec::new();
    // Only the outer quotes are cut: an escaped quote may stand before the last one.
    let mut rest = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let escape = rest.strip_prefix("\\u").and_then(|hex| u16::from_str_radix(hex.get(..4)?, 16).ok());
        let (unit, taken) = match (escape, rest.get(..2)) {
            (Some(unit), _) => (vec![unit], 6),
            (None, Some("\\n")) => (vec![u16::from(b'\n')], 2),
            (None, Some("\\r")) => (vec![u16::from(b'\r')], 2),
            (None, Some("\\t")) => (vec![u16::from(b'\t')], 2),
            (None, Some(two)) if two.starts_with('\\') => (two[1..].encode_utf16().collect(), 2),
            _ => (c.to_string().encode_utf16().collect(), c.len_utf8()),
        };
        units.extend(unit);
        rest = &rest[taken..];
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> String {
        let ContentText { text, thought, refusal } = said(serde_json::from_str(json).unwrap());
        format!("{text}|{thought}|{refusal}")
    }

    #[test]
    fn content_nested_too_deep_is_ignored() {
        for (open, close) in [
            (r#"{"content":"#, "}"),
            ("[", "]"),
            (r#"[{"content":"#, "}]"),
            (r#"{"type":"text","text":"#, "}"),
            (r#"{"type":"thinking","thinking":["#, "]}"),
        ] {
            let deep = |levels: usize| format!("{}\"a\"{}", open.repeat(levels), close.repeat(levels));
            assert_eq!(read(&deep(200_000)), "||", "{open}");
            if open.starts_with('{') {
                assert!(read(&deep(2)).contains('a'), "{open}");
            }
        }
    }

    #[test]
    fn a_refusal_part_is_a_refusal() {
        assert_eq!(read(r#"[{"type":"refusal","refusal":"no"},{"type":"text","text":"a"}]"#), "a||no");
        assert_eq!(read(r#"[{"type":"refusal","text":"no"}]"#), "||no");
        assert_eq!(read(r#"{"type":"refusal","content":[{"type":"text","text":"no"}]}"#), "||no");
    }

    #[test]
    fn an_escaped_quote_at_the_end_stays() {
        assert_eq!(read(r#""\ud83e say \"so\"""#), "\u{fffd} say \"so\"||");
        assert_eq!(read(r#""\"\ud83e\\""#), "\"\u{fffd}\\||");
    }
}
