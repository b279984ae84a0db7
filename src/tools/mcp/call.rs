//! Calls one tool of an MCP server. Every call ends in a result for the model.

use rmcp::{
    ServiceError,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, MetaObject, RequestMetaObject,
        ResourceContents,
    },
    transport::streamable_http_client::HttpStatusError,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        call::{CallContext, ToolResult},
        registry::Tool,
    },
    lenient,
    server::{LiveServer, McpServerHandle},
};

/// The reason why a call has no answer.
enum Failure {
    /// The request did not reach the server.
    NotSent,
    /// The connection was lost while the call ran, or may have run.
    Lost,
    /// The answer has no usable result.
    Senseless,
}

/// Returns the result of a call that could not be made.
pub fn not_available() -> ToolResult {
    ToolResult::error("The tool is not available now.")
}

impl McpServerHandle {
    /// Calls a tool by the server's own name for it.
    ///
    /// A call that times out, or whose future is dropped, is cancelled at the server.
    pub async fn call(
        &self,
        tool: &Tool,
        name: &str,
        arguments: Map<String, Value>,
        context: &CallContext,
    ) -> ToolResult {
        let end = Instant::now() + tool.timeout;
        let Some(up) = self.up() else { return not_available() };
        let request = request(name, arguments, context);
        let mut answer = timeout_at(end, ask(&up, request.clone())).await;
        if matches!(answer, Ok(Err(Failure::Lost))) && tool.idempotent {
            tracing::info!(tool = tool.name, "the connection was lost during a tool call; it is tried again");
            answer = timeout_at(end, async {
                match self.up_again(&up).await {
                    Some(up) => ask(&up, request).await,
                    None => Err(Failure::Lost),
                }
            })
            .await;
        }
        match answer {
            Ok(Ok(result)) => result,
            Ok(Err(Failure::NotSent)) => {
                self.doubt();
                not_available()
            }
            Ok(Err(Failure::Senseless)) => ToolResult::error("The tool's answer can't be understood."),
            Ok(Err(Failure::Lost)) | Err(_) if tool.idempotent => {
                tracing::warn!(tool = tool.name, "a tool call failed");
                self.doubt();
                ToolResult::error("The tool did not answer in time.")
            }
            Ok(Err(Failure::Lost)) | Err(_) => {
                tracing::warn!(tool = tool.name, "a tool call failed; its outcome is unknown");
                self.doubt();
                ToolResult::outcome_unknown()
            }
        }
    }
}

/// Returns the request, with the same context that a NATS provider gets in headers.
fn request(name: &str, arguments: Map<String, Value>, context: &CallContext) -> CallToolRequestParams {
    let mut meta = MetaObject::default();
    meta.insert("turnstream/callId".into(), json!(context.call_id));
    meta.insert("turnstream/org".into(), json!(context.org));
    meta.insert("turnstream/conversation".into(), json!(context.conversation));
    meta.insert("turnstream/user".into(), json!(context.user));
    meta.insert("turnstream/epoch".into(), json!(context.epoch));
    if !context.files.is_empty() {
        meta.insert("turnstream/files".into(), json!(context.files));
    }
    if let Some(Ok(settings)) = context.settings.as_deref().map(serde_json::from_str) {
        meta.insert("turnstream/settings".into(), settings);
    }
    let mut request = CallToolRequestParams::new(name.to_string()).with_arguments(arguments);
    request.meta = Some(RequestMetaObject::from(meta));
    request
}

async fn ask(up: &LiveServer, request: CallToolRequestParams) -> Result<ToolResult, Failure> {
    match lenient::call(&up.peer, request).await {
        Ok(CallToolResponse::Complete(result)) => Ok(read(result)),
        Ok(CallToolResponse::InputRequired(_)) => {
            Ok(ToolResult::error("The tool asks for more input than a call can give."))
        }
        Ok(_) => Err(Failure::Senseless),
        Err(ServiceError::McpError(error)) => Ok(ToolResult::error(error.message.into_owned())),
        Err(ServiceError::UnexpectedResponse) => Err(Failure::Senseless),
        Err(ServiceError::TransportSend(error)) => Err(unsent_or_lost(error.error.as_ref())),
        Err(_) => Err(Failure::Lost),
    }
}

/// Classifies an error of the transport: after a failed connect, or a refusal with status 429, the tool did not run.
fn unsent_or_lost(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let never_connected = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect);
        let refused = error.downcast_ref::<HttpStatusError>().is_some_and(|refusal| refusal.status == 429);
        if never_connected || refused {
            return Failure::NotSent;
        }
        cause = error.source();
    }
    Failure::Lost
}

/// Returns a result in words: texts as they are, structured content as JSON unless a text says the same, other kinds by
/// name.
fn read(result: CallToolResult) -> ToolResult {
    let mut parts: Vec<String> = result.content.into_iter().map(part).collect();
    if let Some(structured) = result.structured_content.filter(|structured| !is_said(structured, &parts)) {
        parts.push(structured.to_string());
    }
    ToolResult { is_error: result.is_error == Some(true), ..ToolResult::ok(parts.join("\n")) }
}

/// Returns whether the texts repeat the structured content.
///
/// Servers of the reference implementation wrap any value that is no object as `{"result": …}`, and send a list as one
/// text per entry.
fn is_said(structured: &Value, parts: &[String]) -> bool {
    let says = |part: &String, value: &Value| match value {
        Value::String(text) => part == text,
        _ => serde_json::from_str::<Value>(part).is_ok_and(|said| said == *value),
    };
    if parts.iter().any(|part| says(part, structured)) {
        return true;
    }
    match structured.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("result")) {
        Some(Value::Array(entries)) if entries.len() == parts.len() => {
            parts.iter().zip(entries).all(|(part, entry)| says(part, entry))
        }
        Some(result) => parts.iter().any(|part| says(part, result)),
        None => false,
    }
}

fn part(block: ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => format!("[image: {}]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[audio: {}]", audio.mime_type),
        ContentBlock::Resource(resource) => match resource.resource {
            ResourceContents::TextResourceContents { text, .. } => text,
            ResourceContents::BlobResourceContents { uri, .. } => format!("[resource: {uri}]"),
            _ => "[resource]".into(),
        },
        ContentBlock::ResourceLink(link) => format!("[resource: {}]", link.uri),
        _ => "[content of an unknown kind]".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structured_content_equal_to_the_text_is_dropped() {
        let is_said = |structured: Value, parts: &[&str]| {
            is_said(&structured, &parts.iter().map(|part| part.to_string()).collect::<Vec<_>>())
        };
        assert!(is_said(json!({"total": 3}), &["{ \"total\": 3 }"]));
        assert!(is_said(json!({"result": "done"}), &["done"]));
        assert!(is_said(json!({"result": 3}), &["3"]));
        assert!(is_said(json!({"result": ["a", {"b": 1}]}), &["a", "{\"b\":1}"]));
        assert!(!is_said(json!({"result": "done", "at": 7}), &["done"]));
        assert!(!is_said(json!({"result": "other"}), &["done"]));
        assert!(!is_said(json!({"result": ["a", "b"]}), &["a"]));
        assert!(!is_said(json!({"total": 3}), &["three"]));
    }
}
