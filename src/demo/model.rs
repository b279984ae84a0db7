//! The demo model's answer: a pure function of the request.
//!
//! Contract: rules are tried in a fixed order, and the first that fits answers: tool results, an explicit `call NAME {…}`, a
//! refund, small talk, the passages, and last a self-introduction.

use super::passages;
use super::request::{CompletionRequest, PromptMessage, PromptRole, PromptToolFunction};
use super::words::{stems, words};
use serde_json::{Map, Value, json};

/// The refund tool of the demo documents.
const REFUND_TOOL: &str = "issue_refund";
/// The question for the order; a message after it is read as the order's id.
const WHICH_ORDER: &str = "I can issue a refund. Which order is it for? Please give me its id, for example ORD-1234.";
const ABOUT_ME: &str = "I am a small demo model without a gateway key. I can answer questions \
    from the documents that were ingested, for example “How long is your return window?”, and I \
    can call tools: try “Refund my order ORD-1234”, or “call TOOL_NAME {…}” for a tool of yours.";
/// The longest excerpt of a tool's result in an answer.
const RESULT_MAX_CHARS: usize = 600;
/// Longer messages are not small talk.
const SMALL_TALK_MAX_WORDS: usize = 5;

#[derive(Debug, PartialEq)]
pub enum DemoAnswer {
    Say(String),
    Call { name: String, arguments: String },
}

pub fn answer(request: &CompletionRequest) -> DemoAnswer {
    if let Some(said) = about_results(&request.messages) {
        return DemoAnswer::Say(said);
    }
    let text = request.last_user_text();
    explicit_call(request, text)
        .or_else(|| refund(request, text))
        .or_else(|| small_talk(text).map(DemoAnswer::Say))
        .or_else(|| passages::answer(request, text).map(DemoAnswer::Say))
        .unwrap_or_else(|| DemoAnswer::Say(ABOUT_ME.to_owned()))
}

/// Handles `call NAME {…}`, with which people try their own tools without a real model.
fn explicit_call(request: &CompletionRequest, text: &str) -> Option<DemoAnswer> {
    let lower = text.to_ascii_lowercase();
    let at = lower.match_indices("call ").map(|(at, _)| at).find(|at| {
        let before = lower[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    })?;
    let rest = text[at + "call ".len()..].trim_start();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
    let arguments = after.trim_start();
    let with_arguments = arguments.starts_with('{');
    if request.tool(name).is_none() {
        // "Call me later" is an ordinary sentence; only braces make it a call.
        return (with_arguments && !name.is_empty()).then(|| {
            let offered = request.tools.iter().map(|tool| tool.function.name.as_str());
            let offered: Vec<&str> = offered.collect();
            let offered = offered.join(", ");
            DemoAnswer::Say(format!("I am offered no tool “{name}”. I have: {offered}."))
        });
    }
    let mut values = serde_json::Deserializer::from_str(arguments).into_iter::<Value>();
    let arguments = match with_arguments.then(|| values.next()).flatten() {
        None => "{}".to_owned(),
        Some(Ok(value)) => value.to_string(),
        Some(Err(_)) => {
            let said = format!("The arguments after “{name}” are not valid JSON.");
            return Some(DemoAnswer::Say(said));
        }
    };
    Some(DemoAnswer::Call { name: name.to_owned(), arguments })
}

/// Handles a request for a refund: calls the tool, or asks for the order first.
fn refund(request: &CompletionRequest, text: &str) -> Option<DemoAnswer> {
    let tool = request.tool(REFUND_TOOL)?;
    let asked_before = request.messages.iter().rev();
    let mut asked_before = asked_before.filter(|m| m.role == PromptRole::Assistant);
    let was_asked = asked_before.next().is_some_and(|m| m.content == WHICH_ORDER);
    let about_refund = stems(text).contains("refund");
    let order = order_id(text);
    match (order, about_refund, was_asked) {
        (Some(order), true, _) | (Some(order), _, true) => {
            let arguments = refund_arguments(tool, &order, &reason(text));
            Some(DemoAnswer::Call { name: REFUND_TOOL.to_owned(), arguments: arguments.to_string() })
        }
        (None, true, _) if wants_refund(text) => Some(DemoAnswer::Say(WHICH_ORDER.to_owned())),
        _ => None,
    }
}

/// Returns true for "refund my order" and "I want a refund", and false for a question about refunds.
fn wants_refund(text: &str) -> bool {
    let all: Vec<String> = words(text).collect();
    let first = all.first().map(String::as_str);
    let questions = ["what", "how", "when", "which", "who", "why", "is", "are", "do", "does"];
    !first.is_some_and(|word| questions.contains(&word))
}

/// Returns the first word that looks like an order's id: letters and digits like `ORD-1234`, or a number after the word
/// "order".
fn order_id(text: &str) -> Option<String> {
    let mut after_order = false;
    for word in text.split_whitespace() {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
        let has_upper = word.bytes().any(|byte| byte.is_ascii_uppercase());
        let is_id = has_digit && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let letters_first = word.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_id && (after_order || (letters_first && (has_upper || word.contains('-')))) {
            return Some(word.to_owned());
        }
        after_order = matches!(word.to_ascii_lowercase().as_str(), "order" | "number" | "no" | "id" | "is" | "");
    }
    None
}

fn reason(text: &str) -> String {
    let given = text.split_once("because ").map(|(_, reason)| reason.trim());
    let given = given.map(|reason| reason.trim_end_matches(['.', '!']));
    match given {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ => "requested by the customer".to_owned(),
    }
}

/// Returns the arguments under the names in the tool's schema.
fn refund_arguments(tool: &PromptToolFunction, order: &str, reason: &str) -> Value {
    let Some(properties) = tool.parameters["properties"].as_object() else {
        return json!({"order_id": order, "reason": reason});
    };
    let named = |part: &str| {
        let mut names = properties.keys();
        names.find(|name| name.to_lowercase().contains(part))
    };
    let mut arguments = Map::new();
    let order_name = named("order").map_or("order_id", String::as_str);
    arguments.insert(order_name.to_owned(), json!(order));
    if let Some(name) = named("reason") {
        arguments.insert(name.clone(), json!(reason));
    }
    Value::Object(arguments)
}

fn small_talk(text: &str) -> Option<String> {
    let all: Vec<String> = words(text).collect();
    if all.len() > SMALL_TALK_MAX_WORDS {
        return None;
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let said = match all.as_slice() {
        ["who", "are", "you"] | ["what", "can", "you", "do"] | ["help"] => ABOUT_ME,
        ["hello" | "hi" | "hey", ..] | ["good", "morning" | "evening" | "afternoon", ..] => {
            "Hello! How can I help you?"
        }
        ["thanks", ..] | ["thank", "you", ..] => "You are welcome!",
        ["bye" | "goodbye", ..] => "Goodbye!",
        _ => return None,
    };
    Some(said.to_owned())
}

/// Describes the tool results at the end of the messages, if the messages end with any.
fn about_results(messages: &[PromptMessage]) -> Option<String> {
    let first = messages.iter().rposition(|m| m.role != PromptRole::Tool)? + 1;
    let said = messages[first..].iter().map(|result| {
        let calls = messages[..first].iter().rev().flat_map(|m| &m.tool_calls);
        let mut calls = calls.filter(|call| call.id == result.tool_call_id);
        let function = calls.next().map(|call| &call.function);
        let (name, arguments) = function.map_or(("", ""), |f| (&f.name, &f.arguments));
        about_result(name, arguments, result.content.trim())
    });
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| said.join(" "))
}

fn about_result(name: &str, arguments: &str, result: &str) -> String {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let order = find_text(&arguments, "order").map_or_else(String::new, |id| format!(" {id}"));
    match (ToolOutcome::of(result), name == REFUND_TOOL) {
        (ToolOutcome::Done(Some(fields)), true) => {
            let refund = find_text(&fields, "refund").or_else(|| find_text(&fields, "id"));
            let id = refund.map_or_else(String::new, |id| format!(" Its id is {id}."));
            format!("Done: the refund for order{order} was issued.{id}")
        }
        (ToolOutcome::Done(_), _) => format!("The tool “{name}” answered: {}", in_words(result)),
        (ToolOutcome::Rejected, true) => format!(
            "The refund for order{order} was not issued, because you did not approve it. \
             Is there anything else I can do?"
        ),
        (ToolOutcome::Rejected, false) => {
            format!("I did not use “{name}”, because you did not approve it.")
        }
        (ToolOutcome::Failed, true) => {
            format!("I am sorry, the refund for order{order} could not be confirmed: {}", in_words(result))
        }
        (ToolOutcome::Failed, false) => format!("The tool “{name}” failed: {}", in_words(result)),
    }
}

enum ToolOutcome {
    /// The fields, if the result is a JSON object.
    Done(Option<Value>),
    Rejected,
    Failed,
}

impl ToolOutcome {
    /// Parses a result as a model would, from its text: a tool message carries nothing else.
    fn of(result: &str) -> Self {
        let json: Value = serde_json::from_str(result).unwrap_or_default();
        let text = result.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let is_error = text.starts_with("error")
            || json["isError"] == true
            || json.get("error").is_some_and(|error| !error.is_null());
        // Successes are not searched, since a tool's own fields may hold these words too.
        if (is_error || !json.is_object())
            && says(&["reject", "declin", "denied", "not approve", "expired"])
            && says(&["user", "approv", "visitor", "human", "confirm"])
        {
            return Self::Rejected;
        }
        if is_error {
            return Self::Failed;
        }
        Self::Done(json.is_object().then_some(json))
    }
}

/// Finds a string or number under a key that begins with `part`, preferring a key with `id`.
fn find_text(json: &Value, part: &str) -> Option<String> {
    let matching = || {
        let fields = json.as_object().into_iter().flatten();
        let fields = fields.map(|(key, value)| (key.to_lowercase(), value));
        fields.filter(|(key, _)| key.starts_with(part))
    };
    let ids = matching().filter(|(key, _)| key.contains("id"));
    ids.chain(matching()).find_map(|(_, value)| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Formats a result as words: an object's fields one after the other, other text as it is.
fn in_words(result: &str) -> String {
    let text = match serde_json::from_str(result) {
        Ok(Value::Object(object)) => {
            let fields = object.iter().map(|(key, value)| match value {
                Value::String(text) => format!("{key}: {text}"),
                other => format!("{key}: {other}"),
            });
            fields.collect::<Vec<_>>().join(", ")
        }
        Ok(Value::String(text)) => text,
        _ => result.to_owned(),
    };
    text.chars().take(RESULT_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests;
