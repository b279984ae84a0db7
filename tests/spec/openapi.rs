//! The OpenAPI document: its references resolve, and it has the routes of the program and no others.

use serde_json::Value;
use turnstream::admin::route::{self, ROUTES};

use crate::json_file;

/// Returns all `$ref`s of a value.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => vec![],
    }
}

#[test]
fn every_reference_resolves() {
    let document = json_file("spec/openapi.json");
    let references = references(&document);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads elsewhere"));
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_document_has_the_programs_routes() {
    let document = json_file("spec/openapi.json");
    let mut described = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described += 1;
            let below = path.strip_prefix("/admin/").unwrap();
            let (route, _) = route::find(&method.to_uppercase().parse().unwrap(), below).unwrap();
            assert_eq!(route.path, below);
            let role = route.role.map_or(Value::Null, |role| serde_json::to_value(role).unwrap());
            assert_eq!(operation["x-role"], role, "{method} {path}");
            assert_eq!(operation["security"].is_array(), route.role.is_some(), "{method} {path}");
        }
    }
    assert_eq!(described, ROUTES.len());
}
