//! Lenient decoding of servers' messages that the library rejects.
//!
//! Contract: one malformed tool costs a list that tool alone, with a notice; one malformed part of a result costs that
//! part alone. An abandoned call is cancelled at the server.

use rmcp::{
    Peer, RoleClient, ServiceError,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientNotification, ClientRequest, ContentBlock,
        ListToolsRequest, PaginatedRequestParams, RequestId, ServerResult, Tool,
    },
    service::PeerRequestOptions,
};
use serde_json::{Value, json};

use super::{super::claims::RefusedDeclaration, elicit::ServerQuestions};

/// A page of a server's tools.
pub struct ToolPage {
    pub tools: Vec<Tool>,
    pub next: Option<String>,
    pub refused: Vec<RefusedDeclaration>,
}

/// Requests a page of tools.
pub async fn list(peer: &Peer<RoleClient>, server: &str, cursor: Option<String>) -> Result<ToolPage, ServiceError> {
    let params = Some(PaginatedRequestParams::default().with_cursor(cursor));
    let request = ListToolsRequest { method: Default::default(), params, extensions: Default::default() };
    match ask(peer, ClientRequest::ListToolsRequest(request)).await? {
        ServerResult::ListToolsResult(page) => {
            Ok(ToolPage { tools: page.tools, next: page.next_cursor, refused: vec![] })
        }
        ServerResult::CustomResult(page) => page_of(server, page.0).ok_or(ServiceError::UnexpectedResponse),
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

/// The answer to a call.
pub enum McpCallReply {
    Complete(CallToolResult),
    Asks(ServerQuestions),
    /// A task, by its id.
    Task(String),
}

/// Calls a tool.
pub async fn call(peer: &Peer<RoleClient>, params: CallToolRequestParams) -> Result<McpCallReply, ServiceError> {
    match ask(peer, ClientRequest::CallToolRequest(CallToolRequest::new(params))).await? {
        ServerResult::CallToolResult(result) => Ok(McpCallReply::Complete(result)),
        ServerResult::InputRequiredResult(result) => Ok(McpCallReply::Asks(ServerQuestions::of(result))),
        ServerResult::CreateTaskResult(result) => Ok(McpCallReply::Task(result.task.task_id)),
        // A result without a content is one that says nothing.
        ServerResult::EmptyResult(_) | ServerResult::TaskAckResult(_) => {
            Ok(McpCallReply::Complete(CallToolResult::default()))
        }
        ServerResult::CustomResult(result) => called(result.0).ok_or(ServiceError::UnexpectedResponse),
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

fn called(result: Value) -> Option<McpCallReply> {
    match result["resultType"].as_str() {
        Some("input_required") => ServerQuestions::odd(&result).map(McpCallReply::Asks),
        Some("task") => result["taskId"].as_str().map(|id| McpCallReply::Task(id.to_owned())),
        _ => result_of(result).map(McpCallReply::Complete),
    }
}

/// One request, which is cancelled at the server when this future is dropped.
pub async fn ask(peer: &Peer<RoleClient>, request: ClientRequest) -> Result<ServerResult, ServiceError> {
    let handle = peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await?;
    let mut given_up = CancelOnDrop { peer, id: Some(handle.id.clone()) };
    let answer = handle.await_response().await;
    given_up.id = None;
    answer
}

/// Cancels a request at the server when its caller has stopped waiting.
struct CancelOnDrop<'a> {
    peer: &'a Peer<RoleClient>,
    id: Option<RequestId>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let notification = json!({ "method": "notifications/cancelled", "params": { "requestId": id } });
        let Ok(notification) = serde_json::from_value::<ClientNotification>(notification) else { return };
        let peer = self.peer.clone();
        tokio::spawn(async move {
            if let Err(error) = peer.send_notification(notification).await {
                tracing::debug!(%error, "an MCP server did not get a call's cancellation");
            }
        });
    }
}

fn page_of(server: &str, page: Value) -> Option<ToolPage> {
    let next = page["nextCursor"].as_str().map(str::to_owned);
    let (mut tools, mut refused) = (Vec::new(), Vec::new());
    for tool in page["tools"].as_array()? {
        match tool_of(tool) {
            Ok(tool) => tools.push(tool),
            Err(why) => {
                let name = tool["name"].as_str().unwrap_or("(without a name)").chars().take(64).collect();
                refused.push(RefusedDeclaration { service: server.into(), tool: name, why });
            }
        }
    }
    Some(ToolPage { tools, next, refused })
}

/// Parses a listed tool; falls back to its required fields alone.
fn tool_of(listed: &Value) -> Result<Tool, String> {
    let schema = match &listed["inputSchema"] {
        Value::Null | Value::Bool(true) => json!({}),
        schema @ Value::Object(_) => schema.clone(),
        _ => return Err("the schema is not an object".into()),
    };
    let Value::Object(mut whole) = listed.clone() else { return Err("the tool is not an object".into()) };
    whole.insert("inputSchema".into(), schema.clone());
    if let Ok(tool) = serde_json::from_value(whole.into()) {
        return Ok(tool);
    }
    let bare = json!({ "name": listed["name"], "inputSchema": schema, "description": listed["description"].as_str() });
    serde_json::from_value(bare).map_err(|_| "the tool has no name".into())
}

/// A result with its parts of unknown kinds named, and its other parts kept.
pub fn result_of(mut result: Value) -> Option<CallToolResult> {
    let content = match result.get_mut("content")? {
        Value::Array(content) => content,
        // A lone part.
        one => {
            let part = one.take();
            *one = json!([part]);
            one.as_array_mut()?
        }
    };
    for part in content.iter_mut() {
        if let Value::String(text) = part {
            *part = json!({ "type": "text", "text": text });
        } else if serde_json::from_value::<ContentBlock>(part.clone()).is_err() {
            let text = part["text"].as_str().map(str::to_owned);
            let kind: String = part["type"].as_str().unwrap_or("unknown").chars().take(32).collect();
            *part = json!({ "type": "text", "text": text.unwrap_or(format!("[content of an unknown kind: {kind}]")) });
        }
    }
    let known = ["content", "structuredContent", "isError"].map(|name| (name.to_owned(), result[name].take()));
    let mut known: serde_json::Map<String, Value> = known.into_iter().filter(|(_, value)| !value.is_null()).collect();
    if !known.get("isError").is_none_or(Value::is_boolean) {
        known.remove("isError");
    }
    serde_json::from_value(known.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_tool_is_dropped_alone() {
        let page = json!({"nextCursor": "2", "tools": [
            {"name": "null", "inputSchema": null},
            {"name": "none"},
            {"name": "list", "inputSchema": []},
            {"name": "hints", "inputSchema": {"type": "object"}, "annotations": "odd", "description": 5},
            {"inputSchema": {}},
            7,
            {"name": "good", "description": "d", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}},
        ]});
        let ToolPage { tools, next, refused } = page_of("srv", page).unwrap();
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!((names, next.as_deref()), (vec!["null", "none", "hints", "good"], Some("2")));
        assert_eq!(tools[3].annotations.as_ref().unwrap().read_only_hint, Some(true));
        let refused: Vec<&str> = refused.iter().map(|refused| refused.tool.as_str()).collect();
        assert_eq!(refused, ["list", "(without a name)", "(without a name)"]);
        assert!(page_of("srv", json!({"tools": null})).is_none());
    }

    #[test]
    fn a_malformed_part_is_dropped_alone() {
        let texts = |result: Value| {
            let result = result_of(result).unwrap();
            let text = |part: &ContentBlock| part.as_text().map(|text| text.text.clone()).unwrap_or("?".into());
            (result.content.iter().map(text).collect::<Vec<_>>(), result.is_error)
        };
        let odd = json!({"content": [{"type": "text", "text": "a"}, {"type": "hologram", "x": 1}, {"type": "text"}, "b", 7,
            {"type": "markdown", "text": "c"}], "isError": true, "extra": 1});
        let unknown = |kind: &str| format!("[content of an unknown kind: {kind}]");
        let expected =
            ["a".to_owned(), unknown("hologram"), unknown("text"), "b".into(), unknown("unknown"), "c".into()];
        assert_eq!(texts(odd), (expected.to_vec(), Some(true)));
        assert_eq!(texts(json!({"content": "alone", "isError": "no"})), (vec!["alone".to_owned()], None));
        assert!(result_of(json!({"other": 1})).is_none());
    }
}
