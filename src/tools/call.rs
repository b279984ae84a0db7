//! Calls one tool. Every call ends in a result for the model; a turn never hangs on a tool.

use serde_json::{Map, Value, json};

use super::{
    canonical::CanonicalArguments,
    context::CallContext,
    outcome::{ToolCallOutcome, ToolResult},
    registry::ToolRegistry,
    tool::{Tool, ToolBackend},
};
use crate::{
    calls::{CallError, ServiceCall, plain},
    knowledge::{GROUNDING_PASSAGES, KnowledgeReader},
    limits,
};

impl ToolRegistry {
    /// Calls a tool with the model's JSON text as arguments, in its canonical form.
    pub async fn call(&self, tool: &Tool, arguments: &str, context: &CallContext) -> ToolCallOutcome {
        let canonical = CanonicalArguments::parse(arguments).map(|arguments| (arguments.is_exact(), arguments.text()));
        let parsed = canonical.as_ref().map(|(_, text)| serde_json::from_str::<Map<String, Value>>(text));
        let (Some((is_exact, arguments)), Some(Ok(parsed))) = (&canonical, parsed) else {
            return ToolResult::error("The arguments are not a JSON object.").into();
        };
        let mut outcome: ToolCallOutcome = match &tool.backend {
            ToolBackend::Knowledge => self.knowledge_search(&Value::Object(parsed), &context.reader).await.into(),
            ToolBackend::Builtin(builtin) => self.builtins.call(*builtin, &Value::Object(parsed), context).await.into(),
            ToolBackend::Mcp { .. } if !is_exact => {
                ToolResult::error("A number in the arguments has too many digits.").into()
            }
            ToolBackend::Mcp { server, tool: name } => self.mcp.call(tool, (server, name), parsed, context).await,
            ToolBackend::Endpoint { subject } => self.request(tool, subject, arguments, context).await.into(),
        };
        if let ToolCallOutcome::Result(result) = &mut outcome {
            cut(&mut result.text);
        }
        outcome
    }

    /// Cancels the task that a tool's server made of a call.
    pub async fn cancel(&self, tool: &Tool, task: &str) {
        if let ToolBackend::Mcp { server, .. } = &tool.backend {
            self.mcp.cancel(server, task).await;
        }
    }

    async fn knowledge_search(&self, arguments: &Value, reader: &KnowledgeReader) -> ToolResult {
        let Some(query) = arguments["query"].as_str().filter(|query| !query.trim().is_empty()) else {
            return ToolResult::error("`query` is required.");
        };
        let passages = match self.knowledge.retrieve(query, reader, GROUNDING_PASSAGES).await {
            Ok(passages) => passages,
            Err(error) => {
                tracing::warn!(%error, "a search in the knowledge failed");
                return ToolResult::error("The documents can't be searched now.");
            }
        };
        let found: Vec<Value> = passages.iter().map(|p| json!({ "title": p.title, "text": p.text })).collect();
        let grounding = passages.iter().map(|p| p.citation()).collect();
        ToolResult { grounding, ..ToolResult::ok(json!({ "passages": found })) }
    }

    async fn request(&self, tool: &Tool, subject: &str, arguments: &str, context: &CallContext) -> ToolResult {
        let mut headers = vec![
            ("Turnstream-Call-Id", plain(&context.call_id)),
            ("Turnstream-Org", crate::subjects::encode_token(&context.org)),
            ("Turnstream-Conversation", context.conversation.to_string()),
            ("Turnstream-User", context.user.to_string()),
            ("Turnstream-Epoch", context.epoch.to_string()),
        ];
        // The files can be read until the call is over.
        let loan = self.files.lend(&context.files, &context.reader_of_files);
        if !context.files.is_empty() {
            headers.push(("Turnstream-Files", ascii(&loan.told.to_string())));
        }
        headers.extend(context.settings.as_ref().map(|settings| ("Turnstream-Settings", ascii(settings))));
        let payload = arguments.to_string().into();
        let call = ServiceCall { subject: subject.into(), headers, payload, timeout: tool.timeout };
        match self.caller.call(call).await {
            Ok(reply) => {
                let header = |name| reply.headers.as_ref().and_then(|h| h.get(name)).map(|v| v.to_string());
                let text = String::from_utf8_lossy(&reply.payload).into_owned();
                match (header("Nats-Service-Error"), header("Nats-Service-Error-Code")) {
                    (None, None) => ToolResult::ok(text),
                    (Some(error), _) if text.is_empty() => ToolResult::error(error),
                    (error, _) => ToolResult::error(format!("{}: {text}", error.unwrap_or_default())),
                }
            }
            Err(CallError::NoService) => ToolResult::error("The tool is not available now."),
            Err(error) if error.is_not_sent() => {
                tracing::warn!(tool = tool.name, %error, "a tool was not called");
                ToolResult::error("The tool can't be called. It was not called.")
            }
            Err(error) if tool.idempotent => {
                tracing::warn!(tool = tool.name, %error, "a tool call failed");
                ToolResult::error("The tool did not answer in time.")
            }
            Err(error) => {
                tracing::warn!(tool = tool.name, %error, "a tool call failed; its outcome is unknown");
                ToolResult::outcome_unknown()
            }
        }
    }
}

/// Returns JSON with every character but printable ASCII escaped, as headers need it.
fn ascii(json: &str) -> String {
    let mut text = String::new();
    for letter in json.chars() {
        match letter {
            ' '..='~' => text.push(letter),
            _ => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    text
}

/// Truncates a result that is too long, and appends a mark that says so.
fn cut(text: &mut String) {
    const MARK: &str = "\n[cut: the result was too long]";
    if text.len() > limits::TOOL_RESULT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(limits::TOOL_RESULT_MAX_BYTES - MARK.len()));
        text.push_str(MARK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_holds_json_in_ascii() {
        let value = json!([{ "name": "Zoë 🦀\n.pdf" }]);
        let text = ascii(&value.to_string());
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_long_result_is_cut_at_a_character_and_marked() {
        let mut text = "é".repeat(limits::TOOL_RESULT_MAX_BYTES);
        cut(&mut text);
        assert!(text.len() <= limits::TOOL_RESULT_MAX_BYTES && text.ends_with("too long]"));
    }
}
