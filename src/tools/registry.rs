//! The registry of tools: built-in ones, those of the latest discovery, those of MCP servers.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use serde_json::json;

use super::{
    builtin::Builtins,
    files::FileLender,
    mcp::McpTools,
    tool::{BuiltinOffer, Tool, ToolBackend},
};
use crate::{agents::AuthLevel, calls::ServiceCaller, knowledge::Retriever, limits};

/// The tools of a worker.
#[derive(Clone)]
pub struct ToolRegistry {
    pub(super) caller: ServiceCaller,
    pub(super) files: FileLender,
    pub(super) knowledge: Arc<dyn Retriever>,
    pub(super) builtins: Builtins,
    pub(super) mcp: McpTools,
    discovered: Arc<RwLock<Arc<Vec<Tool>>>>,
}

impl ToolRegistry {
    /// Creates a registry with the built-in tools; [`super::discovery::run`] and [`McpTools::run`] add the others.
    pub fn new(caller: ServiceCaller, knowledge: Arc<dyn Retriever>, builtins: Builtins, mcp: McpTools) -> Self {
        let files = FileLender::new(caller.client().clone());
        Self { caller, files, knowledge, builtins, mcp, discovered: Arc::default() }
    }

    /// Serves running tools the files of their calls, until the future is dropped.
    pub async fn lend(self) {
        self.files.serve().await;
    }

    /// Returns the tools that an organisation may use in a conversation and that an agent may use, ordered by name.
    ///
    /// Among equal names the first counts, under the strictest guards of all ([`one_of_each`]). The number is bounded,
    /// in this order of precedence: built-in tools, then the organisation's own, then those for all; services before
    /// MCP servers, and tools that were known earlier before later ones.
    pub fn offered(&self, org: &str, offer: &BuiltinOffer, may_use: impl Fn(&Tool) -> bool) -> Vec<Tool> {
        let (discovered, mcp) = (self.discovered(), self.mcp.offered());
        let others = || discovered.iter().chain(&mcp).filter(|tool| tool.is_for(org));
        // Search is offered only where documents exist.
        let mut tools = if self.knowledge.is_empty(org) { vec![] } else { vec![knowledge_search()] };
        tools.extend(self.builtins.offered(offer));
        tools.extend(others().filter(|tool| tool.org.is_some()).cloned());
        tools.extend(others().filter(|tool| tool.org.is_none()).cloned());
        tools.retain(may_use);
        let mut tools = one_of_each(tools);
        tools.truncate(limits::TOOLS_MAX);
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools
    }

    /// Finds a tool by name, also where its MCP server is down: the call then reports that.
    pub fn find(&self, org: &str, name: &str, may_use: impl Fn(&Tool) -> bool) -> Option<Tool> {
        let offered = self.offered(org, &BuiltinOffer::ALL, &may_use).into_iter().find(|tool| tool.name == name);
        offered.or_else(|| self.mcp.missing(org, name).filter(may_use))
    }

    fn discovered(&self) -> Arc<Vec<Tool>> {
        self.discovered.read().expect("no panic happens under this lock").clone()
    }

    /// Replaces the discovered tools.
    pub fn set_discovered(&self, tools: Vec<Tool>) {
        if tools != *self.discovered() {
            let offered = tools.iter().filter(|tool| !tool.contested);
            let mut names: Vec<&str> = offered.map(|tool| tool.name.as_str()).collect();
            names.sort_unstable();
            tracing::info!(tools = names.join(" "), "tools of NATS services");
            *self.discovered.write().expect("no panic happens under this lock") = Arc::new(tools);
        }
    }
}

/// Returns the first tool of each name, under the strictest guards of all tools of that name.
pub fn one_of_each(tools: Vec<Tool>) -> Vec<Tool> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut each: Vec<Tool> = Vec::new();
    for tool in tools {
        match places.get(&tool.name) {
            Some(at) => each[*at].tighten(&tool),
            None => {
                places.insert(tool.name.clone(), each.len());
                each.push(tool);
            }
        }
    }
    each
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
        level: AuthLevel::None,
        timeout: Duration::from_millis(limits::TOOL_TIMEOUT_MS),
        contested: false,
        backend: ToolBackend::Knowledge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_names_the_first_wins_under_the_strictest_guards() {
        let at = |server: &str, confirm, idempotent, level| Tool {
            name: "pay".into(),
            backend: ToolBackend::Mcp { server: server.into(), tool: "pay".into() },
            confirm,
            idempotent,
            level,
            ..knowledge_search()
        };
        let first = at("a", false, true, AuthLevel::EndUser);
        let others = [at("b", true, true, AuthLevel::None), at("c", false, false, AuthLevel::None)];
        let all = [vec![knowledge_search(), first], others.to_vec()].concat();
        let built_in =
            Tool { confirm: true, idempotent: false, backend: others[0].backend.clone(), ..knowledge_search() };
        let each = one_of_each([all, vec![built_in]].concat());
        let expected = [knowledge_search(), at("a", true, false, AuthLevel::EndUser)];
        assert_eq!(each, expected, "no other declaration guards a built-in tool");
    }
}
