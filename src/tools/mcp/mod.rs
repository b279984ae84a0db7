//! Tools of MCP servers, beside those of NATS services.
//!
//! Each server that is configured has one task in a worker ([`server`]), which holds a connection to it ([`link`], over a
//! child process of [`child`] or over HTTP) and the list of its tools ([`offer`]). A server that is down costs its tools: they
//! are not offered, and a call of one is an error result at once ([`call`]). What the library does not take is read as far as it
//! can be ([`lenient`], [`lines`]).
//!
//! The protocol is that of the `rmcp` crate; the connection is negotiated by `initialize`, which every server understands.

mod call;
mod child;
mod lenient;
mod lines;
mod link;
mod offer;
mod server;

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use self::server::Server;
use super::{
    call::{CallContext, ToolResult},
    claims::Refused,
    registry::Tool,
};
use crate::config::McpServer;

/// The MCP servers of a worker. Clones share them.
#[derive(Clone, Default)]
pub struct Mcp {
    servers: Arc<Vec<Arc<Server>>>,
}

impl Mcp {
    /// Nothing runs before [`Mcp::run`].
    pub fn new(servers: &[McpServer]) -> Self {
        Self { servers: Arc::new(servers.iter().cloned().map(Server::new).map(Arc::new).collect()) }
    }

    /// Holds a connection to every server until `stop`; child processes have ended when this returns.
    pub async fn run(self, stop: CancellationToken) {
        join_all(self.servers.iter().map(|server| server.clone().run(stop.clone()))).await;
    }

    /// Waits until every server was tried once, or has taken too long for it: a worker that takes work before would refuse
    /// calls that a person has approved.
    pub async fn first(&self) {
        join_all(self.servers.iter().map(|server| server.tried())).await;
    }

    /// The tools of the servers that are up.
    pub fn offered(&self) -> Vec<Tool> {
        self.servers.iter().filter(|server| server.is_up()).flat_map(|server| server.tools().to_vec()).collect()
    }

    /// Remarks on servers' tools that are not offered as they stand.
    pub fn warnings(&self) -> Vec<Refused> {
        self.servers.iter().flat_map(|server| server.warnings().to_vec()).collect()
    }

    /// A tool of a server that is down now.
    pub fn missing(&self, org: &str, name: &str) -> Option<Tool> {
        let down = self.servers.iter().filter(|server| !server.is_up());
        let mut tools = down.flat_map(|server| server.tools().to_vec());
        tools.find(|tool| tool.name == name && tool.is_for(org))
    }

    /// Calls a server's tool by the server's own name for it.
    pub(super) async fn call(
        &self,
        tool: &Tool,
        (server, name): (&str, &str),
        arguments: Map<String, Value>,
        context: &CallContext,
    ) -> ToolResult {
        match self.servers.iter().find(|known| known.settings.name == server) {
            Some(server) => server.call(tool, name, arguments, context).await,
            None => call::not_available(),
        }
    }
}
