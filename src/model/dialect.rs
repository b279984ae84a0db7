//! Differences between gateways in the requests that they accept, learnt from their refusals.
//!
//! Contract: a request goes out in the common form first. After a refusal that names a field with an alternative form,
//! or one that can be left out, the request is sent again that way at once, and every later request to this gateway for
//! this model begins with it. Dialects are kept in memory alone; learning one again costs one refused request a
//! process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// The number of models whose dialects a gateway remembers; beyond it, all are learnt anew.
const MODELS_MAX: usize = 1_000;

/// The form of requests that a gateway accepts for a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// The token limit has its new name.
    pub max_completion_tokens: bool,
    /// Usage can't be requested.
    pub no_stream_options: bool,
    /// The model has no system message: its text goes to the head of the first user's message.
    pub has_no_system: bool,
    /// Fields of a reply are not given back.
    pub no_opaque: bool,
    /// `no_opaque` holds for this request alone: the gateway knows the fields, but rejects values of another model or
    /// time.
    pub is_opaque_spoilt: bool,
    /// The model takes no tools.
    pub no_tools: bool,
    /// Ids of calls are nine letters and digits.
    pub short_ids: bool,
}

/// The parts of a request that a refusal may name.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestParts {
    /// Fields of replies that are given back, in lower case.
    pub given_back: Vec<String>,
    /// The request offers tools or holds calls.
    pub has_tools: bool,
    pub has_calls: bool,
}

/// Words that refuse a field or a feature that is named beside them.
const REFUSED: [&str; 19] = [
    "unsupported",
    "not supported",
    "n't supported",
    "not support",
    "n't support",
    "not permitted",
    "not allowed",
    "unexpected",
    "unknown",
    "unrecognized",
    "unrecognised",
    "no such field",
    "cannot find field",
    "extra_forbidden",
    "extra fields",
    "extra inputs",
    "additional properties",
    "additionalproperties",
    "deprecated",
];
/// Words that refuse the value of a field.
const SPOILT: [&str; 6] = ["invalid", "not valid", "corrupted", "expired", "mismatch", "does not match"];
/// Words that demand a field.
const WANTED: [&str; 4] = ["missing", "is required", "must be passed back", "must be provided"];
/// Words for the system message.
const SYSTEM: [&str; 9] = [
    "system role",
    "system message",
    "role: system",
    "role 'system'",
    "'system'",
    "\"system\"",
    "`system`",
    "system prompt",
    "developer instruction is not enabled",
];
/// The refusals of a model without tools.
const NO_TOOLS: [&str; 20] = [
    "not support tool",
    "n't support tool",
    "not support the tools",
    "not support function",
    "n't support function",
    "not support native tool",
    "found that support tool",
    "tool use is not supported",
    "tool use not supported",
    "tool use is unsupported",
    "tool calling is not supported",
    "tool calls are not supported",
    "function calling is not supported",
    "function calling is not enabled",
    "tools are not supported",
    "tools is not supported",
    "'tools' is not supported",
    "'tools' is unsupported",
    "parameter: 'tools'",
    "enable-auto-tool-choice",
];

impl Dialect {
    /// Returns the dialect after a refusal, from its status and body and the fields of the request.
    ///
    /// `None`: the refusal names nothing that has an alternative form.
    pub fn after(self, status: u16, body: &[u8], sent: &RequestParts) -> Option<Self> {
        if !matches!(status, 400 | 404 | 422 | 500) {
            return None;
        }
        // Quotes are escaped in a text within JSON.
        let body = String::from_utf8_lossy(body).to_lowercase().replace('\\', "");
        let says = |words: &[&str]| words.iter().any(|word| body.contains(word));
        let is_refused = |name: &str| body.contains(name) && says(&REFUSED);
        let mut next = self;
        if body.contains("max_completion_tokens") || is_refused("max_tokens") {
            // A gateway that knows only the old name is believed, too.
            let wants_old =
                self.max_completion_tokens && is_refused("max_completion_tokens") && !body.contains("max_tokens");
            next.max_completion_tokens = !wants_old;
        }
        next.no_stream_options |= is_refused("stream_options") || is_refused("include_usage");
        next.has_no_system |= says(&SYSTEM) && (says(&REFUSED) || says(&["not enabled"]));
        next.no_tools |= sent.has_tools && says(&NO_TOOLS);
        next.short_ids |=
            sent.has_calls && (says(&["length of 9"]) || (says(&["tool call id"]) && says(&["must be a-z"])));
        if sent.given_back.iter().any(|name| names(&body, name)) {
            if self.no_opaque && says(&WANTED) {
                (next.no_opaque, next.is_opaque_spoilt) = (false, false);
            } else if !self.no_opaque && says(&REFUSED) {
                next.no_opaque = true;
            } else if !self.no_opaque && says(&SPOILT) && !says(&WANTED) {
                (next.no_opaque, next.is_opaque_spoilt) = (true, true);
            }
        }
        // With the same body, 500 reports a passing failure.
        (next != self && (status != 500 || next.has_no_system)).then_some(next)
    }
}

/// Returns whether a text names a field: in quotes, or as the end of a path.
fn names(text: &str, field: &str) -> bool {
    text.match_indices(field).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + field.len()..].chars().next();
        matches!(before, Some('\'' | '"' | '`' | '.'))
            && !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    })
}

/// The dialects of a gateway's models, shared by its clones.
#[derive(Clone, Default)]
pub(super) struct Dialects(Arc<Mutex<HashMap<String, Dialect>>>);

impl Dialects {
    pub fn of(&self, model: &str) -> Dialect {
        self.0.lock().expect("no panic happens under this lock").get(model).copied().unwrap_or_default()
    }

    /// Keeps the dialect that later requests begin with.
    pub fn learn(&self, model: &str, dialect: Dialect) {
        let no_opaque = dialect.no_opaque && !dialect.is_opaque_spoilt;
        let dialect = Dialect { no_opaque, is_opaque_spoilt: false, ..dialect };
        let mut known = self.0.lock().expect("no panic happens under this lock");
        if known.len() >= MODELS_MAX {
            known.clear();
        }
        known.insert(model.to_owned(), dialect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_selects_the_next_dialect() {
        let plain = Dialect::default();
        let new_name = Dialect { max_completion_tokens: true, ..plain };
        let no_usage = Dialect { no_stream_options: true, ..plain };
        let no_system = Dialect { has_no_system: true, ..plain };
        for (status, body, expected) in [
            (
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                Some(new_name),
            ),
            (400, r#"{"error":{"param":"max_tokens","code":"unsupported_parameter"}}"#, Some(new_name)),
            (422, r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}"#, Some(no_usage)),
            (400, "System role not supported", Some(no_system)),
            (400, "Developer instruction is not enabled for models/gemma-3", Some(no_system)),
            (400, "max_tokens is too large: 8192. This model supports at most 4096 completion tokens", None),
            (400, "messages: roles must alternate", None),
            (401, "max_completion_tokens", None),
            (500, "unsupported max_tokens", None),
        ] {
            assert_eq!(plain.after(status, body.as_bytes(), &RequestParts::default()), expected, "{body}");
        }
        assert_eq!(
            new_name.after(400, b"use max_completion_tokens, max_tokens is not supported", &RequestParts::default()),
            None,
            "once is enough"
        );
        assert_eq!(
            new_name.after(400, b"Unrecognized request argument: max_completion_tokens", &RequestParts::default()),
            Some(plain)
        );
    }

    #[test]
    fn refusals_of_the_system_role_are_recognised() {
        for body in [
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "This model doesn't support system messages. Try again without a system message.",
            r#"{"error":{"message":"messages[0].role does not support \"system\" here"}}"#,
            "System prompts are not supported by this model",
        ] {
            let next = Dialect::default().after(400, body.as_bytes(), &RequestParts::default());
            assert!(next.is_some_and(|next| next.has_no_system), "{body}");
        }
        assert_eq!(
            Dialect::default().after(400, b"the system message must come first", &RequestParts::default()),
            None
        );
    }

    #[test]
    fn refusals_of_tools_and_of_call_ids_are_recognised() {
        let sent = RequestParts { has_tools: true, has_calls: true, ..RequestParts::default() };
        let plain = Dialect::default();
        for (status, body) in [
            (400, "registry.example/m does not support tools"),
            (404, "No endpoints found that support tool use. To learn more about provider routing, visit"),
            (400, "This model doesn't support tool use in streaming mode."),
            (400, "'auto' tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"),
            (422, "Function calling is not enabled for models/x"),
        ] {
            let no_tools = Some(Dialect { no_tools: true, ..plain });
            assert_eq!(plain.after(status, body.as_bytes(), &sent), no_tools, "{body}");
            assert_eq!(plain.after(status, body.as_bytes(), &RequestParts::default()), None, "there are none: {body}");
        }
        let schema = b"Invalid JSON payload received. Unknown name 'x' at 'tools[0].function_declarations[0]': Cannot find field.";
        assert_eq!(plain.after(400, schema, &sent), None);
        let ids = b"Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.";
        assert_eq!(plain.after(400, ids, &sent), Some(Dialect { short_ids: true, ..plain }));
    }

    #[test]
    fn a_refused_returned_field_is_left_out() {
        let sent = |names: &[&str]| RequestParts {
            given_back: names.iter().map(|n| (*n).into()).collect(),
            ..RequestParts::default()
        };
        let plain = Dialect::default();
        let without = Dialect { no_opaque: true, ..plain };
        for body in [
            r#"{"error":{"message":"'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property 'reasoning' is unsupported)]"}}"#,
            r#"{"message":"messages.2.assistant.reasoning: property is unsupported"}"#,
            r#"{"detail":[{"type":"extra_forbidden","loc":["body","messages",2,"assistant","reasoning"],"msg":"Extra inputs are not permitted"}]}"#,
            r#"{"error":{"message":"Unknown parameter: 'messages[2].reasoning'."}}"#,
            r#"{"error":{"message":"Additional properties are not allowed (\"reasoning\" was unexpected)"}}"#,
        ] {
            assert_eq!(plain.after(400, body.as_bytes(), &sent(&["reasoning", "x"])), Some(without), "{body}");
            assert_eq!(plain.after(422, body.as_bytes(), &sent(&["reasoning_content"])), None, "not given: {body}");
            assert_eq!(without.after(400, body.as_bytes(), &sent(&["reasoning"])), None, "once: {body}");
        }
        let models = b"'temperature' is not supported with reasoning models";
        assert_eq!(plain.after(400, models, &sent(&["reasoning"])), None, "a word is no field");
        // A rejected value concerns this request alone, and a gateway that wants a field back gets it.
        let spoilt =
            plain.after(400, b"messages.1.content.0: Invalid `signature` in `thinking` block", &sent(&["signature"]));
        assert_eq!(spoilt, Some(Dialect { no_opaque: true, is_opaque_spoilt: true, ..plain }));
        let dialects = Dialects::default();
        dialects.learn("m", spoilt.unwrap());
        assert_eq!(dialects.of("m"), plain);
        dialects.learn("m", without);
        assert_eq!(dialects.of("m"), without);
        let missing = b"Function call is missing a `thought_signature`";
        assert_eq!(without.after(400, missing, &sent(&["thought_signature"])), Some(plain));
        assert_eq!(plain.after(400, missing, &sent(&["thought_signature"])), None);
    }
}
