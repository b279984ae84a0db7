//! Repairs JSON with common defects.
//!
//! Contract: [`values`] splits values that stand one after the other; [`mended`] replaces numbers that JSON does not
//! have by `null`, and escapes raw control characters in strings. Neither changes valid JSON; both look at each byte
//! once.

/// Splits a text of several values, with `data:` or nothing between them. `None`: the text holds at most one value.
pub(super) fn values(json: &[u8]) -> Option<Vec<&[u8]>> {
    let mut all = Vec::new();
    let mut rest = between(json);
    while !rest.is_empty() {
        let end = end_of_first(rest);
        all.push(&rest[..end]);
        rest = between(&rest[end..]);
    }
    (all.len() > 1).then_some(all)
}

/// Returns the rest after the gap between two values.
fn between(mut json: &[u8]) -> &[u8] {
    loop {
        let trimmed = json.trim_ascii_start();
        let trimmed = trimmed.strip_prefix(b"data:").unwrap_or(trimmed);
        if trimmed.len() == json.len() {
            return json;
        }
        json = trimmed;
    }
}

/// Returns the end of the first value: that of the whole text if the value is not closed, or begins with no bracket.
fn end_of_first(json: &[u8]) -> usize {
    if !matches!(json.first(), Some(b'{' | b'[')) {
        return json.len();
    }
    let mut depth = 0usize;
    let mut texts = Texts::default();
    for (at, byte) in json.iter().enumerate() {
        if texts.holds(*byte) {
            continue;
        }
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    json.len()
}

/// Replaces everything in the text that JSON does not have. `None`: nothing had to be replaced.
pub(super) fn mended(json: &[u8]) -> Option<Vec<u8>> {
    const NUMBERS: [&[u8]; 4] = [b"-Infinity", b"Infinity", b"NaN", b"nan"];
    let mut out = Vec::with_capacity(json.len());
    let mut texts = Texts::default();
    let (mut at, mut is_changed) = (0, false);
    while at < json.len() {
        let byte = json[at];
        if texts.holds(byte) {
            if byte < b' ' {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                is_changed = true;
            } else {
                out.push(byte);
            }
        } else if let Some(number) = NUMBERS.iter().find(|number| json[at..].starts_with(number)) {
            out.extend_from_slice(b"null");
            at += number.len() - 1;
            is_changed = true;
        } else {
            out.push(byte);
        }
        at += 1;
    }
    is_changed.then_some(out)
}

/// Tracks the strings of a JSON value, byte by byte.
#[derive(Default)]
struct Texts {
    is_open: bool,
    is_escaped: bool,
}

impl Texts {
    /// Returns whether a byte is within a string, its quotes included.
    fn holds(&mut self, byte: u8) -> bool {
        let was_open = self.is_open;
        if self.is_escaped {
            self.is_escaped = false;
        } else if byte == b'"' {
            self.is_open = !self.is_open;
        } else {
            self.is_escaped = self.is_open && byte == b'\\';
        }
        was_open || self.is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_where_they_end() {
        let cut = |json: &str| -> Option<Vec<String>> {
            let values = values(json.as_bytes())?;
            Some(values.into_iter().map(|value| String::from_utf8(value.to_vec()).unwrap()).collect())
        };
        let two = Some(vec![r#"{"a":"}{\""}"#.to_owned(), "{}".to_owned()]);
        for json in [r#"{"a":"}{\""}{}"#, r#" {"a":"}{\""}data: {}"#, "{\"a\":\"}{\\\"\"}\n\ndata: data:{}\n"] {
            assert_eq!(cut(json), two, "{json}");
        }
        assert_eq!(cut("{}[DONE]"), Some(vec!["{}".into(), "[DONE]".into()]));
        assert_eq!(cut("{}{\"a\":"), Some(vec!["{}".into(), "{\"a\":".into()]));
        for one in ["", "{}", "ping", "{\"a\":[1]}", "{\"a\"", "}{"] {
            assert_eq!(cut(one), None, "{one}");
        }
    }

    #[test]
    fn only_malformed_json_is_repaired() {
        let mend = |json: &str| mended(json.as_bytes()).map(|json| String::from_utf8(json).unwrap());
        assert_eq!(mend(r#"{"a":NaN,"b":-Infinity,"c":"NaN"}"#).as_deref(), Some(r#"{"a":null,"b":null,"c":"NaN"}"#));
        assert_eq!(mend("{\"a\":\"x\ty\u{1}\\\"\n\"}").as_deref(), Some(r#"{"a":"x\u0009y\u0001\"\u000a"}"#));
        assert_eq!(mend("{\n\t\"a\": \"é\"}"), None);
    }
}
