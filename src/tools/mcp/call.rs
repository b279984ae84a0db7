//! Calls one tool of an MCP server. Every call ends in a result for the model.

use std::{sync::Arc, time::Duration};

use rmcp::{
    Peer, RoleClient, ServiceError,
    model::{CallToolRequestParams, CallToolResult, ContentBlock, MetaObject, RequestMetaObject, ResourceContents},
    transport::streamable_http_client::HttpStatusError,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    connection::{McpConnection, QuestionPolicy},
    elicit::{self, Dialogue, ElicitationRound},
    lenient::{self, McpCallReply},
    server::McpServerHandle,
};
use crate::{
    limits,
    tools::{
        context::CallContext,
        outcome::{ToolCallOutcome, ToolResult},
        tool::Tool,
    },
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

/// The result of a call with an empty answer.
pub fn senseless() -> ToolResult {
    ToolResult::error("The tool's answer can't be understood.")
}

/// Words for the model after a question that no visitor has seen.
const DECLINED: &str =
    "[The tool asked the visitor something that could not be put to them, and was told that it is declined.]";

impl McpServerHandle {
    /// Calls a tool by the server's own name for it, or asks for the task that it made of the call. A call that is given up, by
    /// time or by dropping the future, is cancelled at the server.
    pub async fn call(
        &self,
        tool: &Tool,
        name: &str,
        arguments: Map<String, Value>,
        context: &CallContext,
    ) -> ToolCallOutcome {
        if let Some(task) = &context.task {
            return self.follow(tool, task, context).await;
        }
        let end = Instant::now() + tool.timeout;
        let request = request(name, arguments, context);
        let asks_during = context.elicited.as_ref().is_some_and(|elicited| elicited.during_call);
        if tool.idempotent && (asks_during || self.tangle.asks()) {
            return self.call_alone(tool, request, context, end).await;
        }
        if !tool.idempotent {
            let before = self.tangle.declined();
            let outcome = self.call_shared(tool, request, context, end).await;
            return if self.tangle.declined() == before { outcome } else { with_declined(outcome) };
        }
        let running = self.tangle.enter();
        tokio::select! {
            outcome = self.call_shared(tool, request.clone(), context, end) => return outcome,
            () = self.tangle.untangled() => {}
        }
        drop(running);
        self.call_alone(tool, request, context, end).await
    }

    /// A call on the connection that all calls share.
    async fn call_shared(
        &self,
        tool: &Tool,
        request: CallToolRequestParams,
        context: &CallContext,
        end: Instant,
    ) -> ToolCallOutcome {
        let Some(up) = self.up() else { return not_available().into() };
        let mut answer = timeout_at(end, converse(&up.peer, request.clone(), tool, context)).await;
        if matches!(answer, Ok(Err(Failure::Lost))) && tool.idempotent {
            tracing::info!(tool = tool.name, "the connection was lost during a tool call; it is tried again");
            answer = timeout_at(end, async {
                match self.up_again(&up).await {
                    Some(up) => converse(&up.peer, request, tool, context).await,
                    None => Err(Failure::Lost),
                }
            })
            .await;
        }
        self.outcome(tool, answer.unwrap_or(Err(Failure::Lost)))
    }

    /// A call on a connection of its own: questions there are for its visitor. Only for calls that bear repetition.
    async fn call_alone(
        &self,
        tool: &Tool,
        request: CallToolRequestParams,
        context: &CallContext,
        end: Instant,
    ) -> ToolCallOutcome {
        let (dialogue, mut asked) = Dialogue::of(context);
        let dialogue = Arc::new(dialogue);
        let Ok(Ok(_place)) = timeout_at(end, self.alone.acquire()).await else { return not_available().into() };
        let questions = QuestionPolicy::Alone(dialogue.clone());
        let link = match timeout_at(end, McpConnection::open(&self.settings, self.greeting(), questions)).await {
            Ok(Ok(link)) => link,
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(tool = tool.name, "a connection for one call can't be made");
                self.doubt();
                return not_available().into();
            }
        };
        let outcome = tokio::select! {
            answer = timeout_at(end, converse(&link.peer, request, tool, context)) => {
                self.outcome(tool, answer.unwrap_or(Err(Failure::Lost)))
            }
            Some(question) = asked.recv() => ToolCallOutcome::Asks(elicit::asked_during(context, question)),
        };
        tokio::spawn(link.close(false));
        if dialogue.has_declined() { with_declined(outcome) } else { outcome }
    }

    fn outcome(&self, tool: &Tool, answer: Result<ToolCallOutcome, Failure>) -> ToolCallOutcome {
        let failure = match answer {
            Ok(outcome) => return outcome,
            Err(failure) => failure,
        };
        let result = match failure {
            Failure::NotSent => {
                self.doubt();
                not_available()
            }
            Failure::Senseless => senseless(),
            Failure::Lost if tool.idempotent => {
                tracing::warn!(tool = tool.name, "a tool call failed");
                self.doubt();
                ToolResult::error("The tool did not answer in time.")
            }
            Failure::Lost => {
                tracing::warn!(tool = tool.name, "a tool call failed; its outcome is unknown");
                self.doubt();
                ToolResult::outcome_unknown()
            }
        };
        result.into()
    }
}

/// A call, made again as long as its server wants it to be and no visitor is needed for that.
async fn converse(
    peer: &Peer<RoleClient>,
    mut request: CallToolRequestParams,
    tool: &Tool,
    context: &CallContext,
) -> Result<ToolCallOutcome, Failure> {
    let mut declined = context.elicited.as_ref().is_some_and(|elicited| !elicited.declined.is_empty());
    for _ in 0..limits::MCP_ROUNDS_MAX {
        let requested = match ask(peer, request.clone()).await? {
            McpCallReply::Complete(result) if declined => return Ok(with_declined(read(result).into())),
            McpCallReply::Complete(result) => return Ok(read(result).into()),
            McpCallReply::Task(id) if id.len() <= limits::MCP_TASK_ID_MAX_BYTES => {
                return Ok(ToolCallOutcome::Task(id));
            }
            McpCallReply::Task(_) => return Err(Failure::Senseless),
            McpCallReply::Asks(requested) => requested,
        };
        match requested.round(context, tool.idempotent) {
            ElicitationRound::Ask(elicited) => return Ok(ToolCallOutcome::Asks(elicited)),
            ElicitationRound::End(why) => return Ok(ToolResult::error(why).into()),
            ElicitationRound::Again(responses, state) => {
                declined |= !responses.is_empty();
                request.input_responses = Some(responses).filter(|responses| !responses.is_empty());
                request.request_state = state;
                sleep(Duration::from_millis(limits::MCP_ROUND_PAUSE_MS)).await;
            }
        }
    }
    Ok(ToolResult::error("The tool asks for more and more input. The call has ended without a result.").into())
}

/// A result that says that a question was declined which no visitor has seen.
fn with_declined(outcome: ToolCallOutcome) -> ToolCallOutcome {
    match outcome {
        ToolCallOutcome::Result(mut result) => {
            result.text = format!("{}\n{DECLINED}", result.text).trim_start().to_string();
            ToolCallOutcome::Result(result)
        }
        other => other,
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
    if let Some(elicited) = context.elicited.as_ref().filter(|elicited| !elicited.during_call) {
        request.input_responses = Some(elicit::responses(elicited));
        request.request_state = elicited.request_state.clone();
    }
    request
}

async fn ask(peer: &Peer<RoleClient>, request: CallToolRequestParams) -> Result<McpCallReply, Failure> {
    match lenient::call(peer, request).await {
        Ok(called) => Ok(called),
        Err(ServiceError::McpError(error)) => {
            Ok(McpCallReply::Complete(CallToolResult::error(vec![ContentBlock::text(error.message.into_owned())])))
        }
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

/// A result in words: texts as they are, structured content as JSON unless a text says the same, other kinds by name.
pub fn read(result: CallToolResult) -> ToolResult {
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
