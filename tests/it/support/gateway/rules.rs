//! The rules that the big providers publish for requests, and refuse with 400 to break.

use serde_json::Value;

/// Returns the reason to refuse a request, if there is one.
pub fn refusal(request: &Value) -> Option<String> {
    let messages = request["messages"].as_array()?;
    let mut last = "";
    let mut open: Vec<&Value> = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && !open.is_empty() {
            return Some(format!("messages.{n}: tool_calls without a result: {open:?}"));
        }
        match role {
            "system" if n > 0 => return Some(format!("messages.{n}: the system message must come first, and alone")),
            "system" => {}
            "user" if last == "user" => return Some(format!("messages.{n}: roles must alternate user/assistant")),
            "assistant" if !matches!(last, "user" | "tool") => {
                return Some(format!("messages.{n}: roles must alternate user/assistant, beginning with user"));
            }
            "tool" => match open.iter().position(|id| **id == message["tool_call_id"]) {
                Some(at) => drop(open.remove(at)),
                None => return Some(format!("messages.{n}: a result of no call of the message before it")),
            },
            "user" | "assistant" => {}
            other => return Some(format!("messages.{n}: unknown role {other}")),
        }
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        if is_blank(&message["content"]) && calls.is_empty() {
            return Some(format!("messages.{n}: content must not be blank"));
        }
        if message["content"].as_str().is_some_and(|text| text.trim().is_empty()) {
            return Some(format!("messages.{n}: text content must not be blank"));
        }
        if let Some(why) = calls.iter().find_map(call_refusal) {
            return Some(format!("messages.{n}.{why}"));
        }
        open = if role == "tool" { open } else { calls.iter().map(|call| &call["id"]).collect() };
        last = if role == "system" { "" } else { role };
    }
    if !open.is_empty() {
        return Some("the last tool_calls have no result".into());
    }
    let tools = request["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    if tools.is_empty() && messages.iter().any(|message| message["tool_calls"].is_array()) {
        return Some("calls without tools: `tools=` param must be set when messages hold tool calls".into());
    }
    tools.iter().find_map(tool_refusal)
}

fn is_blank(content: &Value) -> bool {
    match content {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(parts) => parts.is_empty(),
        _ => true,
    }
}

fn is_name(name: &Value) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    name.as_str().is_some_and(|name| (1..=64).contains(&name.len()) && name.chars().all(legal))
}

fn call_refusal(call: &Value) -> Option<String> {
    let function = &call["function"];
    let arguments = function["arguments"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if !arguments.is_some_and(|arguments| arguments.is_object()) {
        return Some(format!("arguments are no JSON object: {}", function["arguments"]));
    }
    (!is_name(&function["name"])).then(|| format!("not a name: {}", function["name"]))
}

/// Checks a tool by the strictest rules of OpenAI, Anthropic and Google.
fn tool_refusal(tool: &Value) -> Option<String> {
    let function = &tool["function"];
    let schema = &function["parameters"];
    if !is_name(&function["name"]) {
        return Some(format!("tools: not a name: {}", function["name"]));
    }
    if schema["type"] != "object" || !schema["properties"].is_object() {
        return Some(format!("tools: {}: a schema must be of an object with properties: {schema}", function["name"]));
    }
    for root in ["anyOf", "oneOf", "allOf", "not", "enum", "$ref"] {
        if !schema[root].is_null() {
            return Some(format!("tools: {}: `{root}` at the root of a schema", function["name"]));
        }
    }
    schema_refusal(schema).map(|why| format!("tools: {}: {why}", function["name"]))
}

/// Keywords that all three accept.
const KEYWORDS: [&str; 17] = [
    "type",
    "title",
    "description",
    "default",
    "enum",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "items",
    "minItems",
    "maxItems",
    "properties",
    "required",
    "additionalProperties",
];

fn schema_refusal(schema: &Value) -> Option<String> {
    let Value::Object(fields) = schema else { return Some(format!("no schema: {schema}")) };
    if let Some(all) = fields.get("anyOf") {
        let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
        if fields.len() > 1 || all.len() < 2 {
            return Some(format!("anyOf must be the only field set, and hold alternatives: {schema}"));
        }
        return all.iter().find_map(schema_refusal);
    }
    if let Some(unknown) = fields.keys().find(|name| !KEYWORDS.contains(&name.as_str())) {
        return Some(format!("Unknown name \"{unknown}\": Cannot find field: {schema}"));
    }
    if !matches!(schema["type"].as_str(), Some("string" | "number" | "integer" | "boolean" | "array" | "object")) {
        return Some(format!("schema didn't specify the schema type field: {schema}"));
    }
    if let Some(names) = fields.get("enum") {
        let is_name = |name: &Value| name.as_str().is_some_and(|name| !name.is_empty());
        let names = names.as_array().map(Vec::as_slice).unwrap_or_default();
        if schema["type"] != "string" || names.is_empty() || !names.iter().all(is_name) {
            return Some(format!("only allowed for STRING type, and cannot be empty: {schema}"));
        }
    }
    if fields.get("format").is_some_and(|format| format != "date-time") {
        return Some(format!("only 'enum' and 'date-time' are supported for STRING type: {schema}"));
    }
    if fields.get("default").is_some_and(Value::is_null) {
        return Some(format!("a default that is null: {schema}"));
    }
    if schema["type"] == "array" && !fields.contains_key("items") {
        return Some("an array without items".into());
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let properties = schema["properties"].as_object();
    if schema["type"] == "object" && properties.is_none() {
        return Some(format!("an object without properties: {schema}"));
    }
    if let Some(key) = properties.and_then(|p| p.keys().find(|k| k.is_empty() || k.len() > 64 || !k.chars().all(legal)))
    {
        return Some(format!("a property key must match ^[a-zA-Z0-9_.-]{{1,64}}$: {key}"));
    }
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_there = |key: &Value| key.as_str().is_some_and(|key| properties.is_some_and(|all| all.contains_key(key)));
    if !required.iter().all(is_there) {
        return Some(format!("required: property is not defined: {schema}"));
    }
    let more = fields.get("additionalProperties").filter(|more| !more.is_boolean());
    let inner =
        properties.into_iter().flat_map(|properties| properties.values()).chain(fields.get("items")).chain(more);
    inner.into_iter().find_map(schema_refusal)
}
