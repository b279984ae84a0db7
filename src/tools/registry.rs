//! The registry of tools: built-in ones, those of the latest discovery, those of MCP servers.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    builtin::{Builtin, Builtins},
    files::FileLender,
    mcp::McpTools,
};
use crate::{agents::AuthLevel, calls::ServiceCaller, knowledge::Retriever, limits};

/// A tool that can be offered to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// The only organisation that may use the tool; `None` = all.
    pub org: Option<String>,
    /// The call waits for a person's approval.
    pub confirm: bool,
    /// The call may be repeated with the same idempotency key.
    pub idempotent: bool,
    /// The level of authentication that a visitor needs, as the tool's service declares it.
    pub level: AuthLevel,
    pub timeout: Duration,
    /// Another service holds the name or the subject: the tool is offered only where an agent's configuration pins it.
    pub contested: bool,
    pub backend: ToolBackend,
}

impl Tool {
    /// Returns whether the tool asks visitors for input, or passes their answer on.
    pub fn asks_visitors(&self) -> bool {
        use Builtin::{RequestChoices, RequestIdentityIntake, SubmitInteraction};
        matches!(self.backend, ToolBackend::Builtin(RequestChoices | RequestIdentityIntake | SubmitInteraction))
    }

    /// Whether the tool passes on what a visitor has answered in words.
    pub fn passes_answers_on(&self) -> bool {
        self.backend == ToolBackend::Builtin(Builtin::SubmitInteraction)
    }
}

/// The conditions of a conversation that decide which built-in tools are offered.
pub struct BuiltinOffer {
    /// The conversation is longer than the model's context.
    pub has_older: bool,
    /// Visitors may be asked for their contact or a choice.
    pub interactions: bool,
    /// A question that was asked in words is still open.
    pub asked_in_words: bool,
}

impl BuiltinOffer {
    const ALL: Self = Self { has_older: true, interactions: true, asked_in_words: true };
}

/// The place where a tool runs.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolBackend {
    /// `knowledge_search`, in this process.
    Knowledge,
    /// Another built-in tool, in this process.
    Builtin(Builtin),
    /// The endpoint of a NATS micro service.
    Endpoint { subject: String },
    /// A tool of an MCP server, by the server's own name for it.
    Mcp { server: String, tool: String },
}

impl Tool {
    /// Returns whether an organisation may use the tool.
    pub fn is_for(&self, org: &str) -> bool {
        self.org.as_ref().is_none_or(|only| only == org)
    }
}

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

impl Tool {
    /// Adds the guards of another tool of this name. A built-in tool keeps its own guards.
    fn tighten(&mut self, other: &Self) {
        if !matches!(self.backend, ToolBackend::Knowledge | ToolBackend::Builtin(_)) {
            self.confirm |= other.confirm;
            self.idempotent &= other.idempotent;
            self.level = self.level.max(other.level);
        }
    }

    /// Returns whether an agent's rule allows this tool: a rule with a subject allows the tool at that subject alone.
    pub fn fits_pin(&self, subject: Option<&str>) -> bool {
        match (subject, &self.backend) {
            (Some(pinned), ToolBackend::Endpoint { subject }) => pinned == subject,
            (Some(_), _) => false,
            (None, _) => !self.contested,
        }
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
