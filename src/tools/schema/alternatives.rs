//! Composition of schemas: conditions that hold at once, and alternatives.
//!
//! Contract: all schemas here are in the form of [`super::keywords`], without a type where they allow any value. The
//! result allows every value that was allowed. Alternatives stand alone, without `null` among them; a single one
//! replaces its parent.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::{into_map, is_object, keywords};

/// The number of alternatives beyond which any value is allowed; all names of an `enum` count as one.
const ALTERNATIVES_MAX: usize = 64;
const NAMES_MAX: usize = 512;
/// Texts that are kept above a schema's alternatives.
const WORDS: [&str; 2] = ["description", "title"];

type Schema = Map<String, Value>;

/// Returns the conjunction of two schemas: `allOf`, or a reference and the keywords beside it.
pub(super) fn unite(own: Schema, other: Schema) -> Schema {
    if is_any(&own) {
        return with_words(other, own);
    }
    if is_any(&other) {
        return own;
    }
    if is_object(&own) && is_object(&other) {
        let words: Schema = words_of(&own);
        let first = [own, other];
        let united = one_object(Map::new(), first.into(), true);
        return with_words(united, words);
    }
    match (is_object(&own), other) {
        (true, mut other) if other.contains_key("anyOf") => {
            let all = other.remove("anyOf").map(alternatives).unwrap_or_default();
            chosen(own, all)
        }
        (_, other) if own.get("type") == other.get("type") => {
            let mut united = other;
            united.extend(own);
            united
        }
        _ => own,
    }
}

/// Returns a schema with alternatives, of which any may hold.
pub(super) fn chosen(own: Schema, all: Vec<Schema>) -> Schema {
    let mut flat: Vec<Schema> = Vec::new();
    let mut is_open = all.len() > NAMES_MAX;
    for mut one in all {
        let several = one.remove("anyOf").map(alternatives);
        for one in several.unwrap_or_else(|| vec![one]) {
            match one.get("type") {
                _ if is_open => {}
                None => is_open = true,
                Some(kind) if kind == "null" => {}
                Some(_) => add(&mut flat, one),
            }
            is_open |= flat.len() > ALTERNATIVES_MAX;
            if is_open {
                return own;
            }
        }
    }
    if is_object(&own) && own.get("properties").is_some_and(|properties| *properties != json!({})) {
        let objects: Vec<Schema> = flat.into_iter().filter(is_object).collect();
        return if objects.is_empty() { own } else { one_object(own, objects, false) };
    }
    match flat.len() {
        0 => own,
        1 => with_words(flat.pop().unwrap_or_default(), own),
        _ => {
            // Some interfaces allow no keyword beside alternatives.
            if let Some(description) = own.get("description").and_then(Value::as_str) {
                let said = flat[0].remove("description");
                flat[0].insert("description".into(), description.into());
                if let Some(said) = said.as_ref().and_then(Value::as_str) {
                    keywords::note(&mut flat[0], said);
                }
            }
            [("anyOf".to_owned(), json!(flat))].into_iter().collect()
        }
    }
}

/// Adds an alternative; `enum` alternatives are merged into one list.
fn add(flat: &mut Vec<Schema>, one: Schema) {
    let names = |schema: &Schema| schema.get("enum").and_then(Value::as_array).cloned();
    if let Some(more) = names(&one)
        && let Some(known) = flat.iter_mut().find(|known| known.contains_key("enum"))
    {
        let mut all = names(known).unwrap_or_default();
        let seen: HashSet<String> = all.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
        all.extend(more.into_iter().filter(|name| name.as_str().is_some_and(|name| !seen.contains(name))));
        known.insert("enum".into(), all.into());
        if let Some(said) = one.get("description").and_then(Value::as_str) {
            keywords::note(known, said);
        }
        return;
    }
    if !flat.contains(&one) {
        flat.push(one);
    }
}

/// Merges objects into one with the properties of all.
///
/// A property is required if the schema's own part requires it, or all of the objects, or, with `at_once`, any of them.
pub(super) fn one_object(mut own: Schema, objects: Vec<Schema>, at_once: bool) -> Schema {
    let names = |schema: &Schema| -> BTreeSet<String> {
        let names = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let mut required = names(&own);
    let wanted = objects.iter().map(names).reduce(|a, b| if at_once { &a | &b } else { &a & &b });
    required.extend(wanted.unwrap_or_default());
    let mut properties = own.remove("properties").and_then(into_map).unwrap_or_default();
    let mut found: BTreeMap<String, Vec<Schema>> = BTreeMap::new();
    for mut object in objects {
        for (key, property) in object.remove("properties").and_then(into_map).into_iter().flatten() {
            found.entry(key).or_default().extend(into_map(property));
        }
    }
    for (key, mut all) in found {
        all.dedup();
        let is_alike = all.iter().all(|one| one.get("type").is_some() && one.get("type") == all[0].get("type"));
        let property = match all.len() {
            1 => all.remove(0),
            _ if at_once && is_alike => all.into_iter().reduce(unite).unwrap_or_default(),
            _ => chosen(Map::new(), all),
        };
        properties.entry(key).or_insert_with(|| keywords::typed(property));
    }
    required.retain(|key| properties.contains_key(key));
    own.remove("additionalProperties");
    own.insert("type".into(), "object".into());
    own.insert("properties".into(), properties.into());
    own.remove("required");
    if !required.is_empty() {
        own.insert("required".into(), json!(required));
    }
    own
}

/// Returns a schema with the title and the description of the schema that it replaces.
fn with_words(mut schema: Schema, of: Schema) -> Schema {
    let words = words_of(&of);
    if schema.contains_key("anyOf") {
        let all = schema.remove("anyOf").map(alternatives).unwrap_or_default();
        return chosen(words, all);
    }
    let kind = schema.get("type").cloned();
    schema.extend(words);
    // A default is kept where its type is still allowed.
    if of.get("type") == kind.as_ref() {
        schema.extend(of.get("default").map(|default| ("default".to_owned(), default.clone())));
    }
    schema
}

fn words_of(schema: &Schema) -> Schema {
    WORDS.into_iter().filter_map(|name| Some((name.to_owned(), schema.get(name)?.clone()))).collect()
}

fn is_any(schema: &Schema) -> bool {
    !schema.contains_key("type") && !schema.contains_key("anyOf")
}

fn alternatives(list: Value) -> Vec<Schema> {
    match list {
        Value::Array(all) => all.into_iter().filter_map(into_map).collect(),
        _ => vec![],
    }
}
