//! The report of a conversation: what was asked, what the model and the tools did, who decided what, and whether the record holds.
//!
//! - [`build`]: from events to a [`Report`]; pure.   - [`html`]: a page of it without scripts.
//!
//! Invariant: whatever the texts of a conversation hold, in the page they are text.

pub mod build;
pub mod html;
mod steps;
mod turns;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{
    open::Opener,
    seen,
    view::{Chain, follow},
};
use crate::{
    agents::{self, AgentConfig},
    domain::event::{
        AgentVersion, Asker, CallRequested, File, Image, ModelReplied, Skill, ToolReturned, TurnCancelled,
        TurnCompleted, TurnFailed, TurnParked, TurnResumed, Usage,
    },
    log::{ReadError, nats::RawMessage},
    subjects::ConversationKey,
};

/// The report of a conversation whose messages, all of them, were read.
pub async fn make(
    opener: &Opener,
    agents: &agents::Store,
    key: &ConversationKey,
    messages: Vec<RawMessage>,
) -> Result<Report, ReadError> {
    let chain = follow(&messages);
    let events = seen::see(opener, messages).await?;
    let mut configurations = Vec::new();
    for version in build::versions(&events) {
        let config = agents.version(&key.org, &version).await?;
        configurations.push((version, config.map(|config| (*config).clone())));
    }
    Ok(build::build(build::Material { key, events: &events, chain, configurations, made_at: Utc::now() }))
}

/// All that the log tells of a conversation.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ConversationReport")]
pub struct Report {
    pub conversation: Uuid,
    pub region: String,
    pub organisation: String,
    pub title: String,
    pub owner: Option<String>,
    /// What was said in it was erased.
    pub is_erased: bool,
    pub agent_id: Option<String>,
    pub begun_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    pub made_at: DateTime<Utc>,
    pub totals: Totals,
    pub chain: Chain,
    pub sessions: Vec<Session>,
    /// The versions of agents' configurations that turns name.
    pub configurations: Vec<Configuration>,
    pub turns: Vec<Turn>,
    pub events: Vec<Event>,
}

#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub turns: usize,
    pub completed: usize,
    pub failed: usize,
    pub cancelled: usize,
    pub model_calls: usize,
    pub tool_calls: usize,
    /// Times that a person was asked.
    pub asked: usize,
    /// As the gateway reported it; absent = it reported nothing.
    pub usage: Option<Usage>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedSession")]
pub struct Session {
    pub session: Uuid,
    pub seq: u64,
    pub opened_at: DateTime<Utc>,
    pub user: String,
    pub user_id: Uuid,
    pub email: Option<String>,
    pub agent: String,
    pub agent_id: String,
    /// When its visitor proved who they are.
    pub identified_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedConfiguration")]
pub struct Configuration {
    #[serde(flatten)]
    pub version: AgentVersion,
    /// Absent: it can't be found any more.
    pub config: Option<AgentConfig>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedTurn")]
pub struct Turn {
    pub turn: Uuid,
    pub request_id: String,
    pub seq: u64,
    pub asked_at: DateTime<Utc>,
    pub session: Uuid,
    pub user: String,
    pub user_id: Uuid,
    /// Who asked, if the connection proved it.
    pub asker: Option<Asker>,
    pub message: String,
    pub images: Vec<Image>,
    pub files: Vec<File>,
    /// The model that the client asked for.
    pub model_asked: Option<String>,
    /// The models that answered.
    pub models: Vec<String>,
    pub agent_config: Option<AgentVersion>,
    pub skill: Option<Skill>,
    pub pool: String,
    /// The request came too late, or while another turn was running: it counts for nothing.
    pub is_void: bool,
    pub usage: Option<Usage>,
    pub steps: Vec<Step>,
    /// The last step of a turn that is over.
    pub outcome: Option<&'static str>,
}

/// Something that happened in a turn.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedStep")]
pub struct Step {
    pub seq: u64,
    pub at: DateTime<Utc>,
    /// False: the turn had moved on, so it changed nothing.
    pub had_effect: bool,
    /// How long it took: the model its answer, the tool its result, a person their decision, a turn its worker.
    pub took_ms: Option<i64>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "step", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum What {
    /// A worker took the turn. Its epoch is the step's sequence.
    Claimed {
        worker: Uuid,
        /// Another worker held the turn and did not give it back.
        is_takeover: bool,
    },
    Released {
        epoch: u64,
    },
    ModelReplied(ModelReplied),
    ToolCalled(ToolCall),
    ToolReturned {
        #[serde(flatten)]
        result: ToolReturned,
        /// Times that a worker which took the turn over called it again.
        retries: usize,
    },
    Asked(TurnParked),
    Decided {
        #[serde(flatten)]
        resolution: TurnResumed,
        /// The name of the user whose session decided.
        by_name: Option<String>,
    },
    Completed(Box<TurnCompleted>),
    Failed(TurnFailed),
    Cancelled {
        #[serde(flatten)]
        cancelled: TurnCancelled,
        by_name: Option<String>,
    },
}

/// A tool is called.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolCall {
    pub epoch: u64,
    /// What the tool is told as `Turnstream-Call-Id`, the same at every try.
    pub idempotency_key: String,
    pub name: String,
    /// As the model asked for it; absent = the log does not hold that.
    pub request: Option<CallRequested>,
}

/// An event in one line.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedEvent")]
pub struct Event {
    pub seq: u64,
    pub time: DateTime<Utc>,
    pub id: String,
    pub kind: String,
    pub source: String,
    pub words: String,
    pub prev: String,
    pub digest: String,
}
