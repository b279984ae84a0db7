//! What an MCP server says of its tools, as tools that the model is offered.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::registry::{Place, Tool};
use crate::{agents::AuthLevel, config::McpServer, limits};

/// The tools of a server, ordered by name. One that can't be offered is reported and left out.
pub fn tools(settings: &McpServer, listed: Vec<rmcp::model::Tool>) -> Vec<Tool> {
    let allowed = |tool: &rmcp::model::Tool| match &settings.tools {
        Some(tools) => tools.iter().any(|name| *name == tool.name),
        None => true,
    };
    let mut tools: Vec<Tool> = listed.into_iter().filter(allowed).filter_map(|tool| offered(settings, tool)).collect();
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools.dedup_by(|second, first| {
        let same = second.name == first.name;
        if same {
            tracing::warn!(server = settings.name, tool = first.name, "two tools get one name; one is not offered");
        }
        same
    });
    tools
}

fn offered(settings: &McpServer, tool: rmcp::model::Tool) -> Option<Tool> {
    let name = offered_name(&settings.name, &tool.name);
    let mut parameters = Value::Object(tool.input_schema.as_ref().clone());
    if parameters.to_string().len() > limits::MCP_SCHEMA_MAX_BYTES {
        tracing::warn!(server = settings.name, tool = name, "a tool's schema is too large; it is not offered");
        return None;
    }
    if parameters.get("type").is_none() {
        parameters["type"] = json!("object");
    }
    let mut description = tool.description.unwrap_or_default().into_owned();
    description.truncate(description.floor_char_boundary(limits::MCP_DESCRIPTION_MAX_BYTES));
    let hints = tool.annotations.unwrap_or_default();
    let harmless = hints.read_only_hint == Some(true) || hints.idempotent_hint == Some(true);
    let idempotent = settings.idempotent.as_ref().map_or(harmless, |which| which.includes(&tool.name));
    let most = Duration::from_millis(limits::TOOL_TIMEOUT_MAX_MS);
    Some(Tool {
        description,
        parameters,
        org: settings.org.clone(),
        confirm: settings.confirm.includes(&tool.name),
        idempotent,
        level: AuthLevel::None,
        contested: false,
        timeout: settings.timeout.unwrap_or(Duration::from_millis(limits::TOOL_TIMEOUT_MS)).min(most),
        place: Place::Mcp { server: settings.name.clone(), tool: tool.name.into_owned() },
        name,
    })
}

/// `{server}__{tool}`, in the letters and the length that models' interfaces take.
fn offered_name(server: &str, tool: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    format!("{server}__{tool}").chars().map(legal).take(limits::TOOL_NAME_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rmcp::model::ToolAnnotations;

    use super::*;
    use crate::config::{McpLink, Which};

    fn settings() -> McpServer {
        McpServer {
            name: "srv".into(),
            link: McpLink::Http { url: "http://x/".parse().unwrap(), headers: vec![] },
            org: None,
            confirm: Which::Parts(vec!["write".into()]),
            idempotent: None,
            timeout: Some(Duration::MAX),
            tools: None,
        }
    }

    fn listed(name: &'static str) -> rmcp::model::Tool {
        rmcp::model::Tool::new(name, "d", Arc::new(Default::default()))
    }

    #[test]
    fn names_are_made_legal_and_told_apart() {
        let offered = tools(&settings(), vec![listed("a.b"), listed("a/b"), listed(&"é".repeat(99).leak()[..])]);
        let names: Vec<&str> = offered.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, [format!("srv__{}", "_".repeat(59)).as_str(), "srv__a_b"]);
        assert_eq!(offered[1].place, Place::Mcp { server: "srv".into(), tool: "a.b".into() });
        assert_eq!(offered[1].timeout, Duration::from_millis(limits::TOOL_TIMEOUT_MAX_MS));
        assert_eq!(offered[1].parameters["type"], "object");
    }

    #[test]
    fn what_a_tool_says_of_itself_counts_unless_the_configuration_says_otherwise() {
        let reads = listed("read").with_annotations(ToolAnnotations::new().read_only(true));
        let mut settings = settings();
        let offered = tools(&settings, vec![reads.clone(), listed("overwrite")]);
        assert!(!offered[0].idempotent && offered[0].confirm, "overwrite");
        assert!(offered[1].idempotent && !offered[1].confirm, "read");
        settings.idempotent = Some(Which::None);
        settings.tools = Some(vec!["read".into()]);
        let offered = tools(&settings, vec![reads, listed("overwrite")]);
        assert_eq!((offered.len(), offered[0].idempotent), (1, false));
    }
}
