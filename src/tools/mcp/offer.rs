//! An MCP server's listed tools, converted to tools that the model is offered.

use std::{collections::HashMap, time::Duration};

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    agents::AuthLevel,
    config::McpServer,
    limits,
    tools::{
        claims::RefusedDeclaration,
        schema::{self, NormalizedSchema},
        tool::{Tool, ToolBackend},
    },
};

/// Returns the tools of a server, ordered by name. A tool that can't be offered is left out; remarks go to `notices`.
pub fn tools(settings: &McpServer, listed: Vec<rmcp::model::Tool>, notices: &mut Vec<RefusedDeclaration>) -> Vec<Tool> {
    let allowed = |tool: &rmcp::model::Tool| match &settings.tools {
        Some(tools) => tools.iter().any(|name| *name == tool.name),
        None => true,
    };
    let mut listed: Vec<rmcp::model::Tool> = listed.into_iter().filter(allowed).collect();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let mut notice = |tool: &str, why: String| {
        notices.push(RefusedDeclaration { service: settings.name.clone(), tool: tool.into(), why });
    };
    listed.dedup_by(|second, first| {
        let same = second.name == first.name;
        if same {
            notice(&first.name, "the tool is listed twice; the first entry counts".into());
        }
        same
    });
    let mut plain: HashMap<String, usize> = HashMap::new();
    for tool in &listed {
        *plain.entry(offered_name(&settings.name, &tool.name)).or_default() += 1;
    }
    let mut tools = Vec::new();
    for tool in listed {
        let mut name = offered_name(&settings.name, &tool.name);
        let exact = format!("{}__{}", settings.name, tool.name);
        // A name that was altered to be legal must not be taken for another tool's.
        if plain[&name] > 1 && name != exact {
            name = hashed_name(&name, &exact);
        }
        match offered(settings, tool, name) {
            Ok((tool, lost)) => {
                lost.into_iter().for_each(|why| notice(&tool.name, why));
                tools.push(tool);
            }
            Err((tool, why)) => notice(&tool, format!("{why}; the tool is not offered")),
        }
    }
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools
}

/// Converts a tool; returns the parts that were left out, or its name and the reason why it is not offered.
fn offered(
    settings: &McpServer,
    tool: rmcp::model::Tool,
    name: String,
) -> Result<(Tool, Vec<String>), (String, String)> {
    let schema = Value::Object(tool.input_schema.as_ref().clone());
    let normal = schema::normal(&schema, limits::MCP_SCHEMA_MAX_BYTES);
    let NormalizedSchema { schema: parameters, lost } = normal.map_err(|why| (name.clone(), why))?;
    let mut description = tool.description.unwrap_or_default().into_owned();
    description.truncate(description.floor_char_boundary(limits::MCP_DESCRIPTION_MAX_BYTES));
    let hints = tool.annotations.unwrap_or_default();
    let harmless = hints.read_only_hint == Some(true) || hints.idempotent_hint == Some(true);
    let idempotent = settings.idempotent.as_ref().map_or(harmless, |which| which.includes(&tool.name));
    let most = Duration::from_millis(limits::TOOL_TIMEOUT_MAX_MS);
    let tool = Tool {
        description,
        parameters,
        org: settings.org.clone(),
        confirm: settings.confirm.includes(&tool.name),
        idempotent,
        level: AuthLevel::None,
        contested: false,
        timeout: settings.timeout.unwrap_or(Duration::from_millis(limits::TOOL_TIMEOUT_MS)).min(most),
        backend: ToolBackend::Mcp { server: settings.name.clone(), tool: tool.name.into_owned() },
        name,
    };
    Ok((tool, lost))
}

/// Returns `{server}__{tool}`, in the letters and the length that models' interfaces take.
fn offered_name(server: &str, tool: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    format!("{server}__{tool}").chars().map(legal).take(limits::TOOL_NAME_MAX_CHARS).collect()
}

/// Returns the name with a hash of the original name appended.
fn hashed_name(name: &str, exact: &str) -> String {
    let hash = HEXLOWER.encode(&Sha256::digest(exact)[..4]);
    let kept = name.len().min(limits::TOOL_NAME_MAX_CHARS - hash.len() - 1);
    format!("{}_{hash}", &name[..kept])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rmcp::model::ToolAnnotations;

    use super::*;
    use crate::config::{McpLink, ToolSelection};

    fn settings() -> McpServer {
        McpServer {
            name: "srv".into(),
            link: McpLink::Http { url: "http://x/".parse().unwrap(), headers: vec![] },
            org: None,
            confirm: ToolSelection::Parts(vec!["write".into()]),
            idempotent: None,
            timeout: Some(Duration::MAX),
            tools: None,
            handshake: false,
        }
    }

    fn listed(name: &'static str) -> rmcp::model::Tool {
        rmcp::model::Tool::new(name, "d", Arc::new(Default::default()))
    }

    #[test]
    fn names_are_made_legal_and_unique() {
        let long = |end: &str| listed(format!("{}{end}", "x".repeat(90)).leak());
        let all = vec![
            listed("a.b"),
            listed("a/b"),
            listed("c d"),
            listed("e_f"),
            listed("e.f"),
            long("1"),
            long("2"),
            listed("e_f"),
        ];
        let mut notices = Vec::new();
        let offered = tools(&settings(), all.clone(), &mut notices);
        let names: Vec<&str> = offered.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!((names.len(), notices.len()), (7, 1), "{names:?} {notices:?}");
        assert!(names.contains(&"srv__c_d") && names.contains(&"srv__e_f"), "nothing else is like them: {names:?}");
        let distinct: std::collections::HashSet<&&str> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| name.len() <= limits::TOOL_NAME_MAX_CHARS), "{names:?}");
        let reversed: Vec<_> = all.into_iter().rev().collect();
        assert_eq!(tools(&settings(), reversed, &mut vec![]), offered, "whatever the order");
        let exact = offered.iter().find(|tool| tool.name == "srv__e_f").unwrap();
        assert_eq!(exact.backend, ToolBackend::Mcp { server: "srv".into(), tool: "e_f".into() });
        assert_eq!(exact.timeout, Duration::from_millis(limits::TOOL_TIMEOUT_MAX_MS));
        assert_eq!(exact.parameters, serde_json::json!({"type": "object", "properties": {}}));
    }

    #[test]
    fn an_unusable_schema_drops_only_its_tool() {
        let with = |name: &'static str, schema: Value| {
            rmcp::model::Tool::new(name, "d", Arc::new(schema.as_object().unwrap().clone()))
        };
        let all = vec![
            with("text", serde_json::json!({"type": "string"})),
            with("filter", serde_json::json!({"properties": {"$filter": {}, "top": {}}})),
            with("good", serde_json::json!({"properties": {"a": {"type": ["string", "null"]}}})),
        ];
        let mut notices = Vec::new();
        let offered = tools(&settings(), all, &mut notices);
        let names: Vec<&str> = offered.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["srv__filter", "srv__good"]);
        assert_eq!(offered[1].parameters["properties"]["a"]["type"], "string");
        let said: Vec<&str> = notices.iter().map(|notice| notice.tool.as_str()).collect();
        assert_eq!(said, ["srv__filter", "srv__text"], "{notices:?}");
    }

    #[test]
    fn a_tools_annotations_apply_unless_configured_otherwise() {
        let reads = listed("read").with_annotations(ToolAnnotations::new().read_only(true));
        let mut settings = settings();
        let offered = tools(&settings, vec![reads.clone(), listed("overwrite")], &mut vec![]);
        assert!(!offered[0].idempotent && offered[0].confirm, "overwrite");
        assert!(offered[1].idempotent && !offered[1].confirm, "read");
        settings.idempotent = Some(ToolSelection::None);
        settings.tools = Some(vec!["read".into()]);
        let offered = tools(&settings, vec![reads, listed("overwrite")], &mut vec![]);
        assert_eq!((offered.len(), offered[0].idempotent), (1, false));
    }
}
