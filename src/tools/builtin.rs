//! The built-in tools that need configuration or the conversation: their list and the dispatch of calls.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    context::CallContext,
    fetch_url::FetchUrl,
    github_search::GitHubSearch,
    history, interactions,
    outcome::ToolResult,
    tool::{Builtin, BuiltinOffer, Tool, ToolBackend},
    web_search::WebSearch,
};
use crate::{agents::AuthLevel, limits};

/// The built-in tools that are configured.
#[derive(Clone, Default)]
pub struct Builtins {
    pub fetch_url: Option<FetchUrl>,
    pub web_search: Option<WebSearch>,
    pub github_search: Option<GitHubSearch>,
}

/// Names that are refused for services, because these tools appear and disappear with a conversation.
pub const RESERVED: [&str; 5] =
    ["knowledge_search", "conversation_history", "request_identity_intake", "request_choices", "submit_interaction"];

/// A tool's name, its description, the properties of its arguments, and those that are required.
type Declared = (&'static str, &'static str, Value, Vec<&'static str>);

impl Builtins {
    /// Returns the configured tools that a [`BuiltinOffer`] includes.
    pub fn offered(&self, offer: &BuiltinOffer) -> Vec<Tool> {
        let configured = [
            (Builtin::FetchUrl, self.fetch_url.is_some()),
            (Builtin::WebSearch, self.web_search.is_some()),
            (Builtin::GitHubSearch, self.github_search.is_some()),
            (Builtin::ConversationHistory, offer.has_older),
            (Builtin::RequestIdentityIntake, offer.interactions),
            (Builtin::RequestChoices, offer.interactions),
            (Builtin::SubmitInteraction, offer.interactions && offer.asked_in_words),
        ];
        configured.into_iter().filter(|(_, is_there)| *is_there).map(|(builtin, _)| builtin.tool()).collect()
    }

    /// Calls a built-in tool.
    pub async fn call(&self, builtin: Builtin, arguments: &Value, context: &CallContext) -> ToolResult {
        let result = match (builtin, self) {
            (Builtin::RequestIdentityIntake | Builtin::RequestChoices, _) => {
                return interactions::in_words(builtin, arguments);
            }
            (Builtin::SubmitInteraction, _) => return interactions::submit(arguments, context.asked.as_ref()),
            (Builtin::FetchUrl, Self { fetch_url: Some(tool), .. }) => tool.call(arguments).await,
            (Builtin::WebSearch, Self { web_search: Some(tool), .. }) => tool.call(arguments).await,
            (Builtin::GitHubSearch, Self { github_search: Some(tool), .. }) => tool.call(arguments).await,
            (Builtin::ConversationHistory, _) => history::call(arguments, context.history.as_ref()).await,
            _ => Err("The tool is not available now.".into()),
        };
        match result {
            Ok(text) => ToolResult::ok(text),
            Err(why) => ToolResult::error(why),
        }
    }
}

impl Builtin {
    fn declared(self) -> Declared {
        match self {
            Self::FetchUrl => (
                "fetch_url",
                "Fetches a public web page or text and returns its text.",
                json!({ "url": text("The http or https URL") }),
                vec!["url"],
            ),
            Self::WebSearch => (
                "web_search",
                "Searches the web and returns titles, URLs and short excerpts.",
                json!({ "query": text("What to look for, in a few words") }),
                vec!["query"],
            ),
            Self::GitHubSearch => (
                "github_search",
                "Searches GitHub for repositories, issues (with pull requests) or code.",
                json!({
                    "query": text("What to look for, in GitHub's search syntax"),
                    "kind": { "type": "string", "enum": ["repositories", "issues", "code"] },
                }),
                vec!["query"],
            ),
            Self::ConversationHistory => (
                "conversation_history",
                "Reads older messages of this conversation, newest first, or finds those that hold all given words.",
                json!({
                    "words": text("Words that a message must hold; left out, all messages are returned"),
                    "before": { "type": "integer", "description": "Only messages older than the one with this number" },
                }),
                vec![],
            ),
            Self::RequestIdentityIntake => identity_intake(),
            Self::RequestChoices => choices(),
            Self::SubmitInteraction => (
                "submit_interaction",
                "Passes on what the visitor answered in words to the last form that could not be shown.",
                json!({
                    "values": { "type": "object", "properties": {}, "description": "The answers, in the shape that you were told" },
                    "declined": { "type": "boolean", "description": "The visitor would rather not say" },
                }),
                vec![],
            ),
        }
    }

    fn tool(self) -> Tool {
        let (name, description, properties, required) = self.declared();
        Tool {
            name: name.into(),
            description: description.into(),
            parameters: json!({ "type": "object", "properties": properties, "required": required }),
            org: None,
            confirm: false,
            idempotent: true,
            level: AuthLevel::None,
            contested: false,
            timeout: Duration::from_millis(limits::TOOL_TIMEOUT_MS),
            backend: ToolBackend::Builtin(self),
        }
    }
}

/// Declares the form for the visitor's name, e-mail address and phone number.
fn identity_intake() -> Declared {
    (
        "request_identity_intake",
        "Asks the visitor for their name, e-mail address or phone number.",
        json!({
            "fields": {
                "type": "array", "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "key": { "type": "string", "enum": ["name", "email", "phone"] },
                        "required": { "type": "boolean" },
                        "label": text("What the visitor reads, if not the key"),
                    },
                    "required": ["key"],
                },
            },
            "reason": text("Why it is needed, as the visitor reads it"),
        }),
        vec!["fields"],
    )
}

/// Declares the form of questions with options.
fn choices() -> Declared {
    (
        "request_choices",
        "Asks the visitor one to four questions with options to pick from.",
        json!({
            "questions": {
                "type": "array", "minItems": 1, "maxItems": 4,
                "items": {
                    "type": "object",
                    "properties": {
                        "question": text("The question"),
                        "header": text("A label of its own, at most 12 characters"),
                        "options": {
                            "type": "array", "minItems": 2, "maxItems": 4,
                            "items": {
                                "type": "object",
                                "properties": { "label": text("The option"), "description": text("What it means") },
                                "required": ["label"],
                            },
                        },
                        "multiSelect": { "type": "boolean" },
                    },
                    "required": ["question", "header", "options"],
                },
            },
            "reason": text("Why it is asked, as the visitor reads it"),
        }),
        vec!["questions"],
    )
}

/// Returns the schema of a text property.
fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}
