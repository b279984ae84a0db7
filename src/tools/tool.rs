//! A tool that can be offered to the model.

use std::time::Duration;

use serde_json::Value;

use crate::agents::AuthLevel;

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

    /// Whether the tool passes on a visitor's answers in words.
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
    pub(super) const ALL: Self = Self { has_older: true, interactions: true, asked_in_words: true };
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

impl Tool {
    /// Adds the guards of another tool of this name. A built-in tool keeps its own guards.
    pub(super) fn tighten(&mut self, other: &Self) {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    FetchUrl,
    WebSearch,
    GitHubSearch,
    ConversationHistory,
    RequestIdentityIntake,
    RequestChoices,
    SubmitInteraction,
}
