//! `spec/` against the program: its files match the program's types, samples and subjects.

mod actions;
mod agents;
mod asyncapi;
mod events;
mod frames;
mod openapi;
mod schemas;

use std::{collections::BTreeMap, fs, path::PathBuf};

use jsonschema::Validator;
use serde_json::{Value, json};

#[test]
fn the_committed_schemas_match_the_types() {
    let is_update = std::env::var("UPDATE_SPEC").as_deref() == Ok("1");
    for (name, content) in schemas::files() {
        let file = path(&format!("spec/{name}"));
        if is_update {
            fs::write(&file, &content).unwrap();
        }
        let committed = fs::read_to_string(file).unwrap_or_default();
        assert!(committed == content, "spec/{name} differs from the types; run `UPDATE_SPEC=1 ops/test spec`");
    }
}

/// Returns the path of a file or folder of the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn json_file(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the JSON files of a folder, by name without the extension.
fn json_files(folder: &str) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(path(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = entries.filter(|name| name.ends_with(".json"));
    names.map(|name| (name.trim_end_matches(".json").to_owned(), json_file(&format!("{folder}/{name}")))).collect()
}

/// Returns a validator that also checks each value's `format`.
fn validator(schema: &Value) -> Validator {
    jsonschema::options().should_validate_formats(true).build(schema).expect("the schema is one")
}

/// Returns the validator of one definition of a document.
fn definition(document: &Value, name: &str) -> Validator {
    let mut schema = document.clone();
    schema.as_object_mut().unwrap().remove("oneOf");
    schema["$ref"] = json!(format!("#/$defs/{name}"));
    validator(&schema)
}

/// Fails with every problem of a value.
fn assert_valid(validator: &Validator, value: &Value, what: &str) {
    let problems: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{what}: {problems:#?}");
}
