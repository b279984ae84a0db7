//! Rich interactions: forms shown to a visitor, and the checks of the submitted values.
//!
//! The same checks apply to a form sent by a client and to answers that the model passes on from the visitor's words.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    elicited_form::{self, ElicitedField},
    field::{FieldError, email},
    title,
};
use crate::limits;

/// A form that a visitor fills in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "spec", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Form {
    /// The visitor's contact.
    IdentityIntake { fields: Vec<Field> },
    /// One to four questions with options to pick.
    Choices { questions: Vec<Question> },
    /// A question of a tool's server in the middle of a call.
    Elicitation { fields: Vec<ElicitedField> },
}

/// A field of an identity form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    pub key: FieldKey,
    pub required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldKey {
    Name,
    Email,
    Phone,
}

/// A question with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    pub question: String,
    /// Names the question in the answer; at most 12 characters.
    pub header: String,
    pub options: Vec<Choice>,
    #[serde(default)]
    pub multi_select: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    pub label: String,
    #[serde(default)]
    pub description: String,
}

/// Contact given by a visitor, checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contact {
    pub name: Option<String>,
    pub email: Option<String>,
    /// In E.164 form.
    pub phone: Option<String>,
}

const QUESTIONS_MAX: usize = 4;
const OPTIONS: std::ops::RangeInclusive<usize> = 2..=4;
const HEADER_MAX_CHARS: usize = 12;

impl FieldKey {
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }

    /// Returns the value in canonical form, or its error.
    fn check(self, value: &str) -> Result<String, &'static str> {
        match self {
            Self::Name if value.chars().count() > limits::NAME_MAX_CHARS => Err("is too long"),
            Self::Name if value.chars().any(title::is_hidden) => Err("must not hold hidden characters"),
            Self::Name => Ok(value.to_string()),
            Self::Email => email(value).ok_or("must be a valid email address"),
            Self::Phone => phone(value).ok_or("must be a valid phone number, with + and the country code"),
        }
    }
}

impl Form {
    /// Returns the name of the kind on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::IdentityIntake { .. } => "identity_intake",
            Self::Choices { .. } => "choices",
            Self::Elicitation { .. } => "elicitation",
        }
    }

    /// Returns the capability that a client declares in `supports` to be shown this form.
    pub fn capability(&self) -> &'static str {
        match self {
            Self::IdentityIntake { .. } => "identity_form",
            Self::Choices { .. } => "choice_chips",
            Self::Elicitation { .. } => "elicitation_form",
        }
    }

    /// Returns the wire's `spec`.
    pub fn spec(&self) -> Value {
        match self {
            Self::IdentityIntake { fields } => json!({ "fields": fields }),
            Self::Choices { questions } => json!({ "questions": questions }),
            Self::Elicitation { fields } => json!({ "fields": fields }),
        }
    }

    /// Parses an identity form from the model's arguments.
    ///
    /// Fields may be bare keys, and are required unless they say otherwise.
    pub fn identity_intake(arguments: &Value) -> Result<Self, String> {
        let list = arguments["fields"].as_array().filter(|list| !list.is_empty());
        let list = list.ok_or("`fields` is a list of name, email or phone, and not empty.")?;
        let fields = list.iter().map(field).collect::<Result<Vec<_>, _>>()?;
        let keys: HashSet<FieldKey> = fields.iter().map(|field| field.key).collect();
        if keys.len() < fields.len() {
            return Err("A field is asked for once.".into());
        }
        Ok(Self::IdentityIntake { fields })
    }

    /// Parses questions from the model's arguments.
    pub fn choices(arguments: &Value) -> Result<Self, String> {
        let questions: Vec<Question> = serde_json::from_value(arguments["questions"].clone())
            .map_err(|error| format!("`questions` is malformed: {error}."))?;
        if !(1..=QUESTIONS_MAX).contains(&questions.len()) {
            return Err(format!("There are 1 to {QUESTIONS_MAX} questions."));
        }
        let questions: Vec<Question> = questions.into_iter().map(Question::trimmed).collect();
        questions.iter().try_for_each(Question::check)?;
        let headers: HashSet<&str> = questions.iter().map(|question| question.header.as_str()).collect();
        if headers.len() < questions.len() {
            return Err("Each question has a `header` of its own.".into());
        }
        Ok(Self::Choices { questions })
    }

    /// Returns the values in canonical form, or all errors: never an empty list.
    pub fn check(&self, values: &Map<String, Value>) -> Result<Map<String, Value>, Vec<FieldError>> {
        let (checked, errors) = match self {
            Self::IdentityIntake { fields } => check_fields(fields, values),
            Self::Choices { questions } => check_answers(questions, values),
            Self::Elicitation { fields } => elicited_form::check(fields, values),
        };
        if errors.is_empty() { Ok(checked) } else { Err(errors) }
    }
}

impl Contact {
    /// Reads the contact from the checked values of an identity form.
    pub fn of(form: &Form, values: &Map<String, Value>) -> Option<Self> {
        let text = |key: FieldKey| values.get(key.name())?.as_str().map(str::to_string);
        match form {
            Form::IdentityIntake { .. } => {
                Some(Self { name: text(FieldKey::Name), email: text(FieldKey::Email), phone: text(FieldKey::Phone) })
            }
            Form::Choices { .. } | Form::Elicitation { .. } => None,
        }
    }

    /// Takes over the parts that the other contact has.
    pub fn learn(&mut self, other: Self) {
        self.name = other.name.or(self.name.take());
        self.email = other.email.or(self.email.take());
        self.phone = other.phone.or(self.phone.take());
    }
}

impl Question {
    fn trimmed(self) -> Self {
        let trim = |text: String| text.trim().to_string();
        let options = self.options.into_iter();
        let options = options.map(|choice| Choice { label: trim(choice.label), description: trim(choice.description) });
        Self { question: trim(self.question), header: trim(self.header), options: options.collect(), ..self }
    }

    fn check(&self) -> Result<(), String> {
        if self.question.is_empty() || !(1..=HEADER_MAX_CHARS).contains(&self.header.chars().count()) {
            return Err(format!("A question has a text and a `header` of 1 to {HEADER_MAX_CHARS} characters."));
        }
        let labels: HashSet<&str> = self.options.iter().map(|choice| choice.label.as_str()).collect();
        if !OPTIONS.contains(&self.options.len()) || labels.len() < self.options.len() || labels.contains("") {
            return Err("A question has 2 to 4 options with labels of their own.".into());
        }
        Ok(())
    }

    /// Returns the answer to this question in canonical form.
    fn answer(&self, given: &Value) -> Result<Value, String> {
        let other = given["other"].as_str().map(str::trim).filter(|other| !other.is_empty());
        if other.is_some_and(|other| other.chars().count() > limits::NAME_MAX_CHARS) {
            return Err(format!("must be at most {} characters", limits::NAME_MAX_CHARS));
        }
        let mut picked: Vec<&str> = Vec::new();
        for label in given["options"].as_array().into_iter().flatten() {
            let label = label.as_str().map(str::trim).unwrap_or_default();
            if !self.options.iter().any(|choice| choice.label == label) {
                return Err("must be one of the options".into());
            }
            if !picked.contains(&label) {
                picked.push(label);
            }
        }
        match picked.len() + usize::from(other.is_some()) {
            0 => Err("this field is required".into()),
            2.. if !self.multi_select => Err("must be one option only".into()),
            _ => {
                let mut answer = json!({ "header": self.header, "options": picked });
                if let Some(other) = other {
                    answer["other"] = other.into();
                }
                Ok(answer)
            }
        }
    }
}

fn field(field: &Value) -> Result<Field, String> {
    let key = field.as_str().or_else(|| field["key"].as_str()).unwrap_or_default();
    let key = [FieldKey::Name, FieldKey::Email, FieldKey::Phone].into_iter().find(|known| known.name() == key);
    let key = key.ok_or("The key of a field is name, email or phone.")?;
    let label = field["label"].as_str().map(str::trim).filter(|label| !label.is_empty()).map(str::to_string);
    Ok(Field { key, required: field["required"].as_bool().unwrap_or(true), label })
}

fn check_fields(fields: &[Field], values: &Map<String, Value>) -> (Map<String, Value>, Vec<FieldError>) {
    let (mut checked, mut errors) = (Map::new(), Vec::new());
    for Field { key, required, .. } in fields {
        let mut wrong = |message: &str| errors.push(FieldError { field: key.name().into(), message: message.into() });
        match values.get(key.name()) {
            None | Some(Value::Null) if *required => wrong("this field is required"),
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.trim().is_empty() && !*required => {}
            Some(Value::String(text)) if text.trim().is_empty() => wrong("this field is required"),
            Some(Value::String(text)) => match key.check(text.trim()) {
                Ok(value) => drop(checked.insert(key.name().into(), value.into())),
                Err(message) => wrong(message),
            },
            Some(_) => wrong("must be text"),
        }
    }
    if checked.is_empty() && errors.is_empty() {
        errors.push(FieldError { field: "values".into(), message: "must hold at least one field".into() });
    }
    (checked, errors)
}

fn check_answers(questions: &[Question], values: &Map<String, Value>) -> (Map<String, Value>, Vec<FieldError>) {
    let given: Vec<&Value> = values.get("answers").and_then(Value::as_array).into_iter().flatten().collect();
    let header = |answer: &Value| answer["header"].as_str().unwrap_or_default().trim().to_string();
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    for question in questions {
        let mut of_question = given.iter().filter(|answer| header(answer) == question.header);
        let answer = match (of_question.next(), of_question.next()) {
            (None, _) => Err("this field is required".to_string()),
            (Some(_), Some(_)) => Err("must be answered once".to_string()),
            (Some(answer), None) => question.answer(answer),
        };
        match answer {
            Ok(answer) => answers.push(answer),
            Err(message) => errors.push(FieldError { field: question.header.clone(), message }),
        }
    }
    let is_asked = |answer: &&&Value| questions.iter().any(|question| question.header == header(answer));
    for stray in given.iter().filter(|answer| !is_asked(answer)) {
        let field = Some(header(stray)).filter(|header| !header.is_empty()).unwrap_or_else(|| "values".into());
        errors.push(FieldError { field, message: "must be a question of this form".into() });
    }
    (Map::from_iter([("answers".to_string(), Value::from(answers))]), errors)
}

/// Returns the number in E.164 form; ten digits alone are taken as a North American number.
fn phone(text: &str) -> Option<String> {
    let dialled: String = text.chars().filter(|c| !" -.()".contains(*c)).collect();
    let digits = dialled.strip_prefix('+').unwrap_or(&dialled);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match (dialled.starts_with('+'), digits.len()) {
        (true, 8..=15) if !digits.starts_with('0') => Some(dialled),
        (false, 10) => Some(format!("+1{digits}")),
        (false, 11) if digits.starts_with('1') => Some(format!("+{digits}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: &Form, values: Value) -> Result<Value, Vec<String>> {
        let values = values.as_object().unwrap();
        let checked = form.check(values).map(Value::Object);
        checked.map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn identity_values_are_checked_and_made_canonical() {
        let form =
            Form::identity_intake(&json!({ "fields": ["email", { "key": "phone", "required": false }] })).unwrap();
        assert_eq!(form.spec()["fields"][0], json!({ "key": "email", "required": true }));
        let ok = |values| check(&form, values).unwrap();
        assert_eq!(ok(json!({ "email": " Ann.B@Example.COM " })), json!({ "email": "Ann.B@example.com" }));
        assert_eq!(
            ok(json!({ "email": "a@b.c", "phone": "(555) 010-2030", "name": "not asked" })),
            json!({ "email": "a@b.c", "phone": "+15550102030" })
        );
        let wrong = |values| check(&form, values).unwrap_err();
        assert_eq!(wrong(json!({})), ["email"]);
        assert_eq!(wrong(json!({ "email": "ann", "phone": "12" })), ["email", "phone"]);
        assert_eq!(wrong(json!({ "email": 7 })), ["email"]);
        let optional = Form::identity_intake(&json!({ "fields": [{ "key": "name", "required": false }] })).unwrap();
        assert_eq!(check(&optional, json!({ "name": "  " })), Err(vec!["values".into()]));
    }

    #[test]
    fn phone_numbers_become_e164() {
        let table = [
            ("+49 (30) 123-456", Some("+4930123456")),
            ("555.010.2030", Some("+15550102030")),
            ("1 555 010 2030", Some("+15550102030")),
            ("+0123456789", None),
            ("25550102030", None),
            ("+1234567", None),
            ("+1234567890123456", None),
            ("call me", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(phone(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn addresses_have_a_local_part_and_a_domain_with_a_dot() {
        for wrong in ["a@b", "@b.c", "a@", "a b@c.d", "a@b@c.d", "a@.c", "a@b.", "a@b..c"] {
            assert_eq!(email(wrong), None, "{wrong}");
        }
        assert_eq!(email("A+x@B.Co").as_deref(), Some("A+x@b.co"));
    }

    #[test]
    fn answers_must_be_offered_options() {
        let question = |header: &str, multi: bool| {
            json!({
                "question": "Which?", "header": header, "multiSelect": multi,
                "options": [{ "label": "Red" }, { "label": "Blue", "description": "like the sky" }],
            })
        };
        let form = Form::choices(&json!({ "questions": [question("Colour", false), question("More", true)] })).unwrap();
        assert_eq!(form.spec()["questions"][0]["options"][0], json!({ "label": "Red", "description": "" }));
        let answer = |header: &str, options: &[&str]| json!({ "header": header, "options": options });
        let ok = json!({ "answers": [answer("Colour", &[" Red "]), answer("More", &["Red", "Blue"])] });
        assert_eq!(check(&form, ok).unwrap()["answers"][0], answer("Colour", &["Red"]));
        let other = json!({ "answers": [{ "header": "Colour", "other": "green" }, answer("More", &["Red"])] });
        assert_eq!(check(&form, other).unwrap()["answers"][0]["other"], "green");
        let both = json!({ "answers": [{ "header": "Colour", "options": ["Red"], "other": "green" }] });
        assert_eq!(check(&form, both), Err(vec!["Colour".into(), "More".into()]));
        let stray =
            json!({ "answers": [answer("Colour", &["Pink"]), answer("More", &["Red"]), answer("Size", &["L"])] });
        assert_eq!(check(&form, stray), Err(vec!["Colour".into(), "Size".into()]));
        assert_eq!(check(&form, json!({})).unwrap_err().len(), 2);
    }

    #[test]
    fn malformed_questions_are_refused() {
        let option = |label: &str| json!({ "label": label });
        let one = |header: &str, options: Vec<Value>| json!({ "question": "?", "header": header, "options": options });
        let fine = || vec![option("a"), option("b")];
        for wrong in [
            json!([]),
            json!([one("thirteen long", fine())]),
            json!([one("", fine())]),
            json!([one("x", vec![option("a")])]),
            json!([one("x", vec![option("a"), option("a")])]),
            json!([one("x", fine()), one("x", fine())]),
            json!("x"),
        ] {
            assert!(Form::choices(&json!({ "questions": wrong })).is_err(), "{wrong}");
        }
        assert!(Form::identity_intake(&json!({ "fields": ["name", "name"] })).is_err());
        assert!(Form::identity_intake(&json!({ "fields": ["age"] })).is_err());
    }
}
