//! Questions of a tool in the middle of its call: kept with the call until each is answered, and then given back with it.
//!
//! A call that asks has no result yet. Its server gets the answers when the call is made again, on whichever worker and however
//! much later; all that it needs for that is in [`Elicitation`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{answer::Resolution, interaction::Form};

/// The questions of a call, and the state that goes back to its server with the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Elicited")]
pub struct Elicitation {
    /// The call's id.
    pub call: String,
    /// In the order in which they are asked.
    pub questions: Vec<ElicitedQuestion>,
    /// Keys of requests beside them that no form can show; they count as declined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declined: Vec<String>,
    /// Opaque, and given back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_state: Option<String>,
    /// The server asked with a request of its own while the call ran, as it does before revision 2026-07-28. The call was given
    /// up; its repetition answers the same requests from here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub during_call: bool,
    /// Questions of the call so far, these included.
    pub asked: u32,
}

/// One question to the visitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Question")]
pub struct ElicitedQuestion {
    /// The server's key for it; of a request during the call, the digest of its message and schema.
    pub key: String,
    /// The server's words, as the visitor reads them.
    pub message: String,
    pub form: Form,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ElicitedAnswer>,
}

/// A person's answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Answer")]
pub struct ElicitedAnswer {
    pub resolution: Resolution,
    /// The submitted values, checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Map<String, Value>>,
}

/// A call whose questions the model asks in words, over the end of its turn: everything that making it again needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingCall {
    pub tool: String,
    /// The model's JSON text.
    pub arguments: String,
    /// The idempotency key of the call, which its repetition bears as well.
    pub idempotency_key: String,
    pub idempotent: bool,
    /// A person approved it, or it needs no approval.
    pub approved: bool,
    pub elicited: Elicitation,
}

impl Elicitation {
    /// The question that is asked next; `None`: all are answered, and the call is to be made again.
    pub fn open(&self) -> Option<&ElicitedQuestion> {
        self.questions.iter().find(|question| question.answer.is_none())
    }

    /// Takes the answer to the question that is open.
    pub fn answer(&mut self, resolution: Resolution, values: Option<Map<String, Value>>) {
        if let Some(question) = self.questions.iter_mut().find(|question| question.answer.is_none()) {
            question.answer = Some(ElicitedAnswer { resolution, values });
        }
    }

    /// About how much text it holds.
    pub fn text_bytes(&self) -> usize {
        let question = |question: &ElicitedQuestion| {
            let values = question.answer.as_ref().and_then(|answer| answer.values.as_ref());
            let answer = values.map_or(0, |values| Value::Object(values.clone()).to_string().len());
            question.message.len() + question.form.spec().to_string().len() + answer
        };
        let state = self.request_state.as_ref().map_or(0, String::len);
        state + self.questions.iter().map(question).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elicited(keys: &[&str]) -> Elicitation {
        let question = |key: &&str| ElicitedQuestion {
            key: key.to_string(),
            message: "Which?".into(),
            form: Form::Elicitation { fields: vec![] },
            answer: None,
        };
        Elicitation {
            call: "call-1".into(),
            questions: keys.iter().map(question).collect(),
            declined: vec![],
            request_state: None,
            during_call: false,
            asked: keys.len() as u32,
        }
    }

    #[test]
    fn questions_are_answered_one_after_another() {
        let mut elicited = elicited(&["b", "a"]);
        assert_eq!(elicited.open().unwrap().key, "b");
        elicited.answer(Resolution::Declined, None);
        assert_eq!(elicited.open().unwrap().key, "a");
        elicited.answer(Resolution::Submitted, Some(Map::new()));
        assert!(elicited.open().is_none());
        let before = elicited.clone();
        elicited.answer(Resolution::Expired, None);
        assert_eq!(elicited, before, "an answer is never overwritten");
    }
}
