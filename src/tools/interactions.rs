//! The tools that ask a visitor for contact data or for a choice.
//!
//! A client that can show forms is sent a form, and the turn parks. Otherwise the model asks in words and passes the
//! answer on with `submit_interaction`, under the same validation.

use serde_json::{Map, Value, json};

use super::{outcome::ToolResult, tool::Builtin};
use crate::domain::{
    elicitation::ElicitedQuestion,
    event::{Ask, Resolution},
    field::FieldError,
    interaction::Form,
};

const DEFAULT_REASON: &str = "to help you better";

/// Returns the form that a call asks for, or the error in its arguments. `supports`: the client's capabilities.
pub fn ask(builtin: Builtin, arguments: &Value, supports: &[String]) -> Result<Ask, String> {
    let form = match builtin {
        Builtin::RequestIdentityIntake => Form::identity_intake(arguments)?,
        Builtin::RequestChoices => Form::choices(arguments)?,
        _ => return Err("This tool asks nothing.".into()),
    };
    let reason = arguments["reason"].as_str().map(str::trim).filter(|reason| !reason.is_empty());
    let parks = supports.iter().any(|capability| capability == form.capability());
    Ok(Ask { form, reason: reason.unwrap_or(DEFAULT_REASON).to_string(), parks })
}

/// Returns the result for the model when the client shows no form.
pub fn in_words(builtin: Builtin, arguments: &Value) -> ToolResult {
    match ask(builtin, arguments, &[]) {
        Ok(ask) => ToolResult::ok(instructions(&ask.form)),
        Err(problem) => ToolResult::error(problem),
    }
}

/// The result for the model when a tool's server asks the visitor and the client shows no form.
pub fn elicited_in_words(question: &ElicitedQuestion) -> ToolResult {
    let mut told = instructions(&question.form);
    told["message"] = question.message.clone().into();
    told["status"] = "not_done_yet".into();
    ToolResult::ok(told)
}

fn instructions(form: &Form) -> Value {
    let values = match form {
        Form::IdentityIntake { .. } => json!({ "name": "…", "email": "…", "phone": "…" }),
        Form::Choices { .. } => json!({ "answers": [{ "header": "…", "options": ["a label"], "other": "free text" }] }),
        Form::Elicitation { fields } => fields.iter().map(|field| (field.key.clone(), field.input.example())).collect(),
    };
    let instructions = "The visitor's client shows no forms. Ask for this in your own words now, and end your answer there. \
        When the visitor has answered, call `submit_interaction` with `values` of this shape, without what was not said; \
        if they would rather not, with `declined: true`.";
    json!({
        "status": "ask_in_words", "instructions": instructions, "kind": form.kind(), "spec": form.spec(), "values": values,
    })
}

/// Validates an answer that the visitor gave in words and the model passed on; `asked`: the form that was asked for.
pub fn submit(arguments: &Value, asked: Option<&Form>) -> ToolResult {
    let Some(form) = asked else {
        return ToolResult::error("Nothing was asked of the visitor.");
    };
    if arguments["declined"] == true {
        return ToolResult { values: Some(Map::new()), ..answer(Resolution::Declined, None) };
    }
    let Some(values) = arguments["values"].as_object() else {
        return ToolResult::error("`values` or `declined: true` is required.");
    };
    match form.check(values) {
        Ok(values) => ToolResult { values: Some(values.clone()), ..answer(Resolution::Submitted, Some(&values)) },
        Err(errors) => ToolResult::error(problems(&errors)),
    }
}

/// Returns the result of a form for the model.
pub fn answer(resolution: Resolution, values: Option<&Map<String, Value>>) -> ToolResult {
    ToolResult::ok(match resolution {
        Resolution::Submitted | Resolution::Approved => json!({ "status": "submitted", "values": values }),
        Resolution::Declined => {
            json!({ "status": "declined", "message": "The visitor would rather not say. Go on without it." })
        }
        Resolution::Expired => {
            json!({ "status": "no_response", "message": "The visitor did not answer in time. Go on without it." })
        }
    })
}

fn problems(errors: &[FieldError]) -> String {
    let lines: Vec<String> = errors.iter().map(|error| format!("{}: {}.", error.field, error.message)).collect();
    format!("Ask the visitor again. {}", lines.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_waits_only_for_a_client_that_shows_it() {
        let arguments = json!({ "fields": ["email"], "reason": " " });
        let asks = |supports: &[&str]| {
            let supports: Vec<String> = supports.iter().map(|s| s.to_string()).collect();
            ask(Builtin::RequestIdentityIntake, &arguments, &supports).unwrap()
        };
        assert!(asks(&["identity_form"]).parks && !asks(&["choice_chips"]).parks);
        assert_eq!(asks(&[]).reason, "to help you better");
    }

    #[test]
    fn values_given_in_words_are_checked_like_a_form() {
        let form = Form::identity_intake(&json!({ "fields": ["email"] })).unwrap();
        assert!(submit(&json!({ "values": { "email": "a@b.c" } }), None).is_error);
        assert!(submit(&json!({ "values": { "email": "nobody" } }), Some(&form)).is_error);
        let submitted = submit(&json!({ "values": { "email": "a@B.c" } }), Some(&form));
        assert_eq!(submitted.values.unwrap()["email"], "a@b.c");
        assert!(submitted.text.contains("submitted"));
        let declined = submit(&json!({ "declined": true }), Some(&form));
        assert!(declined.values.unwrap().is_empty() && declined.text.contains("declined"));
    }
}
