//! Questions of a server in the middle of a call: which of them a visitor can be asked, and how the answers go back.
//!
//! - The current revision answers a call with its questions ([`ServerQuestions`]), and is called again with the answers ([`responses`]).
//! - Earlier ones ask with a request of their own while the call runs. Nothing in it names the call, so a question is taken for a
//!   call's only on a connection of the call's own ([`Dialogue`]).

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rmcp::model::{ElicitRequestParams, InputRequest, InputRequests, InputRequiredResult, InputResponses};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::{
    domain::{
        elicitation::{Elicitation, ElicitedAnswer, ElicitedQuestion},
        elicited_form,
        event::Resolution,
        interaction::Form,
    },
    limits,
    tools::context::CallContext,
};

/// The questions that a call was answered with.
pub struct ServerQuestions {
    requests: Vec<(String, ServerQuestion)>,
    state: Option<String>,
}

/// One request of a server for input.
enum ServerQuestion {
    Form(FormRequest),
    /// A reply of a model, folders, or something that is not known.
    NotOffered,
}

/// An elicitation as it came, and the order of its fields where that is known.
pub struct FormRequest {
    params: Value,
    order: Vec<String>,
}

/// The decision about the questions of an answer.
pub enum ElicitationRound {
    /// A visitor is asked.
    Ask(Elicitation),
    /// No visitor can be asked: the call is made again with these.
    Again(InputResponses, Option<String>),
    /// The call has come to an end, for this reason.
    End(&'static str),
}

const NOT_REPEATED: &str = "The tool asks the visitor something, and this call must not be made a second time, as it would have to \
    be to bring the answer. The call has ended without a result.";

impl ServerQuestions {
    pub fn of(result: InputRequiredResult) -> Self {
        Self { requests: requests(result.input_requests), state: result.request_state }
    }

    /// Reads an answer that the library does not take: one odd request in it costs that request alone.
    pub fn odd(result: &Value) -> Option<Self> {
        let state = result["requestState"].as_str().map(str::to_owned);
        let requests = result["inputRequests"].as_object();
        if result["resultType"] != "input_required" || (state.is_none() && requests.is_none()) {
            return None;
        }
        let asked = |request: &Value| match request["method"] == "elicitation/create" {
            true => ServerQuestion::Form(FormRequest { params: request["params"].clone(), order: vec![] }),
            false => ServerQuestion::NotOffered,
        };
        let requests = requests.into_iter().flatten().map(|(key, request)| (key.clone(), asked(request)));
        Some(Self { requests: requests.collect(), state })
    }

    /// The questions of a task.
    pub fn of_task(requests_of_it: InputRequests) -> Self {
        Self { requests: requests(Some(requests_of_it)), state: None }
    }

    /// The questions of a task that the library does not take.
    pub fn odd_of_task(task: &Value) -> Option<Self> {
        Self::odd(&json!({ "resultType": "input_required", "inputRequests": task["inputRequests"] }))
    }

    /// Leaves out questions that were answered before: a task goes on naming a request until it has taken the answer.
    pub fn without(mut self, answered: Option<&Elicitation>, declined: &HashSet<String>) -> Self {
        let is_in = |it: &Elicitation, key: &String| {
            it.declined.contains(key) || it.questions.iter().any(|one| one.key == *key)
        };
        let is_answered = |key: &String| declined.contains(key) || answered.is_some_and(|it| is_in(it, key));
        self.requests.retain(|(key, _)| !is_answered(key));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Sorts the questions: those for the visitor, and those that are declined at once. `may_repeat`: the call may be made again
    /// whatever its server's state.
    pub fn round(self, context: &CallContext, may_repeat: bool) -> ElicitationRound {
        if !may_repeat && self.state.is_none() {
            return ElicitationRound::End(NOT_REPEATED);
        }
        if self.requests.iter().any(|(_, asked)| matches!(asked, ServerQuestion::NotOffered)) {
            return ElicitationRound::End(
                "The tool asks for a reply of a model, or for something else that is not offered.",
            );
        }
        let keys: usize = self.requests.iter().map(|(key, _)| key.len()).sum();
        let state = self.state.as_ref().map_or(0, String::len);
        if keys > limits::ELICITED_FORM_MAX_BYTES || state > limits::ELICITED_STATE_MAX_BYTES {
            return ElicitationRound::End("The tool asks for more input than can be given.");
        }
        let (mut questions, mut declined) = (Vec::new(), Vec::new());
        for (key, asked) in self.requests {
            let question = match asked {
                ServerQuestion::Form(form) => question(key.clone(), &form, &context.tool),
                ServerQuestion::NotOffered => None,
            };
            match question {
                Some(question) => questions.push(question),
                None => declined.push(key),
            }
        }
        let before = context.elicited.as_ref().map_or(0, |elicited| elicited.asked);
        let asked = before.saturating_add(u32::try_from(questions.len()).unwrap_or(u32::MAX));
        if !context.may_ask || asked > limits::ELICITED_QUESTIONS_MAX {
            declined.extend(questions.drain(..).map(|question| question.key));
        }
        if questions.is_empty() {
            let declines = declined.into_iter().map(|key| (key, json!({ "action": "decline" })));
            return ElicitationRound::Again(declines.collect(), self.state);
        }
        let (call, request_state) = (context.call.clone(), self.state);
        ElicitationRound::Ask(Elicitation { call, questions, declined, request_state, during_call: false, asked })
    }
}

fn requests(requests: Option<InputRequests>) -> Vec<(String, ServerQuestion)> {
    let asked = |request| match request {
        InputRequest::Elicitation(request) => ServerQuestion::Form(FormRequest::of(&request.params)),
        _ => ServerQuestion::NotOffered,
    };
    requests.unwrap_or_default().into_iter().map(|(key, request)| (key, asked(request))).collect()
}

impl FormRequest {
    pub fn of(params: &ElicitRequestParams) -> Self {
        let order = match params {
            ElicitRequestParams::FormElicitationParams { requested_schema, .. } => {
                requested_schema.property_order.clone()
            }
            _ => None,
        };
        Self { params: serde_json::to_value(params).unwrap_or_default(), order: order.unwrap_or_default() }
    }

    pub fn odd(params: Value) -> Self {
        Self { params, order: vec![] }
    }

    /// Tells requests apart: equal ones have an equal message and schema.
    fn digest(&self) -> String {
        let told = json!([self.params["message"], self.params["requestedSchema"]]).to_string();
        Sha256::digest(told).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The question for a visitor, if a form can show it.
fn question(key: String, asked: &FormRequest, tool: &str) -> Option<ElicitedQuestion> {
    let FormRequest { params, order } = asked;
    let understood = match params.get("mode").and_then(Value::as_str) {
        None | Some("form") => elicited_form::message(params["message"].as_str().unwrap_or_default())
            .and_then(|message| Ok((message, elicited_form::fields(&params["requestedSchema"], order)?))),
        Some(_) => Err("it leads the visitor elsewhere"),
    };
    match understood {
        Ok((message, fields)) => {
            Some(ElicitedQuestion { key, message, form: Form::Elicitation { fields }, answer: None })
        }
        Err(why) => {
            tracing::info!(tool, why, "a question of an MCP server can't be shown and is declined");
            None
        }
    }
}

/// The answers to the questions of a call, by their keys.
pub fn responses(elicited: &Elicitation) -> InputResponses {
    let answered = elicited.questions.iter().map(|question| (question.key.clone(), response(question.answer.as_ref())));
    let declined = elicited.declined.iter().map(|key| (key.clone(), json!({ "action": "decline" })));
    answered.chain(declined).collect::<BTreeMap<_, _>>()
}

/// A person's answer as the protocol has it.
fn response(answer: Option<&ElicitedAnswer>) -> Value {
    match answer {
        Some(ElicitedAnswer { resolution: Resolution::Submitted | Resolution::Approved, values }) => {
            json!({ "action": "accept", "content": values.clone().unwrap_or_default() })
        }
        Some(ElicitedAnswer { resolution: Resolution::Declined, .. }) => json!({ "action": "decline" }),
        Some(ElicitedAnswer { resolution: Resolution::Expired, .. }) | None => json!({ "action": "cancel" }),
    }
}

/// The requests of a server on the connection of one call: answered from the log in their order, or put to the visitor.
pub struct Dialogue {
    tool: String,
    /// Answers of the log that were not used yet.
    answers: Mutex<Vec<ElicitedQuestion>>,
    asked: u32,
    may_ask: bool,
    declined: AtomicBool,
    ask: mpsc::UnboundedSender<ElicitedQuestion>,
}

impl Dialogue {
    /// The dialogue of a call, and where its first question without an answer comes out.
    pub fn of(context: &CallContext) -> (Self, mpsc::UnboundedReceiver<ElicitedQuestion>) {
        let (ask, asked) = mpsc::unbounded_channel();
        let during_call = context.elicited.as_ref().filter(|elicited| elicited.during_call);
        let dialogue = Self {
            tool: context.tool.clone(),
            answers: Mutex::new(during_call.map_or(vec![], |elicited| elicited.questions.clone())),
            asked: context.elicited.as_ref().map_or(0, |elicited| elicited.asked),
            may_ask: context.may_ask,
            declined: AtomicBool::new(false),
            ask,
        };
        (dialogue, asked)
    }

    /// The answer to a request; `None`: the visitor is asked, and the call is given up.
    pub fn answer(&self, form: &FormRequest) -> Option<Value> {
        let key = form.digest();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = answers.iter().position(|question| question.key == key) {
            return Some(response(answers.remove(at).answer.as_ref()));
        }
        let has_room = self.may_ask && self.asked < limits::ELICITED_QUESTIONS_MAX;
        match question(key, form, &self.tool).filter(|_| has_room) {
            Some(question) => {
                let _ = self.ask.send(question);
                None
            }
            None => {
                self.declined.store(true, Ordering::Relaxed);
                Some(json!({ "action": "decline" }))
            }
        }
    }

    /// Whether a request was declined that no person saw.
    pub fn has_declined(&self) -> bool {
        self.declined.load(Ordering::Relaxed)
    }
}

/// The questions of a call with one that came during it.
pub fn asked_during(context: &CallContext, question: ElicitedQuestion) -> Elicitation {
    let before = context.elicited.as_ref();
    let earlier = before.filter(|elicited| elicited.during_call).map_or(vec![], |elicited| elicited.questions.clone());
    Elicitation {
        call: context.call.clone(),
        questions: [earlier, vec![question]].concat(),
        declined: vec![],
        request_state: None,
        during_call: true,
        asked: before.map_or(0, |elicited| elicited.asked) + 1,
    }
}
