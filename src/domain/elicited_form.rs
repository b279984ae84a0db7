//! Forms of MCP servers: from the schema that a server asks with to fields, and from the entered values to the answer.
//!
//! A schema is a flat object of texts, numbers, truth values and choices; spellings that say the same are taken too. A schema that
//! a form can't show as it is meant is refused whole: a person must not answer half a question.

use chrono::{DateTime, NaiveDate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    field::{self, FieldError},
    title,
};
use crate::limits;

/// A field of a server's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ElicitedField {
    pub key: String,
    pub required: bool,
    pub label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    #[serde(flatten)]
    pub input: FieldInput,
}

/// The values that a field takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
#[schemars(rename = "Input")]
pub enum FieldInput {
    Text {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<TextFormat>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_length: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_length: Option<u64>,
    },
    Number {
        /// No fractions.
        integer: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        minimum: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maximum: Option<f64>,
    },
    Boolean,
    /// One of the options.
    Choice {
        options: Vec<FieldOption>,
    },
    /// Some of the options.
    Choices {
        options: Vec<FieldOption>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_items: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_items: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextFormat {
    Email,
    Uri,
    Date,
    DateTime,
}

/// An option of a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Pick")]
pub struct FieldOption {
    /// The answer for the server.
    pub value: String,
    pub label: String,
}

/// The message above a form as it may be shown, or why it can't be.
pub fn message(text: &str) -> Result<String, &'static str> {
    shown(text, limits::ELICITED_MESSAGE_MAX_CHARS).ok_or("its message is empty or too long")
}

/// The fields of a schema, in the order of `order` where that is known; or why no form can show it.
pub fn fields(schema: &Value, order: &[String]) -> Result<Vec<ElicitedField>, &'static str> {
    if schema["type"] != "object" || ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| schema.get(key).is_some()) {
        return Err("its schema is no plain object");
    }
    let none = Map::new();
    let properties = match schema.get("properties") {
        None => &none,
        Some(Value::Object(properties)) => properties,
        Some(_) => return Err("its properties are no object"),
    };
    if properties.len() > limits::ELICITED_FIELDS_MAX {
        return Err("it has too many fields");
    }
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if required.iter().any(|key| !properties.contains_key(*key)) {
        return Err("it requires a field that it does not describe");
    }
    let place = |key: &String| order.iter().position(|known| known == key).unwrap_or(order.len());
    let mut properties: Vec<(&String, &Value)> = properties.iter().collect();
    properties.sort_by_key(|(key, _)| place(key));
    let fields = properties.into_iter().map(|(key, property)| field(key, property, required.contains(&key.as_str())));
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    match json!(fields).to_string().len() > limits::ELICITED_FORM_MAX_BYTES {
        true => Err("it is too large"),
        false => Ok(fields),
    }
}

fn field(key: &str, property: &Value, required: bool) -> Result<ElicitedField, &'static str> {
    if key.chars().any(title::is_hidden) || !(1..=limits::ELICITED_LABEL_MAX_CHARS).contains(&key.chars().count()) {
        return Err("the name of a field can't be shown");
    }
    let property = &without_null(property);
    let text = |name: &str, max: usize| match property[name].as_str().filter(|text| !text.trim().is_empty()) {
        None => Ok(None),
        Some(text) => shown(text, max).map(Some).ok_or("a field is described at too great length"),
    };
    let label = text("title", limits::ELICITED_LABEL_MAX_CHARS)?.unwrap_or_else(|| key.to_string());
    let description = text("description", limits::ELICITED_DESCRIPTION_MAX_CHARS)?;
    let input = input(property)?;
    let default = property.get("default").and_then(|value| input.check(value).ok());
    Ok(ElicitedField { key: key.to_string(), required, label, description, default, input })
}

/// A property that may be left out, spelled as one that may be null, without that.
fn without_null(property: &Value) -> Value {
    let mut property = property.clone();
    if let Some([one]) =
        property["type"].as_array().map(|types| types.iter().filter(|t| *t != "null").collect::<Vec<_>>()).as_deref()
    {
        property["type"] = (*one).clone();
    }
    if property.get("default") == Some(&Value::Null) {
        property.as_object_mut().map(|property| property.remove("default"));
    }
    let either = property["anyOf"].as_array().filter(|_| property.get("type").is_none());
    let kinds: Vec<Value> = either.into_iter().flatten().filter(|kind| kind["type"] != "null").cloned().collect();
    if let [Value::Object(one)] = kinds.as_slice()
        && let Value::Object(property) = &mut property
    {
        property.remove("anyOf");
        for (key, value) in one {
            property.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    property
}

fn input(property: &Value) -> Result<FieldInput, &'static str> {
    let kind = property["type"].as_str();
    if matches!(kind, None | Some("string"))
        && let Some(options) = options(property)?
    {
        return Ok(FieldInput::Choice { options });
    }
    let (count, bound) = (|name: &str| property[name].as_u64(), |name: &str| property[name].as_f64());
    match kind {
        Some("string") => {
            let format = property["format"].as_str().and_then(|format| serde_json::from_value(format.into()).ok());
            Ok(FieldInput::Text { format, min_length: count("minLength"), max_length: count("maxLength") })
        }
        Some(kind @ ("number" | "integer")) => {
            Ok(FieldInput::Number { integer: kind == "integer", minimum: bound("minimum"), maximum: bound("maximum") })
        }
        Some("boolean") => Ok(FieldInput::Boolean),
        Some("array") => match options(&property["items"])? {
            Some(options) => {
                Ok(FieldInput::Choices { options, min_items: count("minItems"), max_items: count("maxItems") })
            }
            None => Err("a list of anything but options can't be shown"),
        },
        _ => Err("a field is neither a text, a number, a truth value nor a choice"),
    }
}

/// The options of a property, if it has some.
fn options(property: &Value) -> Result<Option<Vec<FieldOption>>, &'static str> {
    let pick = |value: &Value, label: Option<&Value>| {
        let value = value.as_str()?;
        let label = label.and_then(Value::as_str).filter(|label| !label.trim().is_empty()).unwrap_or(value);
        let is_short = value.chars().count() <= limits::ELICITED_LABEL_MAX_CHARS;
        Some(FieldOption {
            label: shown(label, limits::ELICITED_LABEL_MAX_CHARS)?,
            value: is_short.then(|| value.to_string())?,
        })
    };
    let titled = property["oneOf"].as_array().or_else(|| property["anyOf"].as_array());
    let picks: Option<Vec<FieldOption>> = match (property["enum"].as_array(), titled) {
        (Some(values), _) => {
            let names = &property["enumNames"];
            values.iter().enumerate().map(|(n, value)| pick(value, names.get(n))).collect()
        }
        (None, Some(titled)) => titled.iter().map(|option| pick(&option["const"], option.get("title"))).collect(),
        (None, None) => return Ok(None),
    };
    let picks = picks.ok_or("an option can't be shown")?;
    let values: std::collections::HashSet<&str> = picks.iter().map(|pick| pick.value.as_str()).collect();
    match (1..=limits::ELICITED_OPTIONS_MAX).contains(&picks.len()) && values.len() == picks.len() {
        true => Ok(Some(picks)),
        false => Err("it has no options, too many, or one twice"),
    }
}

/// A text without the characters that change how others are seen; `None`: nothing is left, or it is too long.
fn shown(text: &str, max_chars: usize) -> Option<String> {
    let text: String = text.chars().filter(|c| matches!(c, '\n' | '\t') || !title::is_hidden(*c)).collect();
    let text = text.trim();
    (!text.is_empty() && text.chars().count() <= max_chars).then(|| text.to_string())
}

/// The entered values in their canonical form, and all their faults.
pub fn check(fields: &[ElicitedField], values: &Map<String, Value>) -> (Map<String, Value>, Vec<FieldError>) {
    let (mut checked, mut errors) = (Map::new(), Vec::new());
    for ElicitedField { key, required, input, .. } in fields {
        let is_left_out = |value: &&Value| {
            value.is_null() || (*value == "" && !matches!(input, FieldInput::Text { .. } if *required))
        };
        let message = match values.get(key).filter(|value| !is_left_out(value)) {
            None if *required => Some("this field is required".to_string()),
            None => None,
            Some(value) => match input.check(value) {
                Ok(value) => {
                    checked.insert(key.clone(), value);
                    None
                }
                Err(message) => Some(message),
            },
        };
        errors.extend(message.map(|message| FieldError { field: key.clone(), message }));
    }
    (checked, errors)
}

impl FieldInput {
    /// The value as the server gets it, or its fault. A model may pass on numbers and truth values as texts.
    fn check(&self, value: &Value) -> Result<Value, String> {
        match self {
            Self::Text { format, min_length, max_length } => {
                let text = value.as_str().ok_or("must be text")?;
                check_text(text, *format, *min_length, *max_length).map(Value::from)
            }
            Self::Number { integer, minimum, maximum } => check_number(value, *integer, *minimum, *maximum),
            Self::Boolean => match value {
                Value::Bool(_) => Ok(value.clone()),
                Value::String(text) => {
                    text.trim().parse::<bool>().map(Value::from).map_err(|_| "must be true or false".into())
                }
                _ => Err("must be true or false".into()),
            },
            Self::Choice { options } => picked(options, value).map(Value::from),
            Self::Choices { options, min_items, max_items } => {
                let given = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                let mut values = Vec::new();
                for value in given {
                    let value = picked(options, value)?;
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                let count = values.len() as u64;
                if min_items.is_some_and(|min| count < min) {
                    return Err(format!("must be at least {} of the options", min_items.unwrap_or_default()));
                }
                if max_items.is_some_and(|max| count > max) {
                    return Err(format!("must be at most {} of the options", max_items.unwrap_or_default()));
                }
                Ok(values.into())
            }
        }
    }

    /// A stand-in for a value, in the shape that a model is told to pass on.
    pub fn example(&self) -> Value {
        match self {
            Self::Text { .. } => "…".into(),
            Self::Number { .. } => 0.into(),
            Self::Boolean => true.into(),
            Self::Choice { .. } => "a value".into(),
            Self::Choices { .. } => json!(["a value"]),
        }
    }
}

/// The value of the option that was picked, by its value or by its label.
fn picked<'a>(options: &'a [FieldOption], given: &Value) -> Result<&'a str, String> {
    let given = given.as_str().unwrap_or_default();
    let by_value = options.iter().find(|pick| pick.value == given);
    let pick = by_value.or_else(|| options.iter().find(|pick| pick.label == given.trim()));
    pick.map(|pick| pick.value.as_str()).ok_or_else(|| "must be one of the options".into())
}

fn check_text(text: &str, format: Option<TextFormat>, min: Option<u64>, max: Option<u64>) -> Result<String, String> {
    let chars = text.chars().count() as u64;
    let max = max.unwrap_or(u64::MAX).min(limits::ELICITED_TEXT_MAX_CHARS as u64);
    if chars > max {
        return Err(format!("must be at most {max} characters"));
    }
    if chars < min.unwrap_or_default() {
        return Err(format!("must be at least {} characters", min.unwrap_or_default()));
    }
    let trimmed = text.trim();
    let is_uri = |text: &str| {
        let scheme = text.split_once(':').map(|(scheme, rest)| (scheme, !rest.is_empty()));
        let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        !text.contains(char::is_whitespace)
            && scheme.is_some_and(|(scheme, has_rest)| {
                has_rest && scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(legal)
            })
    };
    match format {
        None => Ok(text.to_string()),
        Some(TextFormat::Email) => field::email(trimmed).ok_or_else(|| "must be a valid email address".into()),
        Some(TextFormat::Uri) if is_uri(trimmed) => Ok(trimmed.to_string()),
        Some(TextFormat::Uri) => Err("must be a web address".into()),
        Some(TextFormat::Date) if trimmed.parse::<NaiveDate>().is_ok() => Ok(trimmed.to_string()),
        Some(TextFormat::Date) => Err("must be a date like 2026-11-27".into()),
        Some(TextFormat::DateTime) if DateTime::parse_from_rfc3339(trimmed).is_ok() => Ok(trimmed.to_string()),
        Some(TextFormat::DateTime) => Err("must be a moment like 2026-11-27T09:30:00Z".into()),
    }
}

fn check_number(value: &Value, integer: bool, minimum: Option<f64>, maximum: Option<f64>) -> Result<Value, String> {
    let not_one = || if integer { "must be a whole number" } else { "must be a number" }.to_string();
    let parsed = match value {
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => serde_json::from_str::<Value>(text.trim()).ok().filter(Value::is_number),
        _ => None,
    };
    let parsed = parsed.ok_or_else(not_one)?;
    let number = parsed.as_f64().filter(|number| number.is_finite()).ok_or_else(not_one)?;
    if integer && number.fract() != 0.0 {
        return Err(not_one());
    }
    if minimum.is_some_and(|minimum| number < minimum) {
        return Err(format!("must be at least {}", minimum.unwrap_or_default()));
    }
    if maximum.is_some_and(|maximum| number > maximum) {
        return Err(format!("must be at most {}", maximum.unwrap_or_default()));
    }
    // A whole number with a point in it is one all the same.
    match integer && !parsed.is_i64() && !parsed.is_u64() {
        true if number.abs() < 9e15 => Ok(json!(number as i64)),
        true => Err(not_one()),
        false => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(properties: Value, required: Value) -> Result<Vec<ElicitedField>, &'static str> {
        fields(&json!({ "type": "object", "properties": properties, "required": required }), &[])
    }

    #[test]
    fn every_kind_of_the_protocol_is_a_field_and_so_are_other_spellings_of_it() {
        let titled = json!([{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]);
        let named = of(
            json!({
                "a": {"type": "string", "title": "A", "description": "d", "format": "email", "default": "a@b.c"},
                "b": {"type": "integer", "minimum": 1, "maximum": 9},
                "c": {"type": "boolean", "default": true},
                "d": {"type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"]},
                "e": {"type": "string", "oneOf": titled},
                "f": {"type": "array", "items": {"anyOf": titled}, "minItems": 1},
                "g": {"type": "array", "items": {"type": "string", "enum": ["x"]}},
                "h": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": null, "title": "H"},
                "i": {"type": ["string", "null"], "format": "color"},
                "j": {"enum": ["only"]},
            }),
            json!(["a"]),
        )
        .unwrap();
        let kinds: Vec<String> = named.iter().map(|field| json!(field)["type"].as_str().unwrap().to_string()).collect();
        assert_eq!(
            kinds,
            ["text", "number", "boolean", "choice", "choice", "choices", "choices", "number", "text", "choice"]
        );
        assert_eq!(
            json!(named[0]),
            json!({"key": "a", "required": true, "label": "A", "description": "d", "default": "a@b.c",
            "type": "text", "format": "email"})
        );
        assert_eq!(json!(named[3])["options"], json!(named[4])["options"]);
        assert_eq!((named[7].label.as_str(), &named[7].default), ("H", &None));
        let again: Vec<ElicitedField> = serde_json::from_value(json!(named)).unwrap();
        assert_eq!(again, named);
        assert_eq!(fields(&json!({"type": "object", "properties": {}}), &[]), Ok(vec![]), "a bare confirmation");
        let order = ["b".to_string(), "a".to_string()];
        let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}}});
        assert_eq!(fields(&schema, &order).unwrap()[0].key, "b");
    }

    #[test]
    fn a_schema_that_no_form_can_show_is_refused() {
        let long = "x".repeat(5_000);
        let many: Map<String, Value> = (0..99).map(|n| (n.to_string(), json!({"type": "boolean"}))).collect();
        for (properties, required) in [
            (json!({"a": {"type": "object", "properties": {}}}), json!([])),
            (json!({"a": {"type": "array", "items": {"type": "string"}}}), json!([])),
            (json!({"a": {"$ref": "#/$defs/A"}}), json!([])),
            (json!({"a": {"anyOf": [{"type": "string"}, {"type": "number"}]}}), json!([])),
            (json!({"a": {"enum": [1, 2]}}), json!([])),
            (json!({"a": {"enum": []}}), json!([])),
            (json!({"a": {"enum": ["x", "x"]}}), json!([])),
            (json!({"a": {"type": "string", "title": long}}), json!([])),
            (json!({"a": {"type": "string", "description": long}}), json!([])),
            (json!({"a": {"enum": [long]}}), json!([])),
            (json!({long.clone(): {"type": "string"}}), json!([])),
            (json!({"": {"type": "string"}}), json!([])),
            (json!({"a": {"type": "string"}}), json!(["b"])),
            (json!({"a": 7}), json!([])),
            (json!([]), json!([])),
            (Value::Object(many), json!([])),
        ] {
            assert!(of(properties.clone(), required).is_err(), "{properties}");
        }
        for schema in [json!(null), json!({"type": "array"}), json!({"type": "object", "anyOf": []}), json!({})] {
            assert!(fields(&schema, &[]).is_err(), "{schema}");
        }
        assert!(message(&long).is_err() && message(" \u{202e} ").is_err());
        assert_eq!(message("Pay\u{202e} \n10 €?").unwrap(), "Pay \n10 €?");
    }

    #[test]
    fn values_are_checked_by_kind() {
        let of = |property: Value| fields(&json!({"type": "object", "properties": {"a": property}}), &[]).unwrap();
        let checked = |property: &Value, value: Value| {
            let (values, errors) = check(&of(property.clone()), json!({"a": value, "b": 1}).as_object().unwrap());
            if errors.is_empty() { values.get("a").cloned() } else { Some(json!({"wrong": errors[0].message})) }
        };
        let choice = json!({"type": "string", "oneOf": [{"const": "s", "title": "Small"}]});
        let choices = json!({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 1});
        let whole = json!({"type": "integer", "minimum": 1, "maximum": 9});
        for (property, given, kept) in [
            (json!({"type": "string"}), json!(" a "), json!(" a ")),
            (json!({"type": "string", "format": "email"}), json!(" A@B.C "), json!("A@b.c")),
            (json!({"type": "string", "format": "uri"}), json!("https://x.y"), json!("https://x.y")),
            (json!({"type": "string", "format": "date"}), json!("2026-02-28"), json!("2026-02-28")),
            (whole.clone(), json!(3), json!(3)),
            (whole.clone(), json!("3"), json!(3)),
            (whole.clone(), json!(3.0), json!(3)),
            (json!({"type": "number"}), json!(0.5), json!(0.5)),
            (json!({"type": "boolean"}), json!("true"), json!(true)),
            (choice.clone(), json!("Small"), json!("s")),
            (choices.clone(), json!(["x", "x"]), json!(["x"])),
            (choices.clone(), json!("y"), json!(["y"])),
        ] {
            assert_eq!(checked(&property, given.clone()), Some(kept), "{property} {given}");
        }
        for (property, given) in [
            (json!({"type": "string", "minLength": 2}), json!("a")),
            (json!({"type": "string"}), json!("a".repeat(3_000))),
            (json!({"type": "string"}), json!(7)),
            (json!({"type": "string", "format": "uri"}), json!("no address")),
            (json!({"type": "string", "format": "date"}), json!("2026-02-30")),
            (json!({"type": "string", "format": "date-time"}), json!("2026-02-28")),
            (whole.clone(), json!(0)),
            (whole.clone(), json!(10)),
            (whole, json!(1.5)),
            (json!({"type": "number"}), json!("much")),
            (json!({"type": "boolean"}), json!("yes!")),
            (choice, json!("m")),
            (choices.clone(), json!(["x", "y"])),
            (choices, json!([])),
        ] {
            assert!(
                checked(&property, given.clone()).is_some_and(|kept| kept.get("wrong").is_some()),
                "{property} {given}"
            );
        }
        assert_eq!(checked(&json!({"type": "string"}), json!("")), None, "left out");
    }
}
