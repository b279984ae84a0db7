//! What auditors are not shown: arguments of tools that an operator named.

use serde_json::Value;

use crate::{
    domain::{
        Event,
        event::{CallRequested, Prompt},
    },
    wire::stored,
};

/// What stands in the place of an argument.
const HIDDEN: &str = "[redacted]";

/// Arguments that are not shown: the tool's name or `*`, and the argument's.
#[derive(Clone, Debug, Default)]
pub struct Redaction(Vec<(String, String)>);

impl Redaction {
    pub fn new(rules: Vec<(String, String)>) -> Self {
        Self(rules)
    }

    /// The event as it may be shown. A call's description, which quotes its arguments, is hidden with them.
    pub fn event(&self, event: Event) -> Event {
        match event {
            Event::TurnModelReplied(mut e) => {
                e.calls.iter_mut().for_each(|call| self.call(call));
                Event::TurnModelReplied(e)
            }
            Event::TurnParked(mut e) => {
                match &mut e.prompt {
                    Prompt::Approval { tool, arguments, description, .. } => {
                        if self.hide(tool, arguments) {
                            *description = HIDDEN.into();
                        }
                    }
                    Prompt::Interaction { tool, arguments, .. } => drop(self.hide(tool, arguments)),
                }
                Event::TurnParked(e)
            }
            event => event,
        }
    }

    /// The payload of an event of this stored name as it may be shown; one that can't be read is shown as it is.
    pub fn payload(&self, kind: &str, payload: Value) -> Value {
        if self.0.is_empty() {
            return payload;
        }
        match stored::decode_payload(kind, payload.to_string().as_bytes()) {
            Ok(event @ (Event::TurnModelReplied(_) | Event::TurnParked(_))) => {
                let shown = stored::encode_payload(&self.event(event));
                serde_json::from_slice(&shown).expect("an event's payload is JSON")
            }
            _ => payload,
        }
    }

    fn call(&self, call: &mut CallRequested) {
        if self.hide(&call.name, &mut call.arguments) {
            call.description = HIDDEN.into();
        }
    }

    /// Hides arguments in the model's text. True: something was hidden. Text that is no JSON object is hidden whole where a
    /// rule is on the tool, for nobody knows what is in it.
    fn hide(&self, tool: &str, arguments: &mut String) -> bool {
        let mut names =
            self.0.iter().filter(|(of, _)| of == "*" || of == tool).map(|(_, name)| name.as_str()).peekable();
        if names.peek().is_none() {
            return false;
        }
        let Ok(Value::Object(mut given)) = serde_json::from_str(arguments) else {
            *arguments = HIDDEN.into();
            return true;
        };
        let mut hidden = false;
        for name in names {
            if let Some(value) = given.get_mut(name) {
                *value = HIDDEN.into();
                hidden = true;
            }
        }
        if hidden {
            *arguments = Value::Object(given).to_string();
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_names_is_hidden_and_nothing_else() {
        let rules = [("charge", "card"), ("*", "password")].map(|(tool, name)| (tool.to_string(), name.to_string()));
        let redaction = Redaction::new(rules.into());
        let hide = |tool, arguments: &str| {
            let mut arguments = arguments.to_string();
            (redaction.hide(tool, &mut arguments), arguments)
        };
        assert_eq!(hide("charge", r#"{"card":"4111","sum":5}"#), (true, r#"{"card":"[redacted]","sum":5}"#.into()));
        assert_eq!(hide("log_in", r#"{"password":{"a":1}}"#), (true, r#"{"password":"[redacted]"}"#.into()));
        for shown in [r#"{ "card": "4111" }"#, r#"{"name":"password"}"#] {
            assert_eq!(hide("look_up", shown), (false, shown.into()));
        }
        assert_eq!(hide("charge", "4111"), (true, "[redacted]".into()));
    }
}
