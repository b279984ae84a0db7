//! The rules that the big providers publish for requests, and refuse with 400 to break.

use serde_json::Value;

/// Why a request is refused, if it is.
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

/// The strictest of what OpenAI, Anthropic and Google take as a tool.
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

fn schema_refusal(schema: &Value) -> Option<String> {
    let Value::Object(fields) = schema else { return (!schema.is_boolean()).then(|| format!("no schema: {schema}")) };
    if fields.contains_key("$ref") || fields.get("type").is_some_and(Value::is_array) {
        return Some(format!("a reference, or a list of types: {schema}"));
    }
    if schema["type"] == "array" && !fields.contains_key("items") {
        return Some("an array without items".into());
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let properties = schema["properties"].as_object();
    if let Some(key) = properties.and_then(|p| p.keys().find(|k| k.is_empty() || k.len() > 64 || !k.chars().all(legal)))
    {
        return Some(format!("a property key must match ^[a-zA-Z0-9_.-]{{1,64}}$: {key}"));
    }
    let lists = ["anyOf", "oneOf", "allOf"].iter().filter_map(|name| schema[name].as_array()).flatten();
    let inner =
        properties.into_iter().flat_map(|properties| properties.values()).chain(lists).chain(fields.get("items"));
    inner.into_iter().find_map(schema_refusal)
}
