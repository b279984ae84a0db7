//! Schemas as they are found, and as they are offered.

use super::*;

/// The size limit of [`normal`] for a service's tool.
const MAX_BYTES: usize = 32 * 1024;

fn normal(schema: &Value) -> Result<NormalizedSchema, String> {
    super::normal(schema, MAX_BYTES)
}

fn any() -> Value {
    keywords::typed(Map::new())
}

fn of(schema: Value) -> Value {
    normal(&schema).unwrap_or_else(|error| panic!("{error}: {schema}")).schema
}

#[test]
fn an_empty_schema_is_an_object_without_properties() {
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
fn a_schema_that_is_no_object_is_an_error() {
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
            "e": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
        },
    });
    assert_eq!(normal(&schema), Ok(NormalizedSchema { schema, lost: vec![] }));
}

#[test]
fn references_are_inlined() {
    let schema = json!({
        "properties": {"at": {"$ref": "#/$defs/place", "description": "where"}, "x": {"$ref": "http://e.example/x"}},
        "$defs": {"place": {"type": "object", "properties": {"name": {"type": "string"}, "in": {"$ref": "#/$defs/place"}}}},
    });
    let NormalizedSchema { schema, lost } = normal(&schema).unwrap();
    let place =
        json!({"type": "object", "description": "where", "properties": {"name": {"type": "string"}, "in": any()}});
    assert_eq!(schema, json!({"type": "object", "properties": {"at": place, "x": any()}}));
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
    assert_eq!(with_null, json!({"type": "object", "properties": {"a": any(), "c": any()}}));
}

#[test]
fn odd_nested_forms_are_normalised() {
    let NormalizedSchema { schema, lost } = normal(&json!({"properties": {
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
            "several": {"anyOf": [{"type": "array", "items": any()}, {"type": "string"}]},
            "tuple": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}]}},
            "bare": {"type": "array", "items": any()},
            "null": any(),
            "any": any(),
            "old": {"type": "string"},
            "odd": {"type": "number"},
            "inner": {"type": "object", "properties": {}},
        }})
    );
    assert_eq!(lost.len(), 2, "{lost:?}");
}

#[test]
fn a_normal_schema_stays_unchanged() {
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

/// Schemas of one property, and their normal form.
/// Checks that each schema of a property becomes the expected one, and stays it.
fn becomes(cases: &[(Value, Value)]) {
    for (given, expected) in cases {
        let one = json!({"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]});
        let defs = json!({"one": one, "name": {"type": "string", "enum": ["a", "b"]}});
        let whole = of(json!({"properties": {"p": given}, "$defs": defs}));
        assert_eq!(&whole["properties"]["p"], expected, "{given}");
        assert_eq!(of(whole.clone()), whole, "once is enough: {given}");
    }
}

#[test]
fn no_refused_alternative_is_left() {
    becomes(&[
        // Optional fields, as common generators write them.
        (json!({"anyOf": [{"type": "string"}, {"type": "null"}], "default": null}), json!({"type": "string"})),
        (
            json!({"anyOf": [{"type": "string", "description": "inner"}, {"type": "null"}], "description": "outer", "title": "T"}),
            json!({"type": "string", "description": "outer", "title": "T"}),
        ),
        (json!({"oneOf": [{"type": "integer"}, {"type": "null"}], "nullable": true}), json!({"type": "integer"})),
        (json!({"type": ["integer", "null"], "minimum": 1}), json!({"type": "integer", "minimum": 1})),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "description": "d"}),
            json!({"anyOf": [{"type": "integer", "description": "d"}, {"type": "string"}]}),
        ),
        (
            json!({"anyOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"type": "string"}, {"type": "null"}]}),
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        (
            json!({"type": ["string", "object"], "properties": {"a": {"type": "string"}}, "maxLength": 3}),
            json!({"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "string", "maxLength": 3}]}),
        ),
        (json!({"anyOf": [{"type": "string"}, {}]}), any()),
        (json!({"type": "null"}), any()),
        // Enumerated values.
        (json!({"const": "a"}), json!({"type": "string", "enum": ["a"]})),
        (json!({"enum": ["a", null, "a", "b"]}), json!({"type": "string", "enum": ["a", "b"]})),
        (json!({"type": ["string", "null"], "enum": ["a", null]}), json!({"type": "string", "enum": ["a"]})),
        (
            json!({"type": "integer", "enum": [1, 2], "description": "How many."}),
            json!({"type": "integer", "description": "How many. One of: 1, 2."}),
        ),
        (json!({"const": 5}), json!({"type": "integer", "description": "One of: 5."})),
        (json!({"enum": ["", "a"]}), json!({"type": "string", "description": "One of: \"\", \"a\"."})),
        (
            json!({"enum": ["a", 1]}),
            json!({"anyOf": [{"type": "integer", "description": "One of: 1."}, {"type": "string", "enum": ["a"]}]}),
        ),
        (json!({"oneOf": [{"const": "a"}, {"const": "b"}]}), json!({"type": "string", "enum": ["a", "b"]})),
    ]);
}

#[test]
fn no_refused_keyword_is_left() {
    becomes(&[
        // Formats, and keywords of the wrong form or that not all interfaces know.
        (json!({"type": "string", "format": "date-time"}), json!({"type": "string", "format": "date-time"})),
        (json!({"type": "string", "format": "email"}), json!({"type": "string", "description": "Format: email."})),
        (json!({"type": "integer", "format": "int64"}), json!({"type": "integer"})),
        (json!({"type": "STRING", "examples": ["a"], "x-order": 1, "deprecated": true}), json!({"type": "string"})),
        (
            json!({"type": "string", "minLength": "1", "pattern": "^(?=a)", "default": 5, "title": 7}),
            json!({"type": "string"}),
        ),
        (json!({"type": "number", "exclusiveMinimum": 0, "multipleOf": 2}), json!({"type": "number", "minimum": 0})),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"const": "a"}}),
            json!({"type": "array", "items": {"type": "string", "enum": ["a"]}}),
        ),
        // A missing type.
        (json!({"description": "d", "minLength": 1}), json!({"type": "string", "description": "d", "minLength": 1})),
        (json!({"items": {"type": "string"}}), json!({"type": "array", "items": {"type": "string"}})),
        (json!({"type": "text"}), any()),
        // Values of dropped properties stay allowed.
        (
            json!({"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": false}),
            json!({"type": "object", "properties": {}}),
        ),
        (
            json!({"type": "object", "properties": {"$a": {}, "b": {"type": "string"}}, "additionalProperties": false}),
            json!({"type": "object", "properties": {"b": {"type": "string"}}}),
        ),
        (
            json!({"type": "object", "additionalProperties": {"enum": [true]}}),
            json!({"type": "object", "properties": {}, "additionalProperties": {"type": "boolean", "description": "One of: true."}}),
        ),
        // Alternatives that are conditions on one object.
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
        ),
        (
            json!({"allOf": [{"$ref": "#/$defs/one"}], "description": "beside"}),
            json!({"type": "object", "description": "beside", "properties": {"x": {"type": "string"}}, "required": ["x"]}),
        ),
        (
            json!({"$ref": "#/$defs/one", "properties": {"y": {"type": "integer"}}, "required": ["y"]}),
            json!({"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "integer"}}, "required": ["x", "y"]}),
        ),
        (
            json!({"$ref": "#/$defs/name", "maxLength": 3, "default": "b", "description": "beside"}),
            json!({"type": "string", "enum": ["a", "b"], "maxLength": 3, "default": "b", "description": "beside"}),
        ),
        (
            json!({"anyOf": [{"$ref": "#/$defs/name"}, {"type": "null"}], "default": null}),
            json!({"type": "string", "enum": ["a", "b"]}),
        ),
    ]);
    let described = of(json!({"properties": {"p": {"description": "d"}}}));
    assert_eq!(described["properties"]["p"]["anyOf"][0], json!({"type": "string", "description": "d"}));
}

#[test]
fn expansion_is_bounded_by_the_copied_bytes() {
    let text = |bytes: usize| "x".repeat(bytes);
    let uses = |n: usize, named: &str| -> Map<String, Value> {
        (0..n).map(|at| (format!("p{at}"), json!({"$ref": format!("#/$defs/{named}")}))).collect()
    };
    let large = text(2 * 1024 * 1024);
    for (given, bound) in [
        (json!({"properties": uses(9_000, "d"), "$defs": {"d": {"type": "string", "description": large}}}), "given"),
        (
            json!({"properties": uses(1_000, "d"), "$defs": {"d": {"type": "string", "description": text(10_000)}}}),
            "copied",
        ),
        (json!({"properties": uses(1_000, "d"), "$defs": {"d": {"enum": [text(10_000)]}}}), "in a list"),
        (
            json!({"properties": uses(1_000, "d"), "$defs": {"d": {"type": "string", "default": text(10_000)}}}),
            "a default",
        ),
        (
            json!({"anyOf": (0..1_000).map(|_| json!({"$ref": "#/$defs/d"})).collect::<Value>(),
            "$defs": {"d": {"properties": {"a": {"type": "string", "description": text(10_000)}}}}}),
            "alternatives",
        ),
        (
            json!({"properties": uses(1_000, "d"), "$defs": {"d": {"properties": {text(64): {}, format!("a{}", text(60)): {}}}}}),
            "keys",
        ),
        (json!({"properties": {"a": {"type": "string", "description": text(MAX_BYTES)}}}), "the result"),
    ] {
        let error = super::normal(&given, MAX_BYTES).expect_err(bound);
        assert!(error.contains("too large"), "{bound}: {error}");
    }
    let unused = json!({"properties": {"a": {"type": "string"}}, "$defs": {"d": {"description": text(100_000)}}});
    assert!(normal(&unused).is_ok(), "unused definitions cost nothing");
    let many: Value = (0..1_000).map(|n| json!({"properties": {"a": {"const": format!("n{n}")}}})).collect();
    assert!(normal(&json!({ "anyOf": many })).is_ok());
    let lost: Map<String, Value> = (0..1_000).map(|n| (format!("${n}"), json!({}))).collect();
    assert!(normal(&json!({ "properties": lost })).unwrap().lost.len() <= LOST_MAX);
}
