//! The methods of MCP.

use std::sync::Arc;

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult, PaginatedRequestParams,
        ProgressNotificationParam, ProtocolVersion, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
};
use warp::http::request::Parts;

use super::{
    super::Edge,
    McpVisitor, offer, prompts,
    turn::{AgentCall, CallOutcome, ProgressNotifier},
};
use crate::limits;

/// The MCP server over the agents of an edge.
#[derive(Clone)]
pub struct McpAgents {
    edge: Arc<Edge>,
}

impl McpAgents {
    pub fn new(edge: Arc<Edge>) -> Self {
        Self { edge }
    }
}

impl ServerHandler for McpAgents {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        let instructions = "Each tool is an agent that answers messages. An answer names its conversation; name it in \
                            the next call to go on.";
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("turnstream", env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let agents = offer::agents(&self.edge, &*visitor(&context)?).await;
        let after = request.and_then(|request| request.cursor);
        let rest = agents.iter().filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after));
        let page: Vec<_> = rest.take(limits::MCP_TOOLS_PAGE + 1).collect();
        let mut listed = ListToolsResult::default();
        if page.len() > limits::MCP_TOOLS_PAGE {
            listed.next_cursor = Some(page[limits::MCP_TOOLS_PAGE - 1].0.clone());
        }
        listed.tools = page.into_iter().take(limits::MCP_TOOLS_PAGE).map(|(_, agent)| agent.tool()).collect();
        Ok(listed)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let visitor = visitor(&context)?;
        // A call with a streamed answer outlives the response; the token lets an edge that stops wait for the call.
        let _running = self.edge.connections.token();
        let mut agents = offer::agents(&self.edge, &visitor).await;
        let agent = agents.remove(&*request.name);
        let agent = agent.ok_or_else(|| ErrorData::invalid_params("there is no such tool", None))?;
        let can_ask = can_ask(&context);
        let progress = ProgressNotifier(context.meta.get_progress_token().map(|token| {
            let peer = context.peer.clone();
            let notify = move |step: f64| {
                let (peer, progress) = (peer.clone(), ProgressNotificationParam::new(token.clone(), step));
                async move {
                    if let Err(error) = peer.notify_progress(progress).await {
                        tracing::debug!(%error, "a client of MCP can't be told of progress");
                    }
                }
            };
            Box::new(move |step| -> futures_util::future::BoxFuture<'static, ()> { Box::pin(notify(step)) }) as _
        }));
        let call = AgentCall { agent: agent.id, can_ask, progress, given_up: context.ct.clone() };
        let outcome = match prompts::PromptAnswer::of(&request) {
            // Boxed: these futures are large, and nest in the library's own.
            Ok(Some(answered)) => Box::pin(call.go_on(self.edge.clone(), &visitor, answered)).await,
            Ok(None) => Box::pin(call.begin(self.edge.clone(), &visitor, request.arguments.unwrap_or_default())).await,
            Err(problem) => return Err(ErrorData::invalid_params(problem, None)),
        };
        Ok(match outcome {
            CallOutcome::Asks(asked) => asked.into(),
            CallOutcome::Over(result) => result.into(),
        })
    }
}

fn visitor(context: &RequestContext<RoleServer>) -> Result<Arc<McpVisitor>, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    let visitor = parts.and_then(|parts| parts.extensions.get::<Arc<McpVisitor>>());
    visitor.cloned().ok_or_else(|| ErrorData::internal_error("something went wrong on our side", None))
}

/// Returns true if a client can be asked with a form in the answer to its call.
///
/// Clients of earlier revisions are asked over a connection of their own, which any other edge would not have.
fn can_ask(context: &RequestContext<RoleServer>) -> bool {
    let is_current = context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
    let elicits = context.client_capabilities().and_then(|capabilities| capabilities.elicitation);
    // Without a mode the capability means forms.
    is_current && elicits.is_some_and(|elicits| elicits.form.is_some() || elicits.url.is_none())
}
