//! The outcome of a call, as the model reads it.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::domain::{
    elicitation::{Elicitation, WaitingCall},
    event::{Citation, OtpChallenge},
};

/// The outcome of a call.
#[derive(Debug)]
pub enum ToolCallOutcome {
    Result(ToolResult),
    /// The server asks the visitor first; it is called again with the answers.
    Asks(Elicitation),
    /// The server made a task of it, with this id; it is asked for from now on.
    Task(String),
    /// The task goes on; it is looked at again after this time.
    Working(Duration),
}

impl From<ToolResult> for ToolCallOutcome {
    fn from(result: ToolResult) -> Self {
        Self::Result(result)
    }
}

/// The result of a call, as the model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    pub is_error: bool,
    pub text: String,
    /// The documents that the result cites.
    pub grounding: Vec<Citation>,
    /// The visitor's validated answers to a form.
    pub values: Option<Map<String, Value>>,
    /// The challenge, when the tool asked for a one-time password.
    pub otp: Option<OtpChallenge>,
    /// The call has questions that the model is to ask in words.
    pub waiting: Option<Box<WaitingCall>>,
}

impl ToolResult {
    pub fn ok(text: impl ToString) -> Self {
        Self { is_error: false, text: text.to_string(), grounding: vec![], values: None, otp: None, waiting: None }
    }

    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::ok(text.into()) }
    }

    /// Returns the result of a call that may or may not have taken effect.
    pub fn outcome_unknown() -> Self {
        Self::error("The outcome of this call is unknown: it may or may not have taken effect. It was not repeated.")
    }
}
