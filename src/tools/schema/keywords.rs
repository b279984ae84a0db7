//! The keywords that every interface takes, by the type that they belong to.
//!
//! Contract: [`of_type`] copies no other keyword of a schema. An `enum` holds texts alone, none of them empty; other
//! allowed values, and a `format` that not all interfaces know, are named in the description, where the model reads
//! them.

use serde_json::{Map, Value, json};

use super::list;

/// The types that interfaces know, apart from `null`.
const TYPES: [&str; 6] = ["string", "number", "integer", "boolean", "array", "object"];
/// The approximate size of a schema that allows any value.
pub(super) const ANY_BYTES: usize = 256;
/// The number of values that a description names, and the bytes that they may take.
const NAMED_VALUES_MAX: usize = 64;
const NAMED_BYTES_MAX: usize = 1_024;
/// The longest name of a format that a description names.
const FORMAT_MAX_BYTES: usize = 32;

/// Returns a schema with a type or alternatives: a schema that has neither allows any value.
pub(super) fn typed(mut loose: Map<String, Value>) -> Value {
    let has_type = loose.get("type").is_some_and(|kind| kind != "null");
    if has_type || loose.contains_key("anyOf") {
        return loose.into();
    }
    let mut all = anything();
    let scalars = all.clone();
    all.push(json!({ "type": "array", "items": { "anyOf": scalars } }));
    if let Some(description) = loose.remove("description") {
        all[0]["description"] = description;
    }
    json!({ "anyOf": all })
}

/// Returns the schemas of all types but arrays.
fn anything() -> Vec<Value> {
    vec![
        json!({"type": "string"}),
        json!({"type": "number"}),
        json!({"type": "boolean"}),
        json!({"type": "object", "properties": {}}),
    ]
}

/// Returns the types that a schema itself allows, named or implied. `null` counts only where it stands alone.
pub(super) fn kinds(given: &Map<String, Value>) -> Vec<&'static str> {
    let choices = choices(given);
    if !choices.is_empty() && choices.iter().all(|value| is_name(value)) {
        return vec!["string"];
    }
    let known = |name: &str| TYPES.iter().chain(&["null"]).find(|kind| name.eq_ignore_ascii_case(kind)).copied();
    let mut said: Vec<&'static str> = match given.get("type") {
        Some(Value::String(one)) => known(one).into_iter().collect(),
        Some(Value::Array(several)) => several.iter().filter_map(|one| known(one.as_str()?)).collect(),
        _ => vec![],
    };
    said.sort_unstable();
    said.dedup();
    if said.iter().any(|kind| *kind != "null") {
        said.retain(|kind| *kind != "null");
    }
    if !said.is_empty() {
        return said;
    }
    let mut of_values: Vec<&'static str> = choices.iter().map(|value| kind_of(value)).collect();
    of_values.sort_unstable();
    of_values.dedup();
    if !of_values.is_empty() {
        return of_values;
    }
    let has = |names: &[&str]| names.iter().any(|name| given.get(*name).is_some_and(|value| !value.is_null()));
    if has(&["properties", "patternProperties", "additionalProperties", "minProperties", "maxProperties"]) {
        vec!["object"]
    } else if has(&["items", "prefixItems", "minItems", "maxItems", "uniqueItems"]) {
        vec!["array"]
    } else if has(&["pattern", "minLength", "maxLength", "format"]) {
        vec!["string"]
    } else if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) {
        vec!["number"]
    } else {
        vec![]
    }
}

/// Returns the title and the description of a schema.
pub(super) fn words(given: &Map<String, Value>) -> Map<String, Value> {
    let is_text = |name: &&str| given.get(*name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    ["title", "description"].into_iter().filter(is_text).map(|name| (name.to_owned(), given[name].clone())).collect()
}

/// Returns the keywords of a schema for values of this type, without nested schemas.
pub(super) fn of_type(given: &Map<String, Value>, kind: &str) -> Map<String, Value> {
    let mut normal = words(given);
    normal.insert("type".into(), kind.into());
    if let Some(default) = given.get("default").filter(|value| is_of(value, kind)) {
        normal.insert("default".into(), default.clone());
    }
    let chosen: Vec<&Value> = choices(given).into_iter().filter(|value| is_of(value, kind)).collect();
    if !chosen.is_empty() && chosen.iter().all(|value| is_name(value)) {
        let mut names: Vec<&Value> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        names.extend(chosen.into_iter().filter(|value| seen.insert(value.as_str())));
        normal.insert("enum".into(), json!(names));
    } else if !chosen.is_empty() {
        note(&mut normal, &format!("One of: {}.", named(&chosen)));
    }
    let mut copy = |names: &[&str], fits: fn(&Value) -> bool| {
        for name in names {
            if let Some(value) = given.get(*name).filter(|value| fits(value)) {
                normal.insert((*name).into(), value.clone());
            }
        }
    };
    match kind {
        "string" => {
            copy(&["minLength", "maxLength"], Value::is_u64);
            // Not every engine supports look-around.
            copy(&["pattern"], |value| value.as_str().is_some_and(|pattern| !pattern.contains("(?")));
            copy(&["format"], |value| value == "date-time");
            let format = given.get("format").and_then(Value::as_str).filter(|format| *format != "date-time");
            if let Some(format) = format.filter(|format| !format.is_empty() && format.len() <= FORMAT_MAX_BYTES) {
                note(&mut normal, &format!("Format: {format}."));
            }
        }
        "number" | "integer" => {
            copy(&["minimum", "maximum"], Value::is_number);
            for (name, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
                if let Some(value) = given.get(exclusive).filter(|value| value.is_number()) {
                    normal.entry(name).or_insert_with(|| value.clone());
                }
            }
        }
        "array" => copy(&["minItems", "maxItems"], Value::is_u64),
        _ => {}
    }
    normal
}

/// Returns the values that a schema names, without `null`.
fn choices(given: &Map<String, Value>) -> Vec<&Value> {
    let all = match list(given, "enum") {
        [] => given.get("const").into_iter().collect(),
        all => all.iter().collect::<Vec<_>>(),
    };
    all.into_iter().filter(|value| !value.is_null()).collect()
}

/// Returns whether a value may stand in an `enum`.
fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    kind_of(value) == kind || (kind == "number" && value.is_number())
}

/// Returns values as text for a description.
fn named(values: &[&Value]) -> String {
    let mut text = String::new();
    for (n, value) in values.iter().enumerate() {
        let value = value.to_string();
        if n == NAMED_VALUES_MAX || text.len() + value.len() > NAMED_BYTES_MAX {
            return text + " and others";
        }
        text += if n > 0 { ", " } else { "" };
        text += &value;
    }
    text
}

/// Adds a sentence to the description, unless the description has it already.
pub(super) fn note(normal: &mut Map<String, Value>, sentence: &str) {
    let said = normal.get("description").and_then(Value::as_str).unwrap_or_default();
    if said.contains(sentence) {
        return;
    }
    let gap = if said.is_empty() { "" } else { " " };
    let description = format!("{said}{gap}{sentence}");
    normal.insert("description".into(), description.into());
}
