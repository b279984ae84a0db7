//! The configuration of agents: the guide's example and the schema, as the program accepts them.

use std::fs;

use serde_json::{Value, json};
use turnstream::agents::AgentConfig;

use crate::{assert_valid, json_file, path, validator};

/// Returns the example in the guide.
fn example() -> Value {
    let guide = fs::read_to_string(path("spec/guide/agents.md")).unwrap();
    let (_, section) = guide.split_once("\n## The configuration of an agent\n").unwrap();
    let (_, block) = section.split_once("```json\n").unwrap();
    serde_json::from_str(block.split("```").next().unwrap()).unwrap()
}

fn takes(config: &Value) -> bool {
    AgentConfig::parse(config.to_string().as_bytes()).is_ok()
}

#[test]
fn the_guides_example_round_trips() {
    let example = example();
    assert_valid(&validator(&json_file("spec/agent.schema.json")), &example, "the example");
    let config = AgentConfig::parse(example.to_string().as_bytes()).unwrap();
    let again = serde_json::to_value(&config).unwrap();
    assert_eq!(AgentConfig::parse(again.to_string().as_bytes()).unwrap(), config);
    assert!(config.tool_rule("order_cancel").unwrap().confirm && config.tool_rule("refund").is_none());
}

#[test]
fn the_program_refuses_invalid_configurations_like_the_schema() {
    let schema = validator(&json_file("spec/agent.schema.json"));
    for wrong in [
        json!([]),
        json!({ "persoma": "" }),
        json!({ "persona": 7 }),
        json!({ "maxIterations": 0 }),
        json!({ "maxIterations": 201 }),
        json!({ "humanWaitSecs": 604_801 }),
        json!({ "tools": [{ "authLevel": "end_user" }] }),
        json!({ "tools": [{ "name": "x", "authLevel": "root" }] }),
        json!({ "workflow": { "steps": [] } }),
        json!({ "workflow": { "steps": [{ "id": "a" }] } }),
        json!({ "widget": { "allowedOrigins": [] } }),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
        assert!(!takes(&wrong), "{wrong}");
    }
    for right in [json!({}), json!({ "tools": [] }), json!({ "widget": { "allowed_origins": ["*"] } })] {
        assert_valid(&schema, &right, "a configuration");
        assert!(takes(&right), "{right}");
    }
}
