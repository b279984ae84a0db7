//! One MCP server: the task that holds its connection, and its known state.

use std::{sync::Arc, time::Duration};

use rmcp::{Peer, RoleClient};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{McpConnection, ProtocolPreference, QuestionPolicy},
    offer,
    tangle::SharedQuestions,
};
use crate::{
    config::{McpLink, McpServer},
    limits,
    tools::{claims::RefusedDeclaration, tool::Tool},
};

/// A server, shared by its task and its callers.
pub struct McpServerHandle {
    pub settings: McpServer,
    state: watch::Sender<State>,
    /// Notified when a call finds the server unreachable.
    doubt: Notify,
    /// The shared connection's calls, and whether questions were asked over it.
    pub tangle: Arc<SharedQuestions>,
    /// Connections that belong to one call.
    pub alone: Semaphore,
}

#[derive(Clone, Default)]
struct State {
    /// The server was tried once.
    tried: bool,
    /// The connection while the server is up.
    peer: Option<Peer<RoleClient>>,
    /// How it was greeted when it was up last.
    greeting: Option<ProtocolPreference>,
    /// How often it was found to be up.
    times: u64,
    /// The server's tools, or those of the last time it was up.
    tools: Arc<Vec<Tool>>,
    /// Remarks on the tools that the server lists.
    warnings: Arc<Vec<RefusedDeclaration>>,
}

/// A connection as a caller sees it.
pub struct LiveServer {
    pub peer: Peer<RoleClient>,
    times: u64,
}

impl McpServerHandle {
    pub fn new(settings: McpServer) -> Self {
        Self {
            settings,
            state: watch::Sender::default(),
            doubt: Notify::new(),
            tangle: Arc::default(),
            alone: Semaphore::new(limits::MCP_ALONE_PARALLEL),
        }
    }

    pub fn is_up(&self) -> bool {
        self.state.borrow().peer.is_some()
    }

    /// Returns the server's tools, or those of the last time it was up.
    pub fn tools(&self) -> Arc<Vec<Tool>> {
        self.state.borrow().tools.clone()
    }

    /// Returns remarks on the tools that the server lists.
    pub fn warnings(&self) -> Arc<Vec<RefusedDeclaration>> {
        self.state.borrow().warnings.clone()
    }

    /// Returns the connection, if there is one.
    pub fn up(&self) -> Option<LiveServer> {
        let state = self.state.borrow();
        Some(LiveServer { peer: state.peer.clone()?, times: state.times })
    }

    /// Waits for a connection that was found to be up after `lost` was lost.
    pub async fn up_again(&self, lost: &LiveServer) -> Option<LiveServer> {
        self.doubt.notify_one();
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| state.peer.is_some() && state.times > lost.times).await.ok()?;
        Some(LiveServer { peer: state.peer.clone()?, times: state.times })
    }

    /// How the server is greeted: as it was last, if it ever came up.
    pub fn greeting(&self) -> ProtocolPreference {
        self.state.borrow().greeting.unwrap_or(ProtocolPreference::CurrentFirst)
    }

    /// Has the task look whether the server is still there.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until the server was tried once, up to a timeout.
    pub async fn tried(&self) {
        let mut states = self.state.subscribe();
        let tried = states.wait_for(|state| state.tried);
        if timeout(Duration::from_millis(limits::MCP_FIRST_MS), tried).await.is_err() {
            tracing::warn!(server = self.settings.name, "an MCP server starts slowly; work begins without its tools");
        }
    }

    /// Holds a connection until `stop`.
    ///
    /// (1) Connect, initialise, list the tools; (2) follow changes of the list and check the connection; (3) when the
    /// connection is lost, or could not be made, close the remains, wait with a doubling delay, and begin again; (4) on
    /// `stop` close the connection, and with it the child process.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let longest = Duration::from_millis(limits::MCP_RETRY_MAX_MS);
        let mut pause = Duration::from_millis(limits::MCP_RETRY_FIRST_MS);
        let mut was_up = true;
        let mut greeting = ProtocolPreference::CurrentFirst;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            match stop.run_until_cancelled(self.open(greeting)).await {
                None => return,
                Some(Ok(link)) => {
                    was_up = true;
                    self.hold(link, &stop).await;
                }
                Some(Err(problem)) => {
                    greeting = other(greeting);
                    match std::mem::take(&mut was_up) {
                        true => tracing::warn!(server = self.settings.name, problem, "an MCP server can't be reached"),
                        false => {
                            tracing::debug!(server = self.settings.name, problem, "an MCP server is still unreachable")
                        }
                    }
                }
            }
            self.state.send_modify(|state| state.tried = true);
            if begun.elapsed() > longest {
                pause = Duration::from_millis(limits::MCP_RETRY_FIRST_MS);
            }
            stop.run_until_cancelled(sleep(pause)).await;
            pause = (pause * 2).min(longest);
        }
    }

    async fn open(&self, greeting: ProtocolPreference) -> Result<McpConnection, String> {
        let link = McpConnection::open(&self.settings, greeting, QuestionPolicy::Shared(self.tangle.clone()))
            .await
            .map_err(|error| self.without_secrets(error.to_string()))?;
        match link.tools(&self.settings.name).await {
            Ok(listed) => {
                self.state.send_modify(|state| state.greeting = Some(greeting));
                self.set_up(&link, listed);
                Ok(link)
            }
            Err(error) => {
                link.close(false).await;
                Err(self.without_secrets(error.to_string()))
            }
        }
    }

    /// Follows the server until it is lost or `stop`; closes the connection.
    async fn hold(&self, mut link: McpConnection, stop: &CancellationToken) {
        let every = Duration::from_millis(limits::MCP_PING_EVERY_MS);
        let mut pings = interval_at(Instant::now() + every, every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changed = link.changed.clone();
        // A child that is gone has closed its pipe; an HTTP connection has no such end.
        let is_http = matches!(self.settings.link, McpLink::Http { .. });
        let has_ended = loop {
            tokio::select! {
                () = stop.cancelled() => break false,
                () = link.closed() => break true,
                () = changed.notified() => {
                    stop.run_until_cancelled(self.list_again(&link)).await;
                }
                () = self.doubt.notified() => if !self.look(&link).await { break false },
                _ = pings.tick(), if is_http => if !self.look(&link).await { break false },
            }
        };
        self.state.send_modify(|state| state.peer = None);
        if !stop.is_cancelled() {
            tracing::warn!(server = self.settings.name, "an MCP server is gone; its tools are not offered");
        }
        link.close(has_ended).await;
    }

    async fn list_again(&self, link: &McpConnection) {
        match link.tools(&self.settings.name).await {
            Ok(listed) => self.set_up(link, listed),
            Err(error) => {
                let problem = self.without_secrets(error.to_string());
                tracing::warn!(server = self.settings.name, problem, "the tools of an MCP server can't be listed");
            }
        }
    }

    /// Returns whether the server is reachable, and notifies waiting callers if it is.
    async fn look(&self, link: &McpConnection) -> bool {
        let reachable = link.is_reachable().await;
        if reachable {
            self.state.send_modify(|state| state.times += 1);
        }
        reachable
    }

    fn set_up(&self, link: &McpConnection, (listed, mut warnings): (Vec<rmcp::model::Tool>, Vec<RefusedDeclaration>)) {
        let tools = offer::tools(&self.settings, listed, &mut warnings);
        for RefusedDeclaration { tool, why, .. } in &warnings {
            tracing::warn!(
                server = self.settings.name,
                tool,
                why,
                "a tool of an MCP server is offered with changes, or not at all"
            );
        }
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        tracing::info!(server = self.settings.name, tools = names.join(" "), "tools of an MCP server");
        self.state.send_modify(|state| {
            state.tried = true;
            state.peer = Some(link.peer.clone());
            state.times += 1;
            state.tools = Arc::new(tools);
            state.warnings = Arc::new(warnings);
        });
    }

    /// Returns an error's text without the secrets that a URL may hold.
    fn without_secrets(&self, text: String) -> String {
        match &self.settings.link {
            McpLink::Http { url, .. } => text.replace(url.as_str(), url.host_str().unwrap_or_default()),
            McpLink::Child { .. } => text,
        }
    }
}

/// The greeting that is tried next: neither may keep a server away that only knows the other.
fn other(greeting: ProtocolPreference) -> ProtocolPreference {
    match greeting {
        ProtocolPreference::CurrentFirst => ProtocolPreference::Earlier,
        ProtocolPreference::Earlier => ProtocolPreference::CurrentFirst,
    }
}
