//! The settings of one turn: the worker's, overridden by the version of the agent's configuration that the turn names.

use std::{sync::Arc, time::Duration};

use super::Worker;
use crate::{
    agents::{
        AgentConfig, AuthLevel,
        config::{ToolRule, WorkflowStep},
    },
    domain::{Conversation, Turn},
    knowledge::KnowledgeReader,
    model::Gateway,
    nats::ReadError,
    subjects::ConversationKey,
    tools::{BuiltinOffer, Tool},
};

const DEFAULT_PERSONA: &str = "You are a helpful, friendly support agent. Answer briefly and plainly. \
    Rely on the knowledge that you are given and on your tools; when they do not hold the answer, say so.";

/// The settings of one turn.
#[derive(Clone)]
pub(super) struct TurnProfile {
    worker: Arc<Worker>,
    agent: Arc<AgentConfig>,
    /// The gateway, with the key of the turn's organisation. `None`: the organisation has no key.
    pub gateway: Option<Gateway>,
    /// The turn names a configuration that does not exist. Continuing without it could drop its demands.
    pub is_missing: bool,
}

/// A demand that a visitor must meet before a tool may be called for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthDemand {
    ProveIdentity,
    BeAdministrator,
}

impl TurnProfile {
    /// Loads the profile of a turn.
    pub async fn of(worker: &Arc<Worker>, key: &ConversationKey, turn: &Turn) -> Result<Self, ReadError> {
        let found = match &turn.request.agent_config {
            Some(version) => worker.agents.version(&key.org, version).await?,
            None => Some(Arc::default()),
        };
        let is_missing = found.is_none();
        let agent = found.unwrap_or_default();
        let gateway = worker.gateways.of(&key.org, agent.gateway_key.as_deref()).await;
        Ok(Self { worker: worker.clone(), agent, gateway, is_missing })
    }

    /// Returns the model that answers.
    pub fn model(&self, turn: &Turn) -> String {
        let chosen = turn.request.model.as_ref().or(self.agent.model.as_ref());
        chosen.unwrap_or(&self.worker.settings.model).clone()
    }

    pub fn preamble_model(&self) -> Option<&String> {
        self.agent.preamble_model.as_ref().or(self.worker.settings.preamble_model.as_ref())
    }

    /// Returns the model that names conversations.
    pub fn title_model(&self) -> Option<&String> {
        self.agent.title_model.as_ref().or(self.worker.settings.title_model.as_ref())
    }

    /// Returns the model that judges workflow steps; by default the model that answers.
    pub fn judge_model(&self, turn: &Turn) -> String {
        let chosen = self.agent.judge_model.as_ref().or(self.worker.settings.judge_model.as_ref());
        chosen.cloned().unwrap_or_else(|| self.model(turn))
    }

    pub fn max_iterations(&self) -> u32 {
        self.agent.max_iterations.unwrap_or(self.worker.settings.max_iterations)
    }

    pub fn max_tokens(&self) -> u32 {
        self.agent.max_tokens.unwrap_or(self.worker.settings.max_tokens)
    }

    pub fn human_wait(&self) -> Duration {
        Duration::from_secs(self.agent.human_wait_secs.unwrap_or(self.worker.settings.human_wait_secs).into())
    }

    /// Whether the agent may ask visitors something.
    pub fn asks_visitors(&self) -> bool {
        self.agent.interactions.unwrap_or(true)
    }

    pub fn persona(&self) -> &str {
        self.agent.persona.as_deref().unwrap_or(DEFAULT_PERSONA)
    }

    pub fn system_prompt(&self) -> Option<&str> {
        self.agent.system_prompt.as_deref()
    }

    pub fn greeting(&self) -> Option<&str> {
        self.agent.greeting.as_deref()
    }

    pub fn gateway_metadata(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        self.agent.gateway_metadata.clone()
    }

    pub fn suggests_replies(&self) -> bool {
        self.agent.suggested_replies.unwrap_or(true)
    }

    /// Returns the index of the conversation's current step, the number of steps, and the step; `None`: no workflow, or it
    /// is finished.
    pub fn workflow_step(&self, state: &Conversation) -> Option<(usize, usize, &WorkflowStep)> {
        let workflow = self.agent.workflow.as_ref().filter(|_| !state.workflow.finished)?;
        let (at, step) = workflow.current(state.workflow.step.as_deref());
        Some((at, workflow.steps.len(), step))
    }

    /// Returns the step after the one at this index.
    pub fn step_after(&self, at: usize) -> Option<&WorkflowStep> {
        self.agent.workflow.as_ref()?.steps.get(at + 1)
    }

    /// Returns the identity for retrieval: the asking user, limited to the agent's document sets.
    pub fn reader(&self, key: &ConversationKey, turn: &Turn) -> KnowledgeReader {
        let (user, groups) = match &turn.request.asker {
            Some(asker) => (Some(asker.user.clone()), asker.groups.clone()),
            None => (None, vec![]),
        };
        KnowledgeReader { org: key.org.clone(), user, groups, sets: self.agent.document_sets.clone() }
    }

    /// Returns the tools for the model, ordered by name.
    pub fn offered(&self, key: &ConversationKey, state: &Conversation, has_older: bool) -> Vec<Tool> {
        let offer =
            BuiltinOffer { has_older, interactions: self.asks_visitors(), asked_in_words: state.asked.is_some() };
        self.worker.tools.offered(&key.org, &offer, |tool| self.may_use(tool))
    }

    /// Returns whether the agent's configuration allows this tool, at its present subject.
    fn may_use(&self, tool: &Tool) -> bool {
        self.agent.tool_rule(&tool.name).is_some_and(|rule| tool.fits_pin(rule.subject.as_deref()))
    }

    /// Returns a tool that the agent may use, with its rule.
    pub fn tool(&self, key: &ConversationKey, name: &str) -> Option<(Tool, ToolRule)> {
        let rule = self.agent.tool_rule(name)?;
        let tool = self.worker.tools.find(&key.org, name, |tool| self.may_use(tool))?;
        let is_off = tool.asks_visitors() && self.agent.interactions == Some(false);
        (!is_off).then_some((tool, rule))
    }

    /// Returns whether a person must approve a call of this tool.
    pub fn needs_approval(&self, tool: &Tool, rule: &ToolRule) -> bool {
        let name = tool.name.to_lowercase();
        let is_named = |pattern: &String| name.contains(&pattern.to_lowercase());
        tool.confirm
            || rule.confirm
            || self.worker.settings.confirm_tools.iter().any(is_named)
            || self.agent.confirm_tools.iter().any(is_named)
    }

    /// Returns the unmet demand of a tool; `None`: it may be called.
    pub fn demands(&self, state: &Conversation, turn: &Turn, tool: &Tool, rule: &ToolRule) -> Option<AuthDemand> {
        let name = tool.name.to_lowercase();
        let is_gated = self.worker.settings.auth_tools.iter().any(|pattern| pattern == "*" || name.contains(pattern));
        let asker = turn.request.asker.as_ref();
        let is_verified = || state.known(turn.request.session).is_some_and(|known| known.verified);
        // A demand of the tool's own service holds on every worker.
        let level = if is_gated { rule.auth_level.max(tool.level) } else { tool.level };
        match level {
            AuthLevel::EndUser if asker.is_none() && !is_verified() => Some(AuthDemand::ProveIdentity),
            AuthLevel::Admin if !asker.is_some_and(|asker| asker.is_admin) => Some(AuthDemand::BeAdministrator),
            AuthLevel::None | AuthLevel::EndUser | AuthLevel::Admin => None,
        }
    }
}
