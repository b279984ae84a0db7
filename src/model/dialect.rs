//! How gateways differ in the requests that they take, learnt from their refusals.
//!
//! Contract: a request goes out in the common form first. A refusal that names a field which can be said otherwise, or left out,
//! has it sent again that way at once, and every later request to this gateway for this model begins with it. What is learnt is
//! kept in memory alone; it costs one refused request a process to learn it again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// Models of which a gateway's dialect is remembered; beyond it, all is learnt anew.
const MODELS_MAX: usize = 1_000;

/// The form of requests that a gateway takes for a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// The limit of tokens bears its new name.
    pub max_completion_tokens: bool,
    /// Usage can't be asked for.
    pub no_stream_options: bool,
    /// The model knows no system message: its text goes to the head of the first user's message.
    pub has_no_system: bool,
}

impl Dialect {
    /// The dialect after a refusal with this status and body. `None`: it says nothing that could be said otherwise.
    pub fn after(self, status: u16, body: &[u8]) -> Option<Self> {
        if !matches!(status, 400 | 404 | 422 | 500) {
            return None;
        }
        let body = String::from_utf8_lossy(body).to_lowercase();
        let is_refused = |name: &str| {
            const WORDS: [&str; 10] = [
                "unsupported",
                "not supported",
                "not permitted",
                "not allowed",
                "unexpected",
                "unknown",
                "unrecognized",
                "unrecognised",
                "extra_forbidden",
                "deprecated",
            ];
            body.contains(name) && WORDS.iter().any(|word| body.contains(word))
        };
        let mut next = self;
        if body.contains("max_completion_tokens") || is_refused("max_tokens") {
            // A gateway that knows only the old name is taken at its word, too.
            let wants_old =
                self.max_completion_tokens && is_refused("max_completion_tokens") && !body.contains("max_tokens");
            next.max_completion_tokens = !wants_old;
        }
        next.no_stream_options |= is_refused("stream_options") || is_refused("include_usage");
        let no_system = ["system role not supported", "developer instruction is not enabled", "role 'system'"];
        let names_system = is_refused("system role") || is_refused("system message") || is_refused("role: system");
        next.has_no_system |= names_system || no_system.iter().any(|words| body.contains(words));
        // With the same body, 500 speaks of the moment.
        (next != self && (status != 500 || next.has_no_system)).then_some(next)
    }
}

/// The dialects of a gateway's models, shared by its clones.
#[derive(Clone, Default)]
pub(super) struct Dialects(Arc<Mutex<HashMap<String, Dialect>>>);

impl Dialects {
    pub fn of(&self, model: &str) -> Dialect {
        self.0.lock().expect("no panic happens under this lock").get(model).copied().unwrap_or_default()
    }

    pub fn learn(&self, model: &str, dialect: Dialect) {
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
    fn a_refusal_tells_what_to_say_otherwise() {
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
            assert_eq!(plain.after(status, body.as_bytes()), expected, "{body}");
        }
        assert_eq!(
            new_name.after(400, b"use max_completion_tokens, max_tokens is not supported"),
            None,
            "once is enough"
        );
        assert_eq!(new_name.after(400, b"Unrecognized request argument: max_completion_tokens"), Some(plain));
    }
}
