//! The configuration of an agent.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{limits, subjects};

/// The configuration of an agent. Every field may be left out; the settings of edges and workers then apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AgentConfig {
    /// The agent's name, as shown to visitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The description of the agent as a tool over MCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The agent's role and style: the beginning of the system prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// More instructions, after the persona.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// The greeting at the beginning of a conversation's first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greeting: Option<String>,
    /// The model, unless a message names another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Models that a message may name beside that one: names, or prefixes of names followed by `*`. Left out: the models of
    /// the edges' settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The name of the organisation's secret that holds its key for the gateway. Left out: the workers' own key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_key: Option<String>,
    /// A fast model for a preamble, a sentence shown while the answer is awaited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preamble_model: Option<String>,
    /// The model that judges the steps of the workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_model: Option<String>,
    /// The model that names conversations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_model: Option<String>,
    /// Largest number of model calls in one turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    pub max_iterations: Option<u32>,
    /// Largest number of tokens in one answer of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u32>,
    /// The tools that the agent may use; the first rule that matches a tool counts. Left out: all tools, without rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolRule>>,
    /// Parts of names of tools that wait for approval, in addition to the worker's settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confirm_tools: Vec<String>,
    /// Time for a person to decide, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub human_wait_secs: Option<u32>,
    /// The worker pool of the agent's turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The document sets that answers may use. Left out: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_sets: Option<Vec<String>>,
    /// `metadata` of every request to the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_metadata: Option<Map<String, Value>>,
    /// The skills that clients may name. Left out: all skills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<String>>,
    /// True: the model is asked to suggest replies. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_replies: Option<bool>,
    /// True: the model may ask visitors for their contact or a choice. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interactions: Option<bool>,
    /// The steps of a conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowConfig>,
    /// The pages that may use the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub widget: Option<AgentWidgetPolicy>,
}

/// The rule for one or more tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolRule {
    /// A tool's name, or a prefix of names followed by `*`.
    pub name: String,
    #[serde(default)]
    pub auth_level: AuthLevel,
    /// Calls wait for approval.
    #[serde(default)]
    pub confirm: bool,
    /// The NATS subject of the tool: a tool of this name at another subject is neither offered nor called, and no other
    /// service can take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Settings sent to the tool with each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Map<String, Value>>,
}

/// The identity that a tool demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthLevel {
    #[default]
    None,
    /// A visitor with a proved identity, by a token or a one-time password.
    EndUser,
    /// An administrator of the organisation, by a token.
    Admin,
}

/// The steps of a conversation, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowConfig {
    #[schemars(length(min = 1))]
    pub steps: Vec<WorkflowStep>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowStep {
    pub id: String,
    /// Instructions for the model while the conversation is at this step.
    pub instructions: String,
    /// Condition for the end of the step, in words for the judge.
    pub done_when: String,
    /// Number of answers without finishing the step after which the conversation asks for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_attempts: Option<u32>,
}

/// The pages that may use the agent, in the common form of widget policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "WidgetPolicy")]
pub struct AgentWidgetPolicy {
    /// `https://shop.example.com`, `https://*.example.com`, or `*`; empty = no page.
    pub allowed_origins: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
}

impl AgentConfig {
    /// Parses a configuration; each error is one line.
    pub fn parse(json: &[u8]) -> Result<Self, Vec<String>> {
        if json.len() > limits::AGENT_CONFIG_MAX_BYTES {
            return Err(vec![format!("it is larger than {} bytes", limits::AGENT_CONFIG_MAX_BYTES)]);
        }
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(vec!["it is not a JSON object".into()]);
        }
        let config: Self = serde_json::from_slice(json).map_err(|error| vec![error.to_string()])?;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Returns the rule for a tool; `None`: the agent may not use it.
    pub fn tool_rule(&self, tool: &str) -> Option<ToolRule> {
        match &self.tools {
            None => Some(ToolRule::default()),
            Some(rules) => rules.iter().find(|rule| rule.fits(tool)).cloned(),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut demand = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_string());
            }
        };
        let texts = [
            ("name", &self.name, limits::NAME_MAX_CHARS),
            ("description", &self.description, limits::AGENT_DESCRIPTION_MAX_CHARS),
            ("persona", &self.persona, limits::PERSONA_MAX_CHARS),
            ("systemPrompt", &self.system_prompt, limits::PERSONA_MAX_CHARS),
            ("greeting", &self.greeting, limits::PERSONA_MAX_CHARS),
            ("model", &self.model, limits::NAME_MAX_CHARS),
            ("gatewayKey", &self.gateway_key, limits::NAME_MAX_CHARS),
            ("preambleModel", &self.preamble_model, limits::NAME_MAX_CHARS),
            ("judgeModel", &self.judge_model, limits::NAME_MAX_CHARS),
            ("titleModel", &self.title_model, limits::NAME_MAX_CHARS),
        ];
        for (name, text, max) in texts {
            let fits = text.as_ref().is_none_or(|text| !text.trim().is_empty() && text.chars().count() <= max);
            demand(fits, &format!("{name}: 1 to {max} characters, or left out"));
        }
        demand(self.max_iterations.is_none_or(|n| (1..=200).contains(&n)), "maxIterations: 1 to 200");
        demand(self.max_tokens.is_none_or(|n| n > 0), "maxTokens: at least 1");
        demand(self.human_wait_secs.is_none_or(|n| (1..=604_800).contains(&n)), "humanWaitSecs: 1 to 604800");
        let is_pool = |pool: &String| {
            (1..=64).contains(&pool.len()) && pool.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        demand(self.pool.as_ref().is_none_or(is_pool), "pool: letters, digits, - and _");
        let is_said = |text: &String| !text.trim().is_empty();
        demand(self.confirm_tools.iter().all(is_said), "confirmTools: a blank entry would fit every tool");
        demand(self.document_sets.iter().flatten().all(is_said), "documentSets: a blank entry");
        demand(self.skills.iter().flatten().all(is_said), "skills: a blank entry");
        demand(self.tools.iter().flatten().all(|rule| is_said(&rule.name)), "tools: a rule without a name");
        for rule in self.tools.iter().flatten() {
            let is_tool = |subject: &String| subjects::is_call(subjects::TOOL_CALLS, subject);
            let is_pinned = rule.subject.as_ref().is_none_or(|subject| is_tool(subject) && !rule.name.ends_with('*'));
            let wanted = format!("tools: the subject of `{}` is a literal one below tool., of one tool", rule.name);
            demand(is_pinned, &wanted);
            let bytes = rule.settings.as_ref().map_or(0, |settings| Value::Object(settings.clone()).to_string().len());
            let max = limits::TOOL_SETTINGS_MAX_BYTES;
            demand(bytes <= max, &format!("tools: the settings of `{}` are larger than {max} bytes", rule.name));
        }
        if let Some(workflow) = &self.workflow {
            workflow.check(&mut demand);
        }
        problems
    }
}

impl ToolRule {
    fn fits(&self, tool: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => tool.starts_with(beginning),
            None => tool == self.name,
        }
    }
}

impl WorkflowConfig {
    fn check(&self, demand: &mut impl FnMut(bool, &str)) {
        demand(!self.steps.is_empty(), "workflow: at least one step");
        let ids: HashSet<&str> = self.steps.iter().map(|step| step.id.as_str()).collect();
        demand(ids.len() == self.steps.len(), "workflow: each step has an id of its own");
        for step in &self.steps {
            let texts = [&step.id, &step.instructions, &step.done_when];
            let is_whole = texts.iter().all(|text| !text.trim().is_empty()) && step.max_attempts != Some(0);
            demand(
                is_whole,
                &format!("workflow: step `{}` needs id, instructions, doneWhen, and maxAttempts from 1", step.id),
            );
        }
    }

    /// Returns the current step of a conversation, with its index; a step that was removed becomes the first one again.
    pub fn current(&self, step: Option<&str>) -> (usize, &WorkflowStep) {
        let at = self.steps.iter().position(|known| Some(known.id.as_str()) == step).unwrap_or(0);
        (at, &self.steps[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(config: Value) -> Vec<String> {
        AgentConfig::parse(config.to_string().as_bytes()).err().unwrap_or_default()
    }

    #[test]
    fn all_problems_of_a_configuration_are_reported_at_once() {
        assert_eq!(problems(json!({})), Vec::<String>::new());
        let found = problems(json!({
            "persona": " ", "maxIterations": 0, "humanWaitSecs": 700_000, "pool": "a.b", "confirmTools": [""],
            "workflow": { "steps": [{ "id": "a", "instructions": "", "doneWhen": "x" }] },
        }));
        let names: Vec<&str> = found.iter().map(|problem| problem.split(':').next().unwrap()).collect();
        assert_eq!(names, ["persona", "maxIterations", "humanWaitSecs", "pool", "confirmTools", "workflow"]);
        assert!(problems(json!({ "persoma": "x" }))[0].contains("persoma"));
        assert!(problems(json!({ "tools": [{ "name": "x", "authLevel": "root" }] }))[0].contains("root"));
        assert!(problems(json!({ "persona": "x".repeat(limits::AGENT_CONFIG_MAX_BYTES) }))[0].contains("larger"));
    }

    #[test]
    fn the_first_matching_rule_of_a_tool_applies() {
        let config = AgentConfig {
            tools: Some(vec![
                ToolRule { name: "order_status".into(), ..ToolRule::default() },
                ToolRule { name: "order_*".into(), confirm: true, ..ToolRule::default() },
            ]),
            ..AgentConfig::default()
        };
        let confirm = |tool| config.tool_rule(tool).map(|rule| rule.confirm);
        assert_eq!(
            [confirm("order_status"), confirm("order_cancel"), confirm("refund")],
            [Some(false), Some(true), None]
        );
        assert_eq!(AgentConfig::default().tool_rule("refund"), Some(ToolRule::default()));
    }

    #[test]
    fn a_removed_step_falls_back_to_the_first_one() {
        let step = |id: &str| WorkflowStep {
            id: id.into(),
            instructions: "do".into(),
            done_when: "done".into(),
            max_attempts: None,
        };
        let workflow = WorkflowConfig { steps: vec![step("a"), step("b")] };
        let current = |id| workflow.current(id).1.id.clone();
        assert_eq!([current(None), current(Some("b")), current(Some("gone"))], ["a", "b", "a"]);
    }
}
