//! Schemas of tools' arguments, in the form that every model's interface takes.
//!
//! Contract of [`normal`]: the result is an object with `properties`, without references, lists of types, and alternatives at
//! its root; keys are those that interfaces take. What a schema says beyond that may be lost, so it may allow more than its tool
//! does, which checks its arguments itself; it never allows less of what the tool needs. A schema that can't be brought into this
//! form is an error, and costs its own tool alone.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Deepest nesting that is described; below it anything is allowed.
const DEPTH_MAX: usize = 24;
/// Longest key of a property.
const KEY_MAX_CHARS: usize = 64;
/// Alternatives, of which an object is one.
const ALTERNATIVES: [&str; 3] = ["anyOf", "oneOf", "allOf"];
/// What interfaces do not know, or know only at the root.
const LEFT_OUT: [&str; 22] = [
    "$schema",
    "$id",
    "$anchor",
    "$comment",
    "$defs",
    "$ref",
    "$dynamicRef",
    "$dynamicAnchor",
    "$vocabulary",
    "definitions",
    "if",
    "then",
    "else",
    "not",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
];

/// A schema in the form that every interface takes, and what was lost on the way that its author should know.
#[derive(Debug, PartialEq)]
pub struct Normal {
    pub schema: Value,
    pub lost: Vec<String>,
}

/// Brings a schema into the form that every interface takes. The error says why it can't be.
pub fn normal(schema: &Value) -> Result<Normal, String> {
    let mut work = Work { root: schema, lost: Vec::new(), open: Vec::new(), size: 0 };
    let schema = match schema {
        Value::Null | Value::Bool(true) => json!({}),
        Value::Object(_) => work.schema(schema, DEPTH_MAX)?,
        other => return Err(format!("its schema is no object: {}", head(other))),
    };
    let root = work.object(schema)?;
    Ok(Normal { schema: Value::Object(root), lost: work.lost })
}

struct Work<'a> {
    /// Where references lead.
    root: &'a Value,
    lost: Vec<String>,
    /// References that are being resolved: one within itself allows anything.
    open: Vec<String>,
    /// Schemas that were looked at: references of references can unfold without end.
    size: usize,
}

/// Schemas within one that are looked at: far more than fit into the largest that is taken.
const SIZE_MAX: usize = 10_000;

impl<'a> Work<'a> {
    /// A schema, with everything in it.
    fn schema(&mut self, schema: &'a Value, depth: usize) -> Result<Value, String> {
        self.size += 1;
        if self.size > SIZE_MAX {
            return Err("its schema unfolds without end".into());
        }
        let Value::Object(given) = schema else { return Ok(json!({})) };
        let Some(depth) = depth.checked_sub(1) else { return Ok(json!({})) };
        if let Some(reference) = given.get("$ref").and_then(Value::as_str) {
            return self.reference(reference, given, depth);
        }
        let mut normal = Map::new();
        for (name, value) in given {
            match name.as_str() {
                name if LEFT_OUT.contains(&name) => {}
                "type" | "properties" | "required" | "items" | "prefixItems" | "additionalProperties" => {}
                name if ALTERNATIVES.contains(&name) => {
                    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
                    let all = all.iter().map(|one| self.schema(one, depth)).collect::<Result<Vec<_>, _>>()?;
                    if !all.is_empty() {
                        normal.insert(name.into(), all.into());
                    }
                }
                "enum" if value.as_array().is_none_or(Vec::is_empty) => {}
                "exclusiveMinimum" | "exclusiveMaximum" if value.is_boolean() => {}
                _ if value.is_null() && name != "default" && name != "const" => {}
                _ => drop(normal.insert(name.clone(), value.clone())),
            }
        }
        self.types(given, &mut normal);
        self.properties(given, &mut normal, depth)?;
        self.items(given, &mut normal, depth)?;
        Ok(Value::Object(normal))
    }

    /// What a reference leads to, with what stands beside it.
    fn reference(&mut self, reference: &str, beside: &'a Map<String, Value>, depth: usize) -> Result<Value, String> {
        let found = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let is_open = self.open.iter().any(|open| open == reference);
        let mut resolved = match found {
            Some(found) if !is_open => {
                self.open.push(reference.into());
                let resolved = self.schema(found, depth);
                self.open.pop();
                resolved?
            }
            Some(_) => json!({}),
            None => {
                self.lost.push(format!("the reference {} leads nowhere here", head(&reference.into())));
                json!({})
            }
        };
        for name in ["description", "title", "default"] {
            if let Some(value) = beside.get(name).filter(|value| !value.is_null()) {
                resolved[name] = value.clone();
            }
        }
        Ok(resolved)
    }

    /// One type, or alternatives of one type each.
    fn types(&self, given: &Map<String, Value>, normal: &mut Map<String, Value>) {
        let types: Vec<&str> = match given.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        let named: Vec<&str> = types.iter().copied().filter(|name| *name != "null").collect();
        match named.as_slice() {
            [] if types.is_empty() => {}
            [] => drop(normal.insert("type".into(), "null".into())),
            [one] => drop(normal.insert("type".into(), (*one).into())),
            _ if named.contains(&"object") && given.contains_key("properties") => {
                normal.insert("type".into(), "object".into());
            }
            // An array has to say of what.
            several if !normal.contains_key("anyOf") => {
                let one = |name: &&str| {
                    if *name == "array" { json!({"type": "array", "items": {}}) } else { json!({ "type": name }) }
                };
                normal.insert("anyOf".into(), several.iter().map(one).collect());
            }
            _ => {}
        }
    }

    fn properties(
        &mut self,
        given: &'a Map<String, Value>,
        normal: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), String> {
        let Some(properties) = given.get("properties").and_then(Value::as_object) else {
            if normal.get("type").is_some_and(|kind| kind == "object") {
                normal.insert("properties".into(), json!({}));
                self.more(given, normal, depth)?;
            }
            return Ok(());
        };
        let wanted = given.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut wanted: BTreeSet<&str> = wanted.iter().filter_map(Value::as_str).collect();
        let mut kept = Map::new();
        for (key, property) in properties {
            // The oldest drafts have it there.
            if property.get("required") == Some(&Value::Bool(true)) {
                wanted.insert(key);
            }
            if *property == Value::Bool(false) {
                continue;
            }
            if is_key(key) {
                kept.insert(key.clone(), self.schema(property, depth)?);
            } else if wanted.contains(key.as_str()) {
                return Err(format!(
                    "models' interfaces take no property `{}`, which is required",
                    head(&key.as_str().into())
                ));
            } else {
                self.lost.push(format!("models' interfaces take no property `{}`", head(&key.as_str().into())));
            }
        }
        let required: Vec<&str> = wanted.into_iter().filter(|key| kept.contains_key(*key)).collect();
        if !required.is_empty() {
            normal.insert("required".into(), json!(required));
        }
        normal.entry("type").or_insert("object".into());
        normal.insert("properties".into(), kept.into());
        self.more(given, normal, depth)
    }

    /// What other properties an object may have.
    fn more(
        &mut self,
        given: &'a Map<String, Value>,
        normal: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), String> {
        match given.get("additionalProperties") {
            Some(Value::Bool(may)) => drop(normal.insert("additionalProperties".into(), (*may).into())),
            Some(other @ Value::Object(_)) => {
                let other = self.schema(other, depth)?;
                normal.insert("additionalProperties".into(), other);
            }
            _ => {}
        }
        Ok(())
    }

    /// What an array is of: one schema, whatever a tuple says.
    fn items(
        &mut self,
        given: &'a Map<String, Value>,
        normal: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), String> {
        let items = match given.get("prefixItems").or_else(|| given.get("items")) {
            Some(Value::Array(tuple)) => {
                let all = tuple.iter().map(|one| self.schema(one, depth)).collect::<Result<Vec<_>, _>>()?;
                if all.is_empty() { json!({}) } else { json!({ "anyOf": all }) }
            }
            Some(one) => self.schema(one, depth)?,
            None => json!({}),
        };
        if normal.get("type").is_some_and(|kind| kind == "array") {
            normal.insert("items".into(), items);
        }
        Ok(())
    }

    /// The root: an object, whose alternatives are put together to one.
    fn object(&mut self, schema: Value) -> Result<Map<String, Value>, String> {
        let Value::Object(mut root) = schema else { return Err("its schema is no object".into()) };
        let kind = root.get("type").and_then(Value::as_str).unwrap_or("object");
        if kind != "object" {
            return Err(format!("its arguments would be a {kind}, not an object"));
        }
        let mut properties = root.remove("properties").and_then(into_map).unwrap_or_default();
        let mut required = names(root.remove("required"));
        for name in ALTERNATIVES {
            let Some(Value::Array(all)) = root.remove(name) else { continue };
            // A type list has become alternatives; at the root only the object of them is of use.
            let objects = all.into_iter().filter(|one| one.get("type").is_none_or(|kind| kind == "object"));
            let objects = objects.map(|one| self.object(one)).collect::<Result<Vec<_>, _>>()?;
            if objects.is_empty() {
                return Err("none of its alternatives is an object".into());
            }
            let wanted = objects.iter().map(|one| names(one.get("required").cloned()));
            let in_all = wanted.reduce(|a, b| if name == "allOf" { &a | &b } else { &a & &b });
            required.extend(in_all.unwrap_or_default());
            for (key, property) in
                objects.into_iter().filter_map(|mut one| into_map(one.remove("properties")?)).flatten()
            {
                let known = properties.entry(key).or_insert_with(|| property.clone());
                if *known != property {
                    // Said differently by two alternatives: either will do.
                    let mut both =
                        known.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![known.clone()]);
                    if !both.contains(&property) {
                        both.push(property);
                    }
                    *known = json!({ "anyOf": both });
                }
            }
            root.remove("additionalProperties");
        }
        root.remove("enum");
        root.remove("const");
        required.retain(|key| properties.contains_key(key));
        root.insert("type".into(), "object".into());
        root.insert("properties".into(), properties.into());
        if !required.is_empty() {
            root.insert("required".into(), json!(required));
        }
        Ok(root)
    }
}

fn into_map(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

fn names(list: Option<Value>) -> BTreeSet<String> {
    let list = list.and_then(|list| list.as_array().cloned()).unwrap_or_default();
    list.into_iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Whether interfaces take a property's name.
fn is_key(key: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !key.is_empty() && key.len() <= KEY_MAX_CHARS && key.chars().all(is_legal)
}

/// The beginning of a value, for a log.
fn head(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: Value) -> Value {
        normal(&schema).unwrap_or_else(|error| panic!("{error}: {schema}")).schema
    }

    #[test]
    fn what_says_nothing_is_an_object_without_properties() {
        let nothing = json!({"type": "object", "properties": {}});
        for schema in [
            json!(null),
            json!(true),
            json!({}),
            json!({"type": "object"}),
            json!({"type": ["object", "null"]}),
            json!({"properties": null, "required": null, "$schema": "x", "$defs": {}}),
            json!({"type": "object", "properties": [], "required": ["a"]}),
            json!({"$ref": "#/$defs/none", "$defs": {"none": {}}}),
        ] {
            assert_eq!(of(schema.clone()), nothing, "{schema}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for schema in [
            json!({"type": "string"}),
            json!({"type": ["string", "null"]}),
            json!({"type": "array", "items": {}}),
            json!({"anyOf": [{"type": "string"}, {"type": "number"}]}),
            json!("object"),
            json!([]),
            json!(false),
            json!({"$ref": "#/$defs/s", "$defs": {"s": {"type": "string"}}}),
            json!({"properties": {"$filter": {}}, "required": ["$filter"]}),
            json!({"properties": {"größe": {}}, "required": ["größe"]}),
        ] {
            assert!(normal(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn an_ordinary_schema_stays_as_it_is() {
        let schema = json!({
            "type": "object", "description": "d", "additionalProperties": false, "required": ["a"],
            "properties": {
                "a": {"type": "string", "enum": ["x", "y"], "description": "an a"},
                "b.c-d": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "e": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null},
            },
        });
        assert_eq!(normal(&schema), Ok(Normal { schema, lost: vec![] }));
    }

    #[test]
    fn references_are_put_in_their_place() {
        let schema = json!({
            "properties": {"at": {"$ref": "#/$defs/place", "description": "where"}, "x": {"$ref": "http://e.example/x"}},
            "$defs": {"place": {"type": "object", "properties": {"name": {"type": "string"}, "in": {"$ref": "#/$defs/place"}}}},
        });
        let Normal { schema, lost } = normal(&schema).unwrap();
        let place =
            json!({"type": "object", "description": "where", "properties": {"name": {"type": "string"}, "in": {}}});
        assert_eq!(schema, json!({"type": "object", "properties": {"at": place, "x": {}}}));
        assert_eq!(lost.len(), 1);
        let twice = |n: usize| json!({"properties": {"a": {"$ref": format!("#/$defs/{}", n + 1)}, "b": {"$ref": format!("#/$defs/{}", n + 1)}}});
        let bomb: Map<String, Value> = (0..60).map(|n| (n.to_string(), twice(n))).collect();
        assert!(normal(&json!({"$ref": "#/$defs/0", "$defs": bomb})).is_err());
    }

    #[test]
    fn alternatives_at_the_root_become_one_object() {
        let alternatives = json!([
            {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "string"}}, "required": ["a", "n"]},
            {"type": "object", "properties": {"b": {"type": "string"}, "n": {"type": "integer"}}, "required": ["b", "n"]},
        ]);
        for (name, required) in [("anyOf", json!(["n"])), ("oneOf", json!(["n"])), ("allOf", json!(["a", "b", "n"]))] {
            let one = of(json!({ name: alternatives }));
            let properties = json!({
                "a": {"type": "string"}, "b": {"type": "string"},
                "n": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            });
            assert_eq!(one, json!({"type": "object", "properties": properties, "required": required}), "{name}");
        }
        let with_null = of(json!({"anyOf": [{"type": "null"}, {"properties": {"a": {}}}], "properties": {"c": {}}}));
        assert_eq!(with_null, json!({"type": "object", "properties": {"a": {}, "c": {}}}));
    }

    #[test]
    fn odd_forms_within_are_made_plain() {
        let Normal { schema, lost } = normal(&json!({"properties": {
            "list": {"type": ["string", "null"]},
            "several": {"type": ["string", "array"]},
            "tuple": {"type": "array", "items": [{"type": "string"}, {"type": "number"}]},
            "bare": {"type": "array"},
            "null": null,
            "any": true,
            "never": false,
            "old": {"type": "string", "required": true, "enum": []},
            "odd": {"type": "number", "exclusiveMinimum": true, "if": {}, "then": {}},
            "inner": {"type": "object", "properties": {"$where": {"type": "string"}}},
            "größe": {"type": "number"},
        }}))
        .unwrap();
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["old"], "properties": {
                "list": {"type": "string"},
                "several": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]},
                "tuple": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}]}},
                "bare": {"type": "array", "items": {}},
                "null": {},
                "any": {},
                "old": {"type": "string"},
                "odd": {"type": "number"},
                "inner": {"type": "object", "properties": {}},
            }})
        );
        assert_eq!(lost.len(), 2, "{lost:?}");
    }

    #[test]
    fn what_is_normal_stays_so() {
        for schema in [
            json!({"anyOf": [{"properties": {"a": {"type": ["integer", "string"]}}}, {"properties": {"a": {"type": "boolean"}}}]}),
            json!({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "array", "prefixItems": []}}}),
        ] {
            let once = of(schema);
            assert_eq!(of(once.clone()), once);
        }
        let deep = (0..200).fold(json!({"type": "string"}), |inner, _| json!({"properties": {"a": inner}}));
        assert!(normal(&deep).is_ok());
    }
}
