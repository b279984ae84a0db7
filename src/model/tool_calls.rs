//! Assembles tool calls from their fragments.
//!
//! Contract: fragments belong together by their index, or by their id where there is no index. Gateways number calls
//! inconsistently, so a fragment with a name begins a new call where the previous call under its index differs: another
//! id, another name, or arguments that are complete already. A call that is sent twice is one call; two calls with ids
//! of their own are two, however much they are alike.

use serde_json::Value;

use super::{chunk::CallFragment, messages::ToolCall, opaque::OpaqueFields};

/// The longest text that is checked for being a placeholder, `{}` with blanks.
const PLACEHOLDER_MAX_BYTES: usize = 64;
/// The factor by which the same arguments may shrink without their blanks and escapes.
const AGAIN_PART: usize = 16;

/// The calls of a reply so far.
#[derive(Default)]
pub(super) struct ToolCallBuilder(Vec<PartialCall>);

#[derive(Default)]
struct PartialCall {
    index: u32,
    id: String,
    name: String,
    arguments: Arguments,
    opaque: OpaqueFields,
    function_opaque: OpaqueFields,
}

impl ToolCallBuilder {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a fragment; returns the number of its bytes that are kept.
    pub fn take(&mut self, fragment: &CallFragment<'_>) -> usize {
        let CallFragment { id, name, arguments, .. } = fragment;
        let at = match fragment.index {
            Some(index) => self.0.iter().rposition(|call| call.index == index),
            None if !id.is_empty() => {
                self.0.iter().rposition(|call| call.id == **id).or_else(|| self.0.len().checked_sub(1))
            }
            None => self.0.len().checked_sub(1),
        };
        let at = at.filter(|at| !self.0[*at].is_followed_by(fragment)).unwrap_or_else(|| {
            let last = self.0.iter().map(|call| call.index).max();
            let next = last.map_or(0, |last| last.saturating_add(1));
            self.0.push(PartialCall { index: fragment.index.unwrap_or(next), ..PartialCall::default() });
            self.0.len() - 1
        });
        let opaque = self.0[at].take(fragment);
        id.len() + name.len() + arguments.len() + opaque
    }

    /// Returns the calls in the model's order. A call without a name can't be made and is left out.
    pub fn whole(self) -> Vec<ToolCall> {
        let mut calls = self.0;
        calls.sort_by_key(|call| call.index);
        let mut whole: Vec<ToolCall> = Vec::new();
        for call in calls {
            if call.name.trim().is_empty() {
                tracing::warn!(id = call.id, "a tool call without a name is left out");
                continue;
            }
            let is_again = |known: &ToolCall| {
                !call.id.is_empty()
                    && known.id == call.id
                    && known.name == call.name
                    && is_same(&known.arguments, &call.arguments.text)
            };
            if !whole.iter().any(is_again) {
                whole.push(call.whole());
            }
        }
        whole
    }
}

impl PartialCall {
    /// Returns whether a fragment under this call's index belongs to another call.
    fn is_followed_by(&self, next: &CallFragment<'_>) -> bool {
        if next.name.is_empty() || self.name.is_empty() {
            return false;
        }
        // The id alone proves nothing: some gateways make a new one for every fragment.
        let has_other_id = !next.id.is_empty() && !self.id.is_empty() && self.id != next.id;
        has_other_id || self.name != next.name || (is_object(&next.arguments) && self.is_whole_without(next))
    }

    /// Returns whether the call is complete, and this fragment holds arguments other than its own.
    fn is_whole_without(&self, next: &CallFragment<'_>) -> bool {
        let known = &self.arguments;
        known.is_closed() && !known.is_placeholder() && !known.is_again(&next.arguments) && is_object(&known.text)
    }

    fn take(&mut self, fragment: &CallFragment<'_>) -> usize {
        fill_once(&mut self.id, &fragment.id);
        fill_once(&mut self.name, &fragment.name);
        let new = &fragment.arguments;
        if self.arguments.is_placeholder() && new.trim_start().starts_with('{') {
            // The placeholder stood for arguments that were still to come.
            self.arguments = Arguments::default();
        }
        if !self.arguments.is_again(new) {
            self.arguments.push(new);
        }
        self.opaque.take(&fragment.opaque) + self.function_opaque.take(&fragment.function_opaque)
    }

    fn whole(self) -> ToolCall {
        let Self { index, mut id, name, arguments: Arguments { text: mut arguments, .. }, opaque, function_opaque } =
            self;
        if id.trim().is_empty() {
            id = format!("call_{index}_{:016x}", rand::random::<u64>());
        }
        if arguments.trim().is_empty() {
            arguments = "{}".to_owned();
        }
        let opaque = opaque.text(function_opaque.text(None).map(|function| ("function", function)));
        ToolCall { id, name, arguments, opaque }
    }
}

/// The text of a call's arguments so far, with the state of its brackets, so that a fragment costs its own size.
#[derive(Default)]
struct Arguments {
    text: String,
    depth: usize,
    in_text: bool,
    is_escaped: bool,
    has_begun: bool,
    /// Text follows the outermost closing bracket.
    has_more: bool,
}

impl Arguments {
    fn push(&mut self, piece: &str) {
        for byte in piece.bytes() {
            if self.is_escaped {
                self.is_escaped = false;
            } else if self.in_text {
                (self.in_text, self.is_escaped) = (byte != b'"', byte == b'\\');
            } else if !byte.is_ascii_whitespace() {
                self.has_more |= self.has_begun && self.depth == 0;
                self.has_begun = true;
                match byte {
                    b'"' => self.in_text = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        self.text.push_str(piece);
    }

    /// Returns whether the text may be a complete object: its outermost bracket is closed, and nothing follows.
    fn is_closed(&self) -> bool {
        self.has_begun && self.depth == 0 && !self.in_text && !self.has_more && self.text.trim_start().starts_with('{')
    }

    fn is_placeholder(&self) -> bool {
        self.text.len() < PLACEHOLDER_MAX_BYTES && self.text.trim() == "{}"
    }

    /// Returns whether a fragment repeats all of the arguments.
    fn is_again(&self, piece: &str) -> bool {
        // A much shorter text can't be the same.
        self.is_closed()
            && piece.len() >= self.text.len() / AGAIN_PART
            && is_object(piece)
            && is_object(&self.text)
            && is_same(&self.text, piece)
    }
}

fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{') && serde_json::from_str::<Value>(json).is_ok_and(|value| value.is_object())
}

/// Returns whether two texts are the same JSON.
fn is_same(a: &str, b: &str) -> bool {
    let value = |json: &str| serde_json::from_str::<Value>(json).ok();
    a == b || value(a).is_some_and(|a| value(b) == Some(a))
}

fn fill_once(slot: &mut String, value: &str) {
    if slot.is_empty() {
        slot.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::chunk::CompletionChunk, *};

    fn assembled(fragments: &[&str]) -> Vec<(String, String)> {
        let mut calls = ToolCallBuilder::default();
        for fragment in fragments {
            let json = format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{fragment}]}}}}]}}"#);
            let chunk = CompletionChunk::parse(json.as_bytes()).unwrap();
            for fragment in &chunk.choice.calls {
                calls.take(fragment);
            }
        }
        calls.whole().into_iter().map(|call| (call.name, call.arguments)).collect()
    }

    fn expect(fragments: &[&str], calls: &[(&str, &str)]) {
        let seen = assembled(fragments);
        let seen: Vec<_> = seen.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str())).collect();
        assert_eq!(seen, calls, "{fragments:?}");
    }

    #[test]
    fn two_calls_under_one_index_are_told_apart_without_ids() {
        let a = r#"{"index":0,"function":{"name":"a","arguments":"{\"n\":1}"}}"#;
        let b = r#"{"index":0,"function":{"name":"b","arguments":"{}"}}"#;
        let again = r#"{"index":0,"function":{"name":"a","arguments":"{\"n\":2}"}}"#;
        expect(&[a, b], &[("a", "{\"n\":1}"), ("b", "{}")]);
        expect(&[a, again], &[("a", "{\"n\":1}"), ("a", "{\"n\":2}")]);
        expect(
            &[b, r#"{"index":0,"function":{"name":"a"}}"#, r#"{"index":0,"function":{"arguments":"{\"x\":1}"}}"#],
            &[("b", "{}"), ("a", "{\"x\":1}")],
        );
        expect(
            &[
                r#"{"index":0,"function":{"name":"f","arguments":"{\"n\""}}"#,
                r#"{"index":0,"function":{"name":"f","arguments":":1}"}}"#,
            ],
            &[("f", "{\"n\":1}")],
        );
    }

    #[test]
    fn a_repeated_call_is_one_call() {
        let once = r#"{"index":0,"id":"c1","function":{"name":"pay","arguments":"{\"sum\":5}"}}"#;
        expect(&[once, once], &[("pay", "{\"sum\":5}")]);
        expect(
            &[once, r#"{"index":1,"id":"c1","function":{"name":"pay","arguments":{"sum": 5}}}"#],
            &[("pay", "{\"sum\":5}")],
        );
        expect(&[once, r#"{"id":"c1","function":{"name":"pay","arguments":{"sum":5}}}"#], &[("pay", "{\"sum\":5}")]);
        let nameless = r#"{"index":0,"function":{"arguments":"{\"sum\":5}"}}"#;
        expect(&[once, nameless], &[("pay", "{\"sum\":5}")]);
        let other = r#"{"index":0,"id":"c2","function":{"name":"pay","arguments":"{\"sum\":5}"}}"#;
        expect(&[once, other], &[("pay", "{\"sum\":5}"), ("pay", "{\"sum\":5}")]);
    }

    #[test]
    fn a_placeholder_gives_way_to_the_arguments() {
        let head = r#"{"index":0,"id":"c1","function":{"name":"f","arguments":"{}"}}"#;
        expect(
            &[
                head,
                r#"{"index":0,"function":{"arguments":"{\"a\""}}"#,
                r#"{"index":0,"function":{"arguments":":1}"}}"#,
            ],
            &[("f", "{\"a\":1}")],
        );
        expect(&[head, r#"{"index":0,"id":"c1","function":{"name":"f","arguments":{"a":1}}}"#], &[("f", "{\"a\":1}")]);
        expect(&[r#"{"index":0,"id":"c1","function":{"name":"f","arguments":{}}}"#], &[("f", "{}")]);
    }

    #[test]
    fn a_nameless_call_drops_only_itself() {
        expect(
            &[
                r#"{"index":0,"id":"c1","function":{"arguments":"{}"}}"#,
                r#"{"index":1,"id":"c2","function":{"name":"f"}}"#,
            ],
            &[("f", "{}")],
        );
        expect(&[r#"{"index":0,"id":5,"name":"f","arguments":{"a":1}}"#], &[("f", "{\"a\":1}")]);
    }

    #[test]
    fn fragments_are_parsed_in_linear_time() {
        // Takes hours if each fragment parses the fragments before it: texts, and objects within a list.
        for (piece, end) in [("\\\"x", "\"]}"), ("{}", "0]}"), (",{}", "]}")] {
            let begin = if piece.starts_with('\\') { "{\"a\":[\"" } else { "{\"a\":[0" };
            let mut calls = ToolCallBuilder::default();
            let take = |calls: &mut ToolCallBuilder, arguments: &str| {
                let (name, arguments) = ("f".into(), arguments.to_owned().into());
                calls.take(&CallFragment { index: Some(0), name, arguments, ..CallFragment::default() });
            };
            take(&mut calls, begin);
            (0..50_000).for_each(|_| take(&mut calls, piece));
            take(&mut calls, end);
            let whole = calls.whole();
            assert_eq!((whole.len(), whole[0].arguments.len()), (1, begin.len() + 50_000 * piece.len() + end.len()));
        }
    }
}
