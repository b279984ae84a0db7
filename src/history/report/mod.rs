//! The report of a conversation: requests, steps of the model and the tools, decisions of people, and the state of the chain.
//!
//! - [`build`]: from events to a [`ConversationReport`]; pure.   - [`html`]: a page of it without scripts.
//!
//! Invariant: the page escapes all texts of a conversation.

pub mod build;
pub mod html;
mod markup;
mod steps;
mod turns;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{event_reader::EventReader, message_view, view::ChainVerification};
use crate::{
    agents::{self, AgentConfig},
    domain::event::{
        AgentVersion, CallRequested, File, Image, ModelReplied, Requester, Skill, ToolReturned, TurnCancelled,
        TurnCompleted, TurnFailed, TurnParked, TurnResumed, Usage,
    },
    nats::{ReadError, jetstream::RawMessage},
    subjects::ConversationKey,
};

/// Makes the report of a conversation from all of its messages.
pub async fn make(
    event_reader: &EventReader,
    agents: &agents::AgentStore,
    key: &ConversationKey,
    messages: Vec<RawMessage>,
    chain: ChainVerification,
) -> Result<ConversationReport, ReadError> {
    let events = message_view::view_messages(event_reader, messages).await?;
    let mut configurations = Vec::new();
    for version in build::versions(&events) {
        let config = agents.version(&key.org, &version).await?;
        configurations.push((version, config.map(|config| (*config).clone())));
    }
    Ok(build::build(build::ReportMaterial { key, events: &events, chain, configurations, made_at: Utc::now() }))
}

/// The record of a conversation.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ConversationReport")]
pub struct ConversationReport {
    pub conversation: Uuid,
    pub region: String,
    pub organisation: String,
    pub title: String,
    pub owner: Option<String>,
    /// The content was erased.
    pub is_erased: bool,
    pub agent_id: Option<String>,
    pub begun_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    pub made_at: DateTime<Utc>,
    pub totals: ReportTotals,
    pub chain: ChainVerification,
    pub sessions: Vec<ReportSession>,
    /// The versions of agents' configurations that turns name.
    pub configurations: Vec<ReportConfiguration>,
    pub turns: Vec<ReportTurn>,
    pub events: Vec<ReportEvent>,
}

#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Totals")]
pub struct ReportTotals {
    pub turns: usize,
    pub completed: usize,
    pub failed: usize,
    pub cancelled: usize,
    pub model_calls: usize,
    pub tool_calls: usize,
    /// Times that a person was asked.
    pub asked: usize,
    /// Absent = the gateway reported none.
    pub usage: Option<Usage>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedSession")]
pub struct ReportSession {
    pub session: Uuid,
    pub seq: u64,
    pub opened_at: DateTime<Utc>,
    pub user: String,
    pub user_id: Uuid,
    pub email: Option<String>,
    pub agent: String,
    pub agent_id: String,
    /// The time at which the visitor's identity was proved.
    pub identified_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedConfiguration")]
pub struct ReportConfiguration {
    #[serde(flatten)]
    pub version: AgentVersion,
    /// Absent = the version no longer exists.
    pub config: Option<AgentConfig>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedTurn")]
pub struct ReportTurn {
    pub turn: Uuid,
    pub request_id: String,
    pub seq: u64,
    pub asked_at: DateTime<Utc>,
    pub session: Uuid,
    pub user: String,
    pub user_id: Uuid,
    /// The proved identity behind the request, if the connection had one.
    pub asker: Option<Requester>,
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
    /// The request came too late, or while another turn was running, and had no effect.
    pub is_void: bool,
    pub usage: Option<Usage>,
    pub steps: Vec<ReportStep>,
    /// The last step of a turn that is over.
    pub outcome: Option<&'static str>,
}

/// An event of a turn.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedStep")]
pub struct ReportStep {
    pub seq: u64,
    pub at: DateTime<Utc>,
    /// False = the turn had moved on, so the event changed nothing.
    pub had_effect: bool,
    /// Time that the model took to answer, the tool to return, a person to decide, or a worker to claim the turn.
    pub took_ms: Option<i64>,
    #[serde(flatten)]
    pub what: ReportStepKind,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "step", rename_all = "snake_case", rename_all_fields = "camelCase")]
#[schemars(rename = "What")]
pub enum ReportStepKind {
    /// A worker took the turn. Its epoch is the step's sequence.
    Claimed {
        worker: Uuid,
        /// Another worker held the turn and had not released it.
        is_takeover: bool,
    },
    Released {
        epoch: u64,
    },
    ModelReplied(ModelReplied),
    ToolCalled(ReportToolCall),
    ToolReturned {
        #[serde(flatten)]
        result: ToolReturned,
        /// Times that a worker which took the turn over repeated the call.
        retries: usize,
    },
    Asked(TurnParked),
    Decided {
        #[serde(flatten)]
        resolution: TurnResumed,
        /// The name of the user who decided.
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

/// A call of a tool.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ToolCall")]
pub struct ReportToolCall {
    pub epoch: u64,
    /// The `Turnstream-Call-Id` that the tool receives, the same at every try.
    pub idempotency_key: String,
    pub name: String,
    /// The call as the model requested it; absent = the request is not in the log.
    pub request: Option<CallRequested>,
}

/// An event in one line.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReportedEvent")]
pub struct ReportEvent {
    pub seq: u64,
    pub time: DateTime<Utc>,
    pub id: String,
    pub kind: String,
    pub source: String,
    pub words: String,
    pub prev: String,
    pub digest: String,
}
