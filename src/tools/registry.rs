//! The tools that there are: built-in ones, those that discovery found last, those of MCP servers.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use async_nats::Client;
use serde_json::{Value, json};

use super::{
    builtin::{Builtin, Builtins},
    mcp::Mcp,
};
use crate::{knowledge::Retrieve, limits};

/// A tool that can be offered to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// The only organisation that may use it; `None` = all.
    pub org: Option<String>,
    /// Waits for a person's approval.
    pub confirm: bool,
    /// May be called again with the same idempotency key.
    pub idempotent: bool,
    pub timeout: Duration,
    pub place: Place,
}

impl Tool {
    /// Whether the tool asks visitors something, or passes their answer on.
    pub fn asks_visitors(&self) -> bool {
        use Builtin::{RequestChoices, RequestIdentityIntake, SubmitInteraction};
        matches!(self.place, Place::Builtin(RequestChoices | RequestIdentityIntake | SubmitInteraction))
    }
}

/// What built-in tools a conversation has use for.
pub struct Offer {
    /// The conversation is longer than what the model is given.
    pub has_older: bool,
    /// Visitors may be asked for their contact or a choice.
    pub interactions: bool,
    /// Something was asked in words and not answered yet.
    pub asked_in_words: bool,
}

impl Offer {
    const ALL: Self = Self { has_older: true, interactions: true, asked_in_words: true };
}

/// Where a tool runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// `knowledge_search`, in this process.
    Knowledge,
    /// One that is built in, in this process.
    Builtin(Builtin),
    /// A NATS micro service's endpoint.
    Endpoint { subject: String },
    /// An MCP server's, by its own name there.
    Mcp { server: String, tool: String },
}

impl Tool {
    /// Whether an organisation may use it.
    pub fn is_for(&self, org: &str) -> bool {
        self.org.as_ref().is_none_or(|only| only == org)
    }
}

/// The tools of a worker.
#[derive(Clone)]
pub struct Registry {
    pub(super) client: Client,
    pub(super) knowledge: Arc<dyn Retrieve>,
    pub(super) builtins: Builtins,
    pub(super) mcp: Mcp,
    discovered: Arc<RwLock<Arc<Vec<Tool>>>>,
}

impl Registry {
    /// A registry with the built-in tools; [`super::discovery::run`] and [`Mcp::run`] add the others.
    pub fn new(client: Client, knowledge: Arc<dyn Retrieve>, builtins: Builtins, mcp: Mcp) -> Self {
        Self { client, knowledge, builtins, mcp, discovered: Arc::default() }
    }

    /// The tools that an organisation may use in a conversation, ordered by name.
    pub fn offered(&self, org: &str, offer: &Offer) -> Vec<Tool> {
        let discovered = self.discovered();
        // Where there is nothing to find, searching is not offered.
        let mut tools = if self.knowledge.is_empty(org) { vec![] } else { vec![knowledge_search()] };
        tools.extend(self.builtins.offered(offer));
        tools.extend(discovered.iter().filter(|tool| tool.is_for(org)).cloned());
        tools.extend(self.mcp.offered().into_iter().filter(|tool| tool.is_for(org)));
        // Of equal names the first counts: what is built in before NATS services, and those before MCP servers.
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools.dedup_by(|a, b| a.name == b.name);
        tools.truncate(limits::TOOLS_MAX);
        tools
    }

    /// One of them by name, or one whose MCP server is away now: its call says so.
    pub fn find(&self, org: &str, name: &str) -> Option<Tool> {
        let offered = self.offered(org, &Offer::ALL).into_iter().find(|tool| tool.name == name);
        offered.or_else(|| self.mcp.missing(org, name))
    }

    fn discovered(&self) -> Arc<Vec<Tool>> {
        self.discovered.read().expect("no panic happens under this lock").clone()
    }

    /// Replaces what discovery found before.
    pub fn set_discovered(&self, tools: Vec<Tool>) {
        if tools != *self.discovered() {
            let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            tracing::info!(tools = names.join(" "), "tools of NATS services");
            *self.discovered.write().expect("no panic happens under this lock") = Arc::new(tools);
        }
    }
}

fn knowledge_search() -> Tool {
    Tool {
        name: "knowledge_search".into(),
        description: "Searches the organisation's documents and returns the passages that fit a query best.".into(),
        parameters: json!({
            "type": "object",
            "properties": { "query": { "type": "string", "description": "What to look for, in a few words" } },
            "required": ["query"],
        }),
        org: None,
        confirm: false,
        idempotent: true,
        timeout: Duration::from_millis(limits::TOOL_TIMEOUT_MS),
        place: Place::Knowledge,
    }
}
