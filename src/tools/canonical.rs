//! The canonical form of a call's arguments: the tool gets the same text that a person is shown.
//!
//! Models repeat keys, and parsers differ in which one counts. So the model's text is parsed once, the last value of a
//! key counts, keys are sorted, and every text that is sent or shown is made from that. Numbers keep their digits: a
//! long order number must not be rounded.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::domain::title::is_hidden;

/// The deepest nesting that is accepted, the same as in common parsers.
const DEPTH_MAX: usize = 100;
/// Characters besides letters, digits and spaces that need no quotes in a description: none could pass for the next
/// field.
const PLAIN: &str = "-_.@/+#%&'?!";

/// A JSON value with its numbers as they were written.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// `null`, `true`, `false`, or a number.
    Word(String),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

/// The arguments of a call, with sorted keys.
#[derive(Clone, Debug, PartialEq)]
pub struct CanonicalArguments(BTreeMap<String, Node>);

impl CanonicalArguments {
    /// Parses a model's text; blank text means no arguments. `None`: the text is not a JSON object.
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text.trim().is_empty() { "{}" } else { text };
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        match node(raw, DEPTH_MAX)? {
            Node::Map(map) => Some(Self(map)),
            _ => None,
        }
    }

    /// Returns the canonical text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        write_map(&self.0, &mut text);
        text
    }

    /// Returns whether every integer has few enough digits for parsers that hold numbers in 64 bits.
    pub fn is_exact(&self) -> bool {
        self.0.values().all(Node::is_exact)
    }

    /// Returns each field in words: its name and its whole value.
    fn fields(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, value)| {
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            let name = if is_name { name.replace(['_', '-'], " ") } else { quoted(name) };
            format!("{name} {}", value.words())
        })
    }
}

impl Node {
    fn is_exact(&self) -> bool {
        match self {
            Self::Word(word) => {
                let is_whole = word.bytes().all(|b| b.is_ascii_digit() || b == b'-');
                !is_whole || word.parse::<i64>().is_ok() || word.parse::<u64>().is_ok()
            }
            Self::Text(_) => true,
            Self::List(list) => list.iter().all(Self::is_exact),
            Self::Map(map) => map.values().all(Self::is_exact),
        }
    }

    fn words(&self) -> String {
        let is_plain = |text: &str| {
            !text.is_empty()
                && text.trim() == text
                && text.chars().all(|c| c.is_alphanumeric() || c == ' ' || PLAIN.contains(c))
        };
        match self {
            Self::Text(text) if is_plain(text) => text.clone(),
            Self::Text(text) => quoted(text),
            other => {
                let mut text = String::new();
                write(other, &mut text);
                visible(&text)
            }
        }
    }
}

/// Describes a call in words for a visitor: the tool, and all of its arguments with their whole values.
///
/// Hidden characters are shown by their code point, and a text that could pass for more than one field is quoted.
pub fn describe(tool: &str, arguments: &str) -> String {
    let words = visible(&tool.replace(['_', '-'], " "));
    let mut letters = words.chars();
    let title: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let fields: Vec<String> =
        CanonicalArguments::parse(arguments).iter().flat_map(|arguments| arguments.fields()).collect();
    if fields.is_empty() { title } else { format!("{title}: {}", fields.join(", ")) }
}

fn quoted(text: &str) -> String {
    visible(&serde_json::Value::from(text).to_string())
}

/// Returns a text with its hidden characters escaped.
fn visible(text: &str) -> String {
    let shown = text.chars().map(|c| match is_hidden(c) {
        true => format!("\\u{{{:x}}}", u32::from(c)),
        false => c.to_string(),
    });
    shown.collect()
}

fn node(raw: &RawValue, depth: usize) -> Option<Node> {
    let text = raw.get().trim();
    let depth = depth.checked_sub(1)?;
    Some(match text.as_bytes().first()? {
        b'{' => {
            let map: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            Node::Map(map.into_iter().map(|(name, raw)| Some((name, node(raw, depth)?))).collect::<Option<_>>()?)
        }
        b'[' => {
            let list: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Node::List(list.into_iter().map(|raw| node(raw, depth)).collect::<Option<_>>()?)
        }
        b'"' => Node::Text(serde_json::from_str(text).ok()?),
        _ => Node::Word(text.into()),
    })
}

fn write(node: &Node, out: &mut String) {
    match node {
        Node::Word(word) => out.push_str(word),
        Node::Text(text) => out.push_str(&serde_json::Value::from(text.as_str()).to_string()),
        Node::List(list) => {
            out.push('[');
            for (n, item) in list.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Node::Map(map) => write_map(map, out),
    }
}

fn write_map(map: &BTreeMap<String, Node>, out: &mut String) {
    out.push('{');
    for (n, (name, value)) in map.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(name.as_str()).to_string());
        out.push(':');
        write(value, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(arguments: &str) -> Option<String> {
        CanonicalArguments::parse(arguments).map(|arguments| arguments.text())
    }

    #[test]
    fn equal_arguments_have_one_canonical_form() {
        for (written, canonical) in [
            ("", Some("{}")),
            (r#" { "b" : 1.50 , "a" : [ 1 , "x" ] } "#, Some(r#"{"a":[1,"x"],"b":1.50}"#)),
            (r#"{"amount":5,"amount":5000}"#, Some(r#"{"amount":5000}"#)),
            (r#"{"amount":5,"\u0061mount":6,"x":{"y":1,"y":2}}"#, Some(r#"{"amount":6,"x":{"y":2}}"#)),
            (r#"{"order":12345678901234567890123}"#, Some(r#"{"order":12345678901234567890123}"#)),
            ("[1]", None),
            ("not json", None),
            (r#"{"a":1} {"a":2}"#, None),
        ] {
            assert_eq!(text(written).as_deref(), canonical, "{written}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(text(&deep), None);
    }

    #[test]
    fn a_call_is_described_in_words() {
        assert_eq!(describe("issue_refund", r#"{"order_id":"ORD-1234"}"#), "Issue refund: order id ORD-1234");
        assert_eq!(describe("restart", "not json"), "Restart");
        assert_eq!(describe("pay", r#"{"sum":5,"sum":5000}"#), "Pay: sum 5000");
    }

    #[test]
    fn a_description_hides_no_argument() {
        let long = "x".repeat(5_000);
        let said = describe("send", &serde_json::json!({ "text": format!("{long} END") }).to_string());
        assert!(said.ends_with("x END"), "{said}");
        let said = describe("pay", r#"{"note":"a\u202eb\nc\u200b","to":"Ann, sum 1","sum":9}"#);
        assert_eq!(said, r#"Pay: note "a\u{202e}b\nc\u{200b}", sum 9, to "Ann, sum 1""#);
        let said = describe("pay", r#"{"sum 1, to":"Bob","x\u2066":{"k\u0007":"\u2028"}}"#);
        assert!(!said.contains(is_hidden), "{said:?}");
        assert!(said.contains(r#""sum 1, to" Bob"#), "{said}");
    }
}
