//! Tools of MCP servers, beside those of NATS services.
//!
//! Each configured server has one task in a worker ([`server`]), which holds a connection to the server ([`connection`], over
//! a child process of [`child`] or over HTTP) and the list of its tools ([`offer`]). While a server is down its tools
//! are not offered, and a call of one is an error result at once ([`call`]). Messages that the library rejects are
//! decoded leniently ([`lenient`], [`lines`]).
//!
//! The protocol is that of the `rmcp` crate; the connection is negotiated by `initialize`, which every server
//! understands.

mod call;
mod child;
mod connection;
mod elicit;
mod lenient;
mod lines;
mod offer;
mod server;
mod tangle;
mod task;

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use self::server::McpServerHandle;
use super::{claims::RefusedDeclaration, context::CallContext, outcome::ToolCallOutcome, tool::Tool};
use crate::config::McpServer;

/// The MCP servers of a worker. Clones share them.
#[derive(Clone, Default)]
pub struct McpTools {
    servers: Arc<Vec<Arc<McpServerHandle>>>,
}

impl McpTools {
    /// Creates the servers without starting them: [`McpTools::run`] does.
    pub fn new(servers: &[McpServer]) -> Self {
        Self { servers: Arc::new(servers.iter().cloned().map(McpServerHandle::new).map(Arc::new).collect()) }
    }

    /// Holds a connection to every server until `stop`; child processes have ended when this returns.
    pub async fn run(self, stop: CancellationToken) {
        join_all(self.servers.iter().map(|server| server.clone().run(stop.clone()))).await;
    }

    /// Waits until every server was tried once, or has taken too long.
    ///
    /// A worker that takes work earlier would refuse calls that a person has approved.
    pub async fn first(&self) {
        join_all(self.servers.iter().map(|server| server.tried())).await;
    }

    /// Returns the tools of the servers that are up.
    pub fn offered(&self) -> Vec<Tool> {
        self.servers.iter().filter(|server| server.is_up()).flat_map(|server| server.tools().to_vec()).collect()
    }

    /// Returns remarks on servers' tools that are not offered as they were listed.
    pub fn warnings(&self) -> Vec<RefusedDeclaration> {
        self.servers.iter().flat_map(|server| server.warnings().to_vec()).collect()
    }

    /// Returns a tool of a server that is down now.
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
    ) -> ToolCallOutcome {
        match self.servers.iter().find(|known| known.settings.name == server) {
            Some(server) => server.call(tool, name, arguments, context).await,
            None => call::not_available().into(),
        }
    }

    /// Tells a server that its task is no longer wanted.
    pub async fn cancel(&self, server: &str, task: &str) {
        if let Some(server) = self.servers.iter().find(|known| known.settings.name == server) {
            server.cancel(task).await;
        }
    }
}
