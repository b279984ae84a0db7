//! A waiting turn as an elicitation in the answer to a call, and the person's answer in the repeated call.
//!
//! The state that a client sends back is a handle: its session is checked as in every action, and the answer counts only for the
//! prompt that the handle names.

use std::collections::BTreeMap;

use rmcp::model::{
    CallToolRequestParams, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    InputRequest, InputRequiredResult, JsonObject,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::domain::{
    elicited_form::{ElicitedField, FieldInput, FieldOption},
    event::Prompt,
    interaction::{FieldKey, Form},
};

/// The name of the only request in the answer to a call.
const KEY: &str = "answer";

/// A turn's prompt that a client was asked.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptHandle {
    pub session: Uuid,
    pub turn: Uuid,
    pub park: Uuid,
}

/// A client's answer to a prompt.
pub struct PromptAnswer {
    pub handle: PromptHandle,
    pub answer: FormAnswer,
}

/// A person's answer to a form.
pub enum FormAnswer {
    Accepted(Map<String, Value>),
    Declined,
    /// The form was closed without a decision.
    Closed,
}

impl PromptAnswer {
    /// Reads the answer that a call brings, if it brings one.
    pub fn of(request: &CallToolRequestParams) -> Result<Option<Self>, &'static str> {
        let Some(state) = &request.request_state else { return Ok(None) };
        let handle: PromptHandle =
            serde_json::from_str(state).map_err(|_| "`requestState` is none of this server's")?;
        let response = request.input_responses.as_ref().and_then(|responses| responses.get(KEY));
        let response: Option<ElicitResult> =
            response.and_then(|response| serde_json::from_value(response.clone()).ok());
        let response = response.ok_or("`inputResponses` lacks the answer that was asked for")?;
        let answer = match (response.action, response.content) {
            (ElicitationAction::Accept, Some(Value::Object(content))) => FormAnswer::Accepted(content),
            (ElicitationAction::Accept, _) => FormAnswer::Accepted(Map::new()),
            (ElicitationAction::Decline, _) => FormAnswer::Declined,
            _ => FormAnswer::Closed,
        };
        Ok(Some(Self { handle, answer }))
    }
}

/// Builds the form for a waiting turn; `problems` are the mistakes in the last answer.
pub fn form(prompt: &Prompt, handle: &PromptHandle, problems: &str) -> Option<InputRequiredResult> {
    let (message, schema) = match prompt {
        Prompt::Approval { description, .. } => (description.clone(), approval()),
        Prompt::Interaction { form, reason, .. } => (format!("Some details are needed {reason}."), schema(form)),
        Prompt::Elicitation { form, reason, .. } => (reason.clone(), schema(form)),
        Prompt::Task { .. } => return None,
    };
    let message = if problems.is_empty() { message } else { format!("{message} ({problems})") };
    let Value::Object(schema) = schema else { return None };
    let requested_schema = ElicitationSchema::from_json_schema(schema).ok()?;
    let params = ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
    let requests = BTreeMap::from([(KEY.to_string(), InputRequest::Elicitation(ElicitRequest::new(params)))]);
    Some(InputRequiredResult::new(Some(requests), serde_json::to_string(handle).ok()))
}

/// Describes the pending question, for a client that can't be asked.
pub fn described(prompt: &Prompt) -> (String, Value) {
    match prompt {
        Prompt::Approval { description, .. } => (
            format!(
                "The agent waits for a person's approval: {description}. It can be given or refused in a client of this \
                 conversation that shows approvals. Another message in this conversation withdraws the request."
            ),
            json!({ "kind": "approval", "description": description }),
        ),
        Prompt::Interaction { form, reason, .. } | Prompt::Elicitation { form, reason, .. } => (
            format!(
                "The agent waits for a person to fill in a form: {reason}. It can be filled in in a client of this \
                 conversation that shows forms. Another message in this conversation withdraws the request."
            ),
            json!({ "kind": form.kind(), "reason": reason, "spec": form.spec() }),
        ),
        Prompt::Task { tool, .. } => (format!("The agent waits for `{tool}`."), json!({ "kind": "task" })),
    }
}

fn approval() -> Value {
    json!({
        "type": "object",
        "properties": { "approved": { "type": "boolean", "title": "Approved", "default": false } },
        "required": ["approved"],
    })
}

fn schema(form: &Form) -> Value {
    let (mut properties, mut required) = (JsonObject::new(), Vec::new());
    match form {
        Form::IdentityIntake { fields } => {
            for field in fields {
                let name = field.key.name();
                let mut property = json!({ "type": "string", "title": field.label.as_deref().unwrap_or(name) });
                if field.key == FieldKey::Email {
                    property["format"] = "email".into();
                }
                properties.insert(name.into(), property);
                if field.required {
                    required.push(name.to_string());
                }
            }
        }
        Form::Choices { questions } => {
            for question in questions {
                let labels: Vec<&str> = question.options.iter().map(|choice| choice.label.as_str()).collect();
                let choices = json!({ "type": "string", "enum": labels });
                let mut property = match question.multi_select {
                    true => json!({ "type": "array", "minItems": 1, "items": choices }),
                    false => choices,
                };
                property["title"] = question.question.clone().into();
                properties.insert(question.header.clone(), property);
                required.push(question.header.clone());
            }
        }
        Form::Elicitation { fields } => {
            for field in fields {
                properties.insert(field.key.clone(), property(field));
                if field.required {
                    required.push(field.key.clone());
                }
            }
        }
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

/// A field as the property of a schema that it once was.
fn property(field: &ElicitedField) -> Value {
    let picks = |options: &[FieldOption]| {
        options.iter().map(|pick| json!({ "const": pick.value, "title": pick.label })).collect::<Vec<_>>()
    };
    let mut property = match &field.input {
        FieldInput::Text { format, min_length, max_length } => {
            json!({ "type": "string", "format": format, "minLength": min_length, "maxLength": max_length })
        }
        FieldInput::Number { integer: true, minimum, maximum } => {
            json!({ "type": "integer", "minimum": minimum.map(|n| n as i64), "maximum": maximum.map(|n| n as i64) })
        }
        FieldInput::Number { integer: false, minimum, maximum } => {
            json!({ "type": "number", "minimum": minimum, "maximum": maximum })
        }
        FieldInput::Boolean => json!({ "type": "boolean" }),
        FieldInput::Choice { options } => json!({ "type": "string", "oneOf": picks(options) }),
        FieldInput::Choices { options, min_items, max_items } => {
            json!({ "type": "array", "items": { "anyOf": picks(options) }, "minItems": min_items, "maxItems": max_items })
        }
    };
    property["title"] = field.label.clone().into();
    property["description"] = field.description.clone().into();
    property["default"] = field.default.clone().unwrap_or_default();
    property.as_object_mut().expect("it was made as one").retain(|_, value| !value.is_null());
    property
}

/// The entered values, as `submit_interaction` takes them.
pub fn values(form: &Form, content: Map<String, Value>) -> Value {
    match form {
        Form::IdentityIntake { .. } | Form::Elicitation { .. } => Value::Object(content),
        Form::Choices { .. } => {
            let picked = |value: Value| if value.is_array() { value } else { json!([value]) };
            let answers =
                content.into_iter().map(|(header, value)| json!({ "header": header, "options": picked(value) }));
            json!({ "answers": answers.collect::<Vec<_>>() })
        }
    }
}
