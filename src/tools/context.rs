//! The context of a call: the headers for a provider, and the facts for a built-in tool.

use std::{future::Future, pin::Pin, sync::Arc};

use serde_json::Value;
use uuid::Uuid;

use super::files::ReadFiles;
use crate::{
    domain::{elicitation::Elicitation, event::File, interaction::Form},
    knowledge::KnowledgeReader,
};

/// A message of the conversation as the model reads it.
pub struct PastMessage {
    /// The position in the conversation: older messages have smaller numbers.
    pub seq: u64,
    pub by_user: bool,
    pub at: String,
    pub text: String,
}

/// A page of messages before a position, newest first, and whether older ones exist.
pub type PastMessages<'a> = Pin<Box<dyn Future<Output = Result<(Vec<PastMessage>, bool), String>> + Send + 'a>>;

/// The conversation that a call belongs to.
pub trait MessageHistory: Send + Sync {
    fn page(&self, before: Option<u64>, limit: usize) -> PastMessages<'_>;
}

/// Returns a text argument, or an error when the argument is missing or blank.
pub fn required<'a>(arguments: &'a Value, name: &str) -> Result<&'a str, String> {
    let text = arguments[name].as_str().map(str::trim).filter(|text| !text.is_empty());
    text.ok_or_else(|| format!("`{name}` is required."))
}

/// The facts of a call that a provider gets as headers.
pub struct CallContext {
    /// The call's id in its turn, and the tool's name.
    pub call: String,
    pub tool: String,
    /// Earlier questions of its server with the answers, and the task that it made of the call.
    pub elicited: Option<Elicitation>,
    pub task: Option<String>,
    /// Whether there is a way to ask the visitor.
    pub may_ask: bool,
    /// The idempotency key: stable over retries of the same call.
    pub call_id: String,
    pub org: String,
    pub conversation: Uuid,
    pub user: Uuid,
    /// The identity and the groups that knowledge is searched for.
    pub reader: KnowledgeReader,
    /// The files of the message, which only tools get, and the reader of their contents.
    pub files: Vec<File>,
    pub reader_of_files: Arc<dyn ReadFiles>,
    pub history: Arc<dyn MessageHistory>,
    /// The form that the model asked for in words.
    pub asked: Option<Form>,
    /// The tool's settings from the agent's configuration, as JSON.
    pub settings: Option<String>,
    /// The epoch of the claim under which the worker calls.
    pub epoch: u64,
}
