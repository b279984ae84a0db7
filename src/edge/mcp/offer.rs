//! Agents as tools: the agents that a visitor may use, and their descriptions.

use std::{collections::BTreeMap, sync::Arc};

use data_encoding::HEXLOWER;
use rmcp::model::{JsonObject, Tool};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{super::Edge, McpVisitor};
use crate::{
    agents::{AgentConfig, DEFAULT},
    auth::REFERENCE_ORG,
    domain::title,
    limits,
};

/// An agent that a visitor may use.
pub struct OfferedAgent {
    pub id: String,
    /// The name of the agent's tool.
    pub tool: String,
    config: Option<Arc<AgentConfig>>,
}

/// Returns the agents that a visitor may use, by the names of their tools.
///
/// These are the agents that the organisation has configured; for visitors without a token also the agents that a widget's
/// policy names. An organisation without a configured agent has the agent of the settings, [`DEFAULT`]. The policies that
/// decide about sessions decide here.
pub async fn agents(edge: &Edge, visitor: &McpVisitor) -> BTreeMap<String, OfferedAgent> {
    let org = visitor.principal.as_ref().map_or(REFERENCE_ORG, |principal| &principal.org);
    let mut ids: Vec<String> = edge.agents.of(org).into_keys().collect();
    if ids.is_empty() {
        ids.push(DEFAULT.to_string());
    }
    if visitor.principal.is_none() {
        ids.extend(edge.agents.with_widgets());
    }
    let mut offered = BTreeMap::new();
    for id in ids {
        if !edge.widgets.allows(&id, visitor.origin.as_deref()).await {
            continue;
        }
        let widget = edge.agents.widget(&id);
        let org = widget.map_or_else(|| org.to_string(), |(org, policy)| policy.organization_id.unwrap_or(org));
        let config = edge.agents.find(&org, &id).map(|(_, config)| config);
        let tool = tool_name(&id);
        offered.insert(tool.clone(), OfferedAgent { id, tool, config });
    }
    offered
}

impl OfferedAgent {
    /// Describes the agent as a tool.
    pub fn tool(&self) -> Tool {
        let name = self.config.as_ref().and_then(|config| config.name.as_deref());
        let name = title::one_line(name.unwrap_or(&self.id));
        let own = self.config.as_ref().and_then(|config| config.description.clone());
        let description = own.unwrap_or_else(|| {
            format!("Sends a message to the agent “{name}” and returns its answer. Name `conversationId` to go on.")
        });
        let mut tool = Tool::new(self.tool.clone(), description, object(input_schema()));
        tool.title = Some(name);
        tool.output_schema = Some(Arc::new(object(output_schema())));
        tool
    }
}

/// Maps the agent's id to the letters and the length of tool names; a changed name gets a hash.
fn tool_name(agent: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let name: String = agent.chars().map(legal).take(limits::TOOL_NAME_MAX_CHARS).collect();
    if name == agent {
        return name;
    }
    let hash = HEXLOWER.encode(&Sha256::digest(agent)[..4]);
    let kept = name.len().min(limits::TOOL_NAME_MAX_CHARS - hash.len() - 1);
    format!("{}_{hash}", &name[..kept])
}

fn input_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "message": { "type": "string", "description": "The message, in words.", "minLength": 1, "maxLength": limits::MESSAGE_MAX_CHARS },
            "conversationId": { "type": "string", "description": "The conversation to go on with, as an earlier answer names it. Left out: a new one." },
            "sessionId": { "type": "string", "description": "The session of that conversation, as an earlier answer names it. Callers without a token need it to go on." },
        },
        "required": ["message"],
        "additionalProperties": false,
    })
}

fn output_schema() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": {
            "status": { "type": "string", "enum": ["answered", "waiting", "failed"] },
            "conversationId": text,
            "sessionId": text,
            "citations": { "type": "array", "items": { "type": "object" } },
            "needsEscalation": { "type": "boolean" },
            "waitingFor": { "type": "object" },
            "code": text,
        },
        "required": ["status"],
    })
}

fn object(schema: Value) -> JsonObject {
    match schema {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_name_gets_a_hash() {
        assert_eq!(tool_name("support-2_b"), "support-2_b");
        let names: Vec<String> = ["a b", "a.b", "ä", &"x".repeat(65), ""].into_iter().map(tool_name).collect();
        for name in &names[..4] {
            assert!(name.len() <= limits::TOOL_NAME_MAX_CHARS, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{name}");
        }
        assert!(names[0].starts_with("a_b_") && names[1].starts_with("a_b_") && names[0] != names[1], "{names:?}");
    }
}
