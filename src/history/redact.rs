//! Redaction: arguments of tools that an operator named are hidden from auditors, wherever they are repeated.
//!
//! A name matches at any depth of the arguments, also within texts that are JSON themselves, and in a tool's result. A hidden
//! value is hidden in every later text of its conversation: models and tools repeat the values they were given.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::domain::{
    Event,
    elicitation::Elicitation,
    event::{CallRequested, Prompt},
};

/// The replacement of a hidden value.
const HIDDEN: &str = "[redacted]";
/// Shortest value searched for in texts: shorter ones are found in everything.
const VALUE_MIN_CHARS: usize = 4;
/// Values remembered a conversation, and the depth to which arguments are searched.
const VALUES_MAX: usize = 1_000;
const DEPTH_MAX: usize = 64;

/// The hidden arguments: a tool's name or `*`, and an argument's name.
#[derive(Clone, Debug, Default)]
pub struct Redaction(Vec<(String, String)>);

/// Values hidden in a conversation so far.
pub type HiddenValues = BTreeSet<String>;

impl Redaction {
    pub fn new(rules: Vec<(String, String)>) -> Self {
        Self(rules)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Redacts an event.
    ///
    /// The description of a call quotes the call's arguments, so both are hidden together.
    pub fn event(&self, event: Event, known: &mut HiddenValues) -> Event {
        if self.is_empty() {
            return event;
        }
        let before = event.clone();
        let mut event = self.arguments(event, known);
        texts(&mut event, |text| scrub(text, known));
        // Frames are cut out of the texts by byte offsets, which no longer fit.
        if event != before {
            event.empty_shown();
        }
        event
    }

    fn arguments(&self, event: Event, known: &mut HiddenValues) -> Event {
        match event {
            Event::TurnModelReplied(mut e) => {
                e.calls.iter_mut().for_each(|call| self.call(call, known));
                Event::TurnModelReplied(e)
            }
            Event::TurnParked(mut e) => {
                match &mut e.prompt {
                    Prompt::Approval { tool, arguments, description, .. } => {
                        if self.hide(tool, arguments, known) {
                            *description = HIDDEN.into();
                        }
                    }
                    Prompt::Interaction { tool, arguments, .. } => drop(self.hide(tool, arguments, known)),
                    Prompt::Elicitation { .. } | Prompt::Task { .. } => {}
                }
                e.elicited.iter_mut().for_each(|elicited| self.elicited("*", elicited, known));
                Event::TurnParked(e)
            }
            Event::TurnResumed(mut e) => {
                self.values("*", e.values.as_mut(), known);
                Event::TurnResumed(e)
            }
            Event::TurnToolReturned(mut e) => {
                let names = self.names(&e.name);
                if let Ok(mut result) = serde_json::from_str(&e.result)
                    && hide_in(&mut result, &names, known, DEPTH_MAX)
                {
                    e.result = result.to_string();
                }
                self.values(&e.name, e.values.as_mut(), known);
                if let Some(waiting) = &mut e.waiting {
                    self.hide(&waiting.tool, &mut waiting.arguments, known);
                    self.elicited(&waiting.tool, &mut waiting.elicited, known);
                }
                Event::TurnToolReturned(e)
            }
            event => event,
        }
    }

    fn call(&self, call: &mut CallRequested, known: &mut HiddenValues) {
        if self.hide(&call.name, &mut call.arguments, known) {
            call.description = HIDDEN.into();
        }
    }

    /// A server's state may hold whatever its tool was given, in a form of its own.
    fn elicited(&self, tool: &str, elicited: &mut Elicitation, known: &mut HiddenValues) {
        elicited.request_state.iter_mut().for_each(|state| *state = HIDDEN.into());
        let answers = elicited.questions.iter_mut().filter_map(|question| question.answer.as_mut());
        answers.for_each(|answer| self.values(tool, answer.values.as_mut(), known));
    }

    /// Hides the values that a person entered into fields with the name of an argument.
    fn values(&self, tool: &str, values: Option<&mut Map<String, Value>>, known: &mut HiddenValues) {
        if let Some(values) = values {
            let mut all = Value::Object(std::mem::take(values));
            hide_in(&mut all, &self.names(tool), known, DEPTH_MAX);
            if let Value::Object(all) = all {
                *values = all;
            }
        }
    }

    /// The names that are hidden in a tool's arguments.
    fn names(&self, tool: &str) -> Vec<&str> {
        self.0.iter().filter(|(of, _)| of == "*" || of == tool).map(|(_, name)| name.as_str()).collect()
    }

    /// Hides arguments in the model's text, and returns true if any was hidden.
    ///
    /// Text that is not a JSON object is hidden whole where a rule matches the tool, as its content is unknown.
    fn hide(&self, tool: &str, arguments: &mut String, known: &mut HiddenValues) -> bool {
        let names = self.names(tool);
        if names.is_empty() {
            return false;
        }
        let Ok(mut given @ Value::Object(_)) = serde_json::from_str(arguments) else {
            *arguments = HIDDEN.into();
            return true;
        };
        let hidden = hide_in(&mut given, &names, known, DEPTH_MAX);
        if hidden {
            *arguments = given.to_string();
        }
        hidden
    }
}

/// Hides the values under these names, at any depth. Values nested too deep are hidden whole.
fn hide_in(value: &mut Value, names: &[&str], known: &mut HiddenValues, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        *value = HIDDEN.into();
        return true;
    };
    match value {
        Value::Object(map) => {
            let mut hidden = false;
            for (name, value) in map.iter_mut() {
                if names.contains(&name.as_str()) {
                    remember(value, known, depth);
                    *value = HIDDEN.into();
                    hidden = true;
                } else {
                    hidden |= hide_in(value, names, known, depth);
                }
            }
            hidden
        }
        Value::Array(list) => list.iter_mut().fold(false, |hidden, value| hide_in(value, names, known, depth) | hidden),
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
            let Ok(mut inner) = serde_json::from_str(text) else { return false };
            let hidden = hide_in(&mut inner, names, known, depth);
            if hidden {
                *text = inner.to_string();
            }
            hidden
        }
        _ => false,
    }
}

/// Remembers the texts and numbers in a hidden value.
fn remember(value: &Value, known: &mut HiddenValues, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::String(text) => keep(text.trim().to_string(), known),
        Value::Number(number) => keep(number.to_string(), known),
        Value::Array(list) => list.iter().for_each(|value| remember(value, known, depth)),
        Value::Object(map) => map.values().for_each(|value| remember(value, known, depth)),
        Value::Null | Value::Bool(_) => {}
    }
}

fn keep(text: String, known: &mut HiddenValues) {
    if text.chars().count() >= VALUE_MIN_CHARS && known.len() < VALUES_MAX {
        known.insert(text);
    }
}

/// Hides values in a text, longer ones first.
fn scrub(text: &mut String, known: &HiddenValues) {
    let mut found: Vec<&String> = known.iter().filter(|value| text.contains(value.as_str())).collect();
    found.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in found {
        *text = text.replace(value.as_str(), HIDDEN);
    }
}

/// Applies a change to all texts by a model, a tool or a person, except messages that a visitor wrote unprompted.
fn texts(event: &mut Event, change: impl Fn(&mut String)) {
    match event {
        Event::TurnModelReplied(e) => {
            change(&mut e.text);
            e.preamble.iter_mut().chain(&mut e.opaque).for_each(&change);
            for call in &mut e.calls {
                change(&mut call.arguments);
                change(&mut call.description);
                call.opaque.iter_mut().for_each(&change);
            }
        }
        Event::TurnToolReturned(e) => {
            change(&mut e.result);
            if let Some(waiting) = &mut e.waiting {
                change(&mut waiting.arguments);
                waiting.elicited.questions.iter_mut().for_each(|question| change(&mut question.message));
            }
        }
        Event::TurnParked(e) => {
            let questions = e.elicited.iter_mut().flat_map(|elicited| &mut elicited.questions);
            questions.for_each(|question| change(&mut question.message));
            match &mut e.prompt {
                Prompt::Approval { arguments, description, .. } => {
                    change(arguments);
                    change(description);
                }
                Prompt::Interaction { arguments, .. } => change(arguments),
                Prompt::Elicitation { reason, .. } => change(reason),
                Prompt::Task { .. } => {}
            }
        }
        Event::TurnCompleted(e) => {
            let response = &mut e.response;
            response.response_parts.iter_mut().chain(&mut response.suggested_next_actions).for_each(&change);
            change(&mut response.request_summary);
            e.preamble.iter_mut().for_each(&change);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction() -> Redaction {
        let rules = [("charge", "card"), ("*", "password")].map(|(tool, name)| (tool.to_string(), name.to_string()));
        Redaction::new(rules.into())
    }

    #[test]
    fn a_rule_hides_only_the_values_that_it_names() {
        let hide = |tool, arguments: &str| {
            let mut arguments = arguments.to_string();
            (redaction().hide(tool, &mut arguments, &mut HiddenValues::new()), arguments)
        };
        assert_eq!(hide("charge", r#"{"card":"4111","sum":5}"#), (true, r#"{"card":"[redacted]","sum":5}"#.into()));
        assert_eq!(hide("log_in", r#"{"password":{"a":1}}"#), (true, r#"{"password":"[redacted]"}"#.into()));
        for shown in [r#"{ "card": "4111" }"#, r#"{"name":"password"}"#] {
            assert_eq!(hide("look_up", shown), (false, shown.into()));
        }
        assert_eq!(hide("charge", "4111"), (true, "[redacted]".into()));
        for nested in [
            r#"{"pay":{"with":[{"card":"4111 1111"}]}}"#,
            r#"{"body":"{\"x\":{\"card\":\"4111 1111\"}}"}"#,
            r#"{"card":["4111 1111",{"a":"4111 1111"}]}"#,
        ] {
            let (hidden, text) = hide("charge", nested);
            assert!(hidden && !text.contains("4111"), "{text}");
        }
        let deep = format!(r#"{{"a":{}"card"{}}}"#, r#"{"a":"#.repeat(90), "}".repeat(90));
        assert!(hide("charge", &deep).0, "values below the depth limit are hidden");
    }

    #[test]
    fn a_hidden_value_is_hidden_in_later_text_too() {
        let mut known = HiddenValues::new();
        let mut arguments = r#"{"x":{"card":"4111 1111","cvc":12}}"#.to_string();
        redaction().hide("charge", &mut arguments, &mut known);
        let mut text = "I have charged 4111 1111 now.".to_string();
        scrub(&mut text, &known);
        assert_eq!(text, "I have charged [redacted] now.");
    }
}
