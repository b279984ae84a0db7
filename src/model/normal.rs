//! The normal form of a prompt, which every back end takes.
//!
//! Contract of [`messages`], a pure function: at most one system message, first; then a user's message, and no two of a
//! user or of an assistant in a row, results of tools aside; after an assistant's calls a result of each, in their
//! order, and no other result anywhere; arguments are the text of a JSON object; names and ids are legal; no content is
//! blank. A prompt in this form already is not changed.

use std::borrow::Cow;

use serde_json::Value;

use super::messages::{ChatMessage, ToolCall};

/// The text between two user messages of which the first one was not answered: its turn failed or was stopped.
///
/// Joining them would have the model answer a message that the visitor has taken back.
const NOT_ANSWERED: &str = "(This message was not answered.)";
/// The text of an empty result.
const NO_RESULT: &str = "(no output)";
/// The text of a missing result.
const UNKNOWN_RESULT: &str = "Error: The outcome of this call is not known.";
/// The longest name of a tool that models' interfaces take.
const NAME_MAX_CHARS: usize = 64;

/// Returns the messages in normal form. `has_no_system`: the model has no system message.
pub(super) fn messages(given: &[ChatMessage], has_no_system: bool) -> Vec<ChatMessage> {
    let is_system = |message: &&ChatMessage| matches!(message, ChatMessage::System(_));
    let system: Vec<&str> = given
        .iter()
        .filter(is_system)
        .map(|message| match message {
            ChatMessage::System(text) => text.trim(),
            _ => "",
        })
        .filter(|text| !text.is_empty())
        .collect();
    let mut normal = Vec::new();
    let mut rest = given.iter().filter(|message| !is_system(message)).peekable();
    while let Some(message) = rest.next() {
        match message {
            // A result that belongs to no call before it.
            ChatMessage::System(_) | ChatMessage::Tool { .. } => {}
            ChatMessage::User(text) if is_blank(text) => {}
            ChatMessage::Picture { text, images } if is_blank(text) && images.is_empty() => {}
            ChatMessage::User(_) | ChatMessage::Picture { .. } => {
                if normal.last().is_some_and(is_user) {
                    normal.push(said(NOT_ANSWERED));
                }
                normal.push(message.clone());
            }
            ChatMessage::Assistant { text, tool_calls, .. } if is_blank(text) && tool_calls.is_empty() => {}
            // Messages before the first user message have lost their beginning.
            ChatMessage::Assistant { .. } if normal.is_empty() => {}
            ChatMessage::Assistant { text, tool_calls, opaque } => {
                let results = std::iter::from_fn(|| rest.next_if(|next| matches!(next, ChatMessage::Tool { .. })));
                let results: Vec<&ChatMessage> = results.collect();
                let text = if is_blank(text) { String::new() } else { text.clone() };
                let tool_calls: Vec<ToolCall> = tool_calls.iter().map(call).collect();
                let answers: Vec<ChatMessage> = tool_calls.iter().map(|call| result(&call.id, &results)).collect();
                push_assistant(&mut normal, text, tool_calls, opaque.clone());
                normal.extend(answers);
            }
        }
    }
    with_system(normal, system.join("\n\n"), has_no_system)
}

/// Appends an assistant's message; after another one without calls, the two are joined.
fn push_assistant(normal: &mut Vec<ChatMessage>, text: String, tool_calls: Vec<ToolCall>, opaque: Option<String>) {
    match normal.last_mut() {
        Some(ChatMessage::Assistant { text: before, tool_calls: calls, opaque: own }) if calls.is_empty() => {
            if !text.is_empty() {
                let gap = if before.is_empty() { "" } else { "\n\n" };
                before.push_str(&format!("{gap}{text}"));
            }
            *calls = tool_calls;
            *own = opaque.or(own.take());
        }
        _ => normal.push(ChatMessage::Assistant { text, tool_calls, opaque }),
    }
}

fn with_system(mut normal: Vec<ChatMessage>, system: String, has_no_system: bool) -> Vec<ChatMessage> {
    if system.is_empty() {
        return normal;
    }
    match normal.first_mut().filter(|_| has_no_system) {
        Some(ChatMessage::User(text) | ChatMessage::Picture { text, .. }) => *text = format!("{system}\n\n{text}"),
        _ if has_no_system => normal.insert(0, ChatMessage::User(system)),
        _ => normal.insert(0, ChatMessage::System(system)),
    }
    normal
}

fn said(text: &str) -> ChatMessage {
    ChatMessage::Assistant { text: text.into(), tool_calls: vec![], opaque: None }
}

fn is_user(message: &ChatMessage) -> bool {
    matches!(message, ChatMessage::User(_) | ChatMessage::Picture { .. })
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn call(call: &ToolCall) -> ToolCall {
    let is_object = serde_json::from_str::<Value>(&call.arguments).is_ok_and(|value| value.is_object());
    let arguments = if is_object { call.arguments.clone() } else { "{}".into() };
    ToolCall {
        name: legal(&call.name).into_owned(),
        id: id(&call.id).into_owned(),
        arguments,
        opaque: call.opaque.clone(),
    }
}

/// Returns the result of a call.
fn result(call: &str, results: &[&ChatMessage]) -> ChatMessage {
    let content = results.iter().find_map(|result| match result {
        ChatMessage::Tool { call_id, content } if id(call_id) == call => Some(content.as_str()),
        _ => None,
    });
    let content = match content {
        Some(content) if is_blank(content) => NO_RESULT,
        Some(content) => content,
        None => UNKNOWN_RESULT,
    };
    ChatMessage::Tool { call_id: call.into(), content: content.into() }
}

fn id(id: &str) -> Cow<'_, str> {
    if is_blank(id) { Cow::Borrowed("call") } else { Cow::Borrowed(id) }
}

/// Returns a name in the letters that interfaces take: models invent others.
fn legal(name: &str) -> Cow<'_, str> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= NAME_MAX_CHARS && name.chars().all(is_legal) {
        return Cow::Borrowed(name);
    }
    let legal: String = name.chars().map(|c| if is_legal(c) { c } else { '_' }).take(NAME_MAX_CHARS).collect();
    Cow::Owned(if legal.is_empty() { "unnamed".into() } else { legal })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(text: &str) -> ChatMessage {
        ChatMessage::User(text.into())
    }

    fn asks(calls: &[(&str, &str, &str)]) -> ChatMessage {
        let calls = calls.iter().map(|(id, name, arguments)| ToolCall {
            id: id.to_string(),
            name: name.to_string(),
            arguments: arguments.to_string(),
            opaque: None,
        });
        ChatMessage::Assistant { text: " ".into(), tool_calls: calls.collect(), opaque: None }
    }

    fn returns(call: &str, content: &str) -> ChatMessage {
        ChatMessage::Tool { call_id: call.into(), content: content.into() }
    }

    /// A prompt in short: `s:`, `u:`, `a:`, with `[id name arguments]` of each call, and `t:id=content`.
    fn short(messages: &[ChatMessage]) -> Vec<String> {
        let one = |message: &ChatMessage| match message {
            ChatMessage::System(text) => format!("s:{text}"),
            ChatMessage::User(text) => format!("u:{text}"),
            ChatMessage::Picture { text, .. } => format!("p:{text}"),
            ChatMessage::Assistant { text, tool_calls, .. } => {
                let calls = tool_calls.iter().map(|call| format!("[{} {} {}]", call.id, call.name, call.arguments));
                format!("a:{text}{}", calls.collect::<String>())
            }
            ChatMessage::Tool { call_id, content } => format!("t:{call_id}={content}"),
        };
        messages.iter().map(one).collect()
    }

    #[test]
    fn one_system_message_stands_first() {
        let given = [
            ChatMessage::System("be kind".into()),
            user("a"),
            ChatMessage::System(" ".into()),
            said("b"),
            ChatMessage::System("know this\n".into()),
            user("c"),
        ];
        assert_eq!(short(&messages(&given, false)), ["s:be kind\n\nknow this", "u:a", "a:b", "u:c"]);
        assert_eq!(short(&messages(&given, true)), ["u:be kind\n\nknow this\n\na", "a:b", "u:c"]);
    }

    #[test]
    fn roles_alternate_after_turns_that_were_not_answered() {
        let given = [said("lost"), user("a"), user(" "), user("b"), said("c"), said(""), said("d"), user("e")];
        assert_eq!(
            short(&messages(&given, false)),
            ["u:a", "a:(This message was not answered.)", "u:b", "a:c\n\nd", "u:e"]
        );
    }

    #[test]
    fn calls_have_results_and_results_have_calls() {
        let given = [
            user("a"),
            returns("stray", "x"),
            asks(&[("1", "f", "{\"a\":1}"), ("2", "get weather", "[1]"), ("3", "", "cut{")]),
            returns("2", " "),
            returns("9", "of no call"),
            returns("1", "one"),
        ];
        assert_eq!(
            short(&messages(&given, false)),
            [
                "u:a",
                "a:[1 f {\"a\":1}][2 get_weather {}][3 unnamed {}]",
                "t:1=one",
                "t:2=(no output)",
                "t:3=Error: The outcome of this call is not known.",
            ]
        );
    }

    fn any_message() -> impl Strategy<Value = ChatMessage> {
        let text = || prop_oneof![Just(String::new()), Just(" \n".to_owned()), "[a-c]{1,3}"];
        let id = || prop_oneof![Just(String::new()), "[1-3]"];
        let arguments = prop_oneof![Just("{}".to_owned()), Just("{\"a\":".to_owned()), Just("null".to_owned())];
        let call = (id(), "[a-c. é]{0,70}", arguments);
        let call = call.prop_map(|(id, name, arguments)| ToolCall { id, name, arguments, opaque: None });
        prop_oneof![
            text().prop_map(ChatMessage::System),
            text().prop_map(ChatMessage::User),
            (text(), prop::collection::vec(call, 0..3)).prop_map(|(text, tool_calls)| ChatMessage::Assistant {
                text,
                tool_calls,
                opaque: None
            }),
            (id(), text()).prop_map(|(call_id, content)| ChatMessage::Tool { call_id, content }),
        ]
    }

    /// Rejects requests that the big providers refuse.
    fn check(messages: &[ChatMessage]) -> Result<(), TestCaseError> {
        let mut expected: Vec<&str> = Vec::new();
        let mut last = 's';
        for (n, message) in messages.iter().enumerate() {
            let is_result = matches!(message, ChatMessage::Tool { .. });
            prop_assert!(is_result || expected.is_empty(), "a call has no result");
            match message {
                ChatMessage::System(text) => prop_assert!(n == 0 && !is_blank(text)),
                ChatMessage::User(text) => {
                    prop_assert!(last != 'u' && !is_blank(text));
                    last = 'u';
                }
                ChatMessage::Picture { .. } => unreachable!("there is none"),
                ChatMessage::Assistant { text, tool_calls, .. } => {
                    prop_assert!(matches!(last, 'u' | 't') && !(is_blank(text) && tool_calls.is_empty()));
                    prop_assert!(text.is_empty() || !is_blank(text));
                    for call in tool_calls {
                        prop_assert!(!call.id.is_empty() && !call.name.is_empty() && call.name.len() <= 64);
                        prop_assert!(call.name.is_ascii() && !call.name.contains(['.', ' ']));
                        prop_assert!(serde_json::from_str::<Value>(&call.arguments).unwrap().is_object());
                    }
                    expected = tool_calls.iter().map(|call| call.id.as_str()).collect();
                    last = 'a';
                }
                ChatMessage::Tool { call_id, content } => {
                    prop_assert!(!expected.is_empty() && expected.remove(0) == call_id && !is_blank(content));
                    last = 't';
                }
            }
        }
        prop_assert!(expected.is_empty(), "a call has no result");
        Ok(())
    }

    proptest! {
        #[test]
        fn any_conversation_becomes_a_valid_request(given in prop::collection::vec(any_message(), 0..12)) {
            for has_no_system in [false, true] {
                let normal = messages(&given, has_no_system);
                check(&normal)?;
                prop_assert!(!has_no_system || !normal.iter().any(|message| matches!(message, ChatMessage::System(_))));
            }
            let normal = messages(&given, false);
            prop_assert_eq!(short(&messages(&normal, false)), short(&normal), "once is enough");
        }
    }
}
