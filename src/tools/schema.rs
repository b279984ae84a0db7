//! Schemas of tools' arguments, in the form that every model's interface takes.
//!
//! Contract of [`normal`]: the result is an object with `properties`; every schema in it has one type, or alternatives
//! (`anyOf`) of one type each and nothing beside them; there are no references, no `null`, and no keywords but those of
//! [`keywords`]. Other constraints of a schema may be lost, so the result may allow more than its tool does, which
//! validates its arguments itself; the result never allows fewer of the values that the tool needs. A schema that can't
//! be brought into this form is an error, and costs its own tool alone. The work is bounded: by the size of the given
//! schema, and by the bytes that are copied from it, for references can unfold without end.

mod alternatives;
mod keywords;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The deepest nesting that is described; below it any value is allowed.
const DEPTH_MAX: usize = 24;
/// The longest key of a property.
const KEY_MAX_CHARS: usize = 64;
/// The number of visited subschemas: far more than fit into the largest accepted schema.
const NODES_MAX: usize = 10_000;
/// The largest given schema, as a multiple of the largest result: definitions may be unused.
const GIVEN_TIMES: usize = 8;
/// The bytes that are copied, as such a multiple: alternatives are united, so the result may be smaller.
const COPIED_TIMES: usize = 4;
/// The size of a schema without its texts.
const NODE_BYTES: usize = 16;
/// The number of losses that are reported for one schema.
const LOST_MAX: usize = 16;

/// A normalised schema, and the losses that its author should know.
#[derive(Debug, PartialEq)]
pub struct NormalizedSchema {
    pub schema: Value,
    pub lost: Vec<String>,
}

/// Brings a schema into the form that every interface takes, in at most `max_bytes`. The error gives the reason.
pub fn normal(schema: &Value, max_bytes: usize) -> Result<NormalizedSchema, String> {
    if size(schema) > GIVEN_TIMES * max_bytes {
        return Err("the schema is too large".into());
    }
    let mut work = Work { root: schema, lost: Vec::new(), open: Vec::new(), nodes: 0, left: COPIED_TIMES * max_bytes };
    let loose = match schema {
        Value::Null | Value::Bool(true) => Map::new(),
        Value::Object(given) => work.loose(given, DEPTH_MAX)?,
        other => return Err(format!("the schema is not an object: {}", head(&other.to_string()))),
    };
    let schema = Value::Object(root(loose)?);
    if schema.to_string().len() > max_bytes {
        return Err("the schema is too large with its references resolved".into());
    }
    Ok(NormalizedSchema { schema, lost: work.lost })
}

struct Work<'a> {
    /// The target of references.
    root: &'a Value,
    lost: Vec<String>,
    /// References that are being resolved: a recursive one allows any value.
    open: Vec<String>,
    /// The number of visited schemas.
    nodes: usize,
    /// The bytes that may still be copied.
    left: usize,
}

impl<'a> Work<'a> {
    /// Normalises a nested schema: the result has a type or alternatives.
    fn schema(&mut self, schema: &'a Value, depth: usize) -> Result<Value, String> {
        let loose = match schema {
            Value::Object(given) => self.loose(given, depth)?,
            _ => Map::new(),
        };
        let typed = keywords::typed(loose);
        if typed.get("anyOf").is_some() {
            self.spend(keywords::ANY_BYTES)?;
        }
        Ok(typed)
    }

    /// Normalises a schema with its subschemas; the result has no type where any value is allowed.
    fn loose(&mut self, given: &'a Map<String, Value>, depth: usize) -> Result<Map<String, Value>, String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err("the schema's references never end".into());
        }
        self.spend(NODE_BYTES)?;
        let Some(depth) = depth.checked_sub(1) else { return Ok(Map::new()) };
        let mut normal = self.own(given, depth)?;
        if let Some(reference) = given.get("$ref").and_then(Value::as_str) {
            let found = self.reference(reference, depth)?;
            normal = alternatives::unite(normal, found);
        }
        for one in list(given, "allOf") {
            if let Value::Object(one) = one {
                let one = self.loose(one, depth)?;
                normal = alternatives::unite(normal, one);
            }
        }
        let any_of = list(given, "anyOf");
        let any_of = if any_of.is_empty() { list(given, "oneOf") } else { any_of };
        if any_of.is_empty() {
            return Ok(normal);
        }
        let mut all = Vec::new();
        for one in any_of {
            match one {
                Value::Object(one) => all.push(self.loose(one, depth)?),
                Value::Bool(false) => {}
                _ => all.push(Map::new()),
            }
        }
        Ok(alternatives::chosen(normal, all))
    }

    /// Resolves a reference to its normalised schema.
    fn reference(&mut self, reference: &str, depth: usize) -> Result<Map<String, Value>, String> {
        let found = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        if self.open.iter().any(|open| open == reference) {
            return Ok(Map::new());
        }
        match found {
            Some(Value::Object(found)) => {
                self.open.push(reference.into());
                let resolved = self.loose(found, depth);
                self.open.pop();
                resolved
            }
            Some(_) => Ok(Map::new()),
            None => {
                self.lose(format!("the reference {} can't be resolved", head(reference)));
                Ok(Map::new())
            }
        }
    }

    /// Returns the keywords of a schema itself, without references and alternatives.
    fn own(&mut self, given: &'a Map<String, Value>, depth: usize) -> Result<Map<String, Value>, String> {
        let kinds = keywords::kinds(given);
        match kinds.as_slice() {
            [] => {
                let words = keywords::words(given);
                self.copied(&words)?;
                Ok(words)
            }
            [one] => self.of_type(given, one, depth),
            several => {
                let all = several.iter().map(|kind| self.of_type(given, kind, depth)).collect::<Result<Vec<_>, _>>()?;
                Ok(alternatives::chosen(Map::new(), all))
            }
        }
    }

    fn of_type(
        &mut self,
        given: &'a Map<String, Value>,
        kind: &str,
        depth: usize,
    ) -> Result<Map<String, Value>, String> {
        let mut normal = keywords::of_type(given, kind);
        self.copied(&normal)?;
        match kind {
            "array" => {
                let items = self.items(given, depth)?;
                normal.insert("items".into(), items);
            }
            "object" => self.properties(given, &mut normal, depth)?,
            _ => {}
        }
        Ok(normal)
    }

    fn properties(
        &mut self,
        given: &'a Map<String, Value>,
        normal: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), String> {
        let properties = given.get("properties").and_then(Value::as_object);
        let mut wanted: BTreeSet<&str> = list(given, "required").iter().filter_map(Value::as_str).collect();
        let mut kept = Map::new();
        let mut is_dropped =
            given.get("patternProperties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
        for (key, property) in properties.into_iter().flatten() {
            // The oldest drafts have `required` in the property.
            if property.get("required") == Some(&Value::Bool(true)) {
                wanted.insert(key);
            }
            if *property == Value::Bool(false) {
                continue;
            }
            if is_key(key) {
                self.spend(2 * key.len())?;
                kept.insert(key.clone(), self.schema(property, depth)?);
                continue;
            }
            let why = format!("models' interfaces take no property `{}`", head(key));
            if wanted.contains(key.as_str()) {
                return Err(format!("{why}, which is required"));
            }
            is_dropped = true;
            self.lose(why);
        }
        let required: Vec<&str> = wanted.into_iter().filter(|key| kept.contains_key(*key)).collect();
        if !required.is_empty() {
            normal.insert("required".into(), json!(required));
        }
        normal.insert("properties".into(), kept.into());
        match given.get("additionalProperties") {
            // Values of dropped properties stay allowed.
            Some(Value::Bool(false)) if !is_dropped => drop(normal.insert("additionalProperties".into(), false.into())),
            Some(other @ Value::Object(_)) if !is_dropped => {
                let other = self.schema(other, depth)?;
                normal.insert("additionalProperties".into(), other);
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the items of an array: one schema, also for a tuple.
    fn items(&mut self, given: &'a Map<String, Value>, depth: usize) -> Result<Value, String> {
        let tuple = match list(given, "prefixItems") {
            [] => list(given, "items"),
            some => some,
        };
        if tuple.is_empty() {
            return self.schema(given.get("items").unwrap_or(&Value::Null), depth);
        }
        let mut all = Vec::new();
        for one in tuple.iter().chain(given.get("items").filter(|items| items.is_object())) {
            match one {
                Value::Object(one) => all.push(self.loose(one, depth)?),
                _ => all.push(Map::new()),
            }
        }
        self.spend(keywords::ANY_BYTES)?;
        Ok(keywords::typed(alternatives::chosen(Map::new(), all)))
    }

    fn copied(&mut self, normal: &Map<String, Value>) -> Result<(), String> {
        self.spend(normal.iter().map(|(name, value)| name.len() + size(value)).sum())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or("the schema is too large with its references resolved")?;
        Ok(())
    }

    fn lose(&mut self, what: String) {
        if self.lost.len() < LOST_MAX {
            self.lost.push(what);
        }
    }
}

/// Returns the root: an object, with its alternatives merged into one.
fn root(mut loose: Map<String, Value>) -> Result<Map<String, Value>, String> {
    if let Some(Value::Array(all)) = loose.remove("anyOf") {
        let objects: Vec<Map<String, Value>> = all.into_iter().filter_map(into_map).filter(is_object).collect();
        if objects.is_empty() {
            return Err("no alternative is an object".into());
        }
        loose = alternatives::one_object(loose, objects, false);
    }
    let kind = loose.get("type").and_then(Value::as_str).unwrap_or("object");
    if kind != "object" {
        return Err(format!("the arguments would have the type {}, not object", head(kind)));
    }
    loose.remove("default");
    loose.insert("type".into(), "object".into());
    loose.entry("properties").or_insert_with(|| json!({}));
    Ok(loose)
}

/// Returns the elements of a list in a schema.
fn list<'a>(given: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    given.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_object(normal: &Map<String, Value>) -> bool {
    normal.get("type").is_some_and(|kind| kind == "object")
}

fn into_map(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// Returns the approximate size of a value as text. Values come from a parser that bounds their depth.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text.len() + 2,
        Value::Array(list) => 2 + list.iter().map(|one| size(one) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>(),
    }
}

/// Returns whether interfaces accept a property's name.
fn is_key(key: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !key.is_empty() && key.len() <= KEY_MAX_CHARS && key.chars().all(is_legal)
}

/// Returns the beginning of a text, for a log.
fn head(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
