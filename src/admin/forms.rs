//! The JSON of the API's answers and requests.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use uuid::Uuid;

use crate::{
    auth::{Principal, Role},
    history::{
        swim_lanes::LaneSpan,
        view::{ChainVerification, EventView, StateHistory},
    },
    knowledge::{
        connector::{Connector, ConnectorKind},
        runs::RunCounts,
    },
    wire::frames::HistoryMessage,
};

/// `GET health`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub struct HealthReport {
    pub status: &'static str,
}

/// `GET me`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Me")]
pub struct CallerView {
    pub user_id: String,
    pub org_id: String,
    pub role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl From<&Principal> for CallerView {
    fn from(principal: &Principal) -> Self {
        let Principal { user, org, role, groups, email, name, expires_at: _ } = principal.clone();
        Self { user_id: user, org_id: org, role, display_name: name, email, groups }
    }
}

/// `GET conversations`, by the time of the last message, newest first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConversationList {
    pub conversations: Vec<ConversationSummary>,
    pub next_cursor: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ListedConversation")]
pub struct ConversationSummary {
    pub id: Uuid,
    pub name: String,
    pub platform: &'static str,
    /// E-mail address of the conversation's owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    pub message_count: u64,
    pub created_at: String,
    pub updated_at: String,
}

/// `GET conversations/{id}/messages`, oldest first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageList {
    pub conversation_id: Uuid,
    #[schemars(with = "Vec<HistoryMessage>")]
    pub messages: Vec<Box<RawValue>>,
    pub next_cursor: Option<u64>,
}

/// `GET audit/conversations/{id}/events`: consecutive events, oldest first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    pub conversation_id: Uuid,
    pub events: Vec<EventView>,
    /// The activities with a duration in these events.
    pub spans: Vec<LaneSpan>,
    /// The cursor of the page of the events before these.
    pub next_cursor: Option<u64>,
}

/// `GET audit/conversations/{id}/states`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatePage {
    pub conversation_id: Uuid,
    #[serde(flatten)]
    pub states: StateHistory,
}

/// `GET audit/conversations/{id}/verification`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    pub conversation_id: Uuid,
    #[serde(flatten)]
    pub chain: ChainVerification,
}

/// `GET indexing/runs`, newest first.
#[derive(Serialize, JsonSchema)]
pub struct RunList {
    pub runs: Vec<IngestRun>,
}

/// `POST connectors/{id}/index`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OneRun")]
pub struct RunResponse {
    pub run: IngestRun,
}

/// A run of ingest.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Run")]
pub struct IngestRun {
    pub id: Uuid,
    pub source: String,
    pub status: RunStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<RunCounts>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// The progress of a run. An interrupted one stays `running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Queued,
    Running,
    Succeeded,
    /// Some documents of the run were not ingested.
    Failed,
}

/// `GET document-sets`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentSets {
    pub document_sets: Vec<DocumentSet>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentSet {
    pub name: String,
    pub document_count: u64,
}

/// `GET connectors`, by name.
#[derive(Serialize, JsonSchema)]
pub struct ConnectorList {
    pub connectors: Vec<ConnectorView>,
}

/// `POST connectors`, `PUT connectors/{id}`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OneConnector")]
pub struct ConnectorResponse {
    pub connector: ConnectorView,
}

/// A connector; of its secret only the existence is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ShownConnector")]
pub struct ConnectorView {
    pub id: Uuid,
    pub name: String,
    #[serde(flatten)]
    pub kind: ConnectorKind,
    pub document_set: String,
    pub has_secret: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl From<Connector> for ConnectorView {
    fn from(connector: Connector) -> Self {
        let Connector { id, name, kind, set, secret_name, created_at, updated_at } = connector;
        Self { id, name, kind, document_set: set, has_secret: secret_name.is_some(), created_at, updated_at }
    }
}

/// A connector as an administrator writes it. The fields of its kind stand in `config`, or beside `kind`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewConnector {
    pub name: Option<String>,
    /// `github`, `web` or `file`.
    pub kind: String,
    pub config: Option<Map<String, Value>>,
    pub document_set: Option<String>,
    /// Name of the environment variable, at the ingesters, that holds the secret.
    pub secret_name: Option<String>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// `GET settings`, `PUT settings`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OneSettings")]
pub struct SettingsResponse {
    pub settings: OrgSettings,
}

/// The settings of an organisation.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Settings")]
pub struct OrgSettings {
    pub org_id: String,
    #[serde(flatten)]
    pub set: OrgSettingsUpdate,
    /// `null`: nothing was set yet.
    pub updated_at: Option<DateTime<Utc>>,
}

/// The settings that an administrator sets. Absent fields are unset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "StoredSettings")]
pub struct OrgSettingsUpdate {
    pub model: Option<String>,
    pub system_prompt: Option<String>,
    pub persona: Option<String>,
    pub default_tools: Vec<String>,
}

/// `POST publish`: an event of a host for connected clients, sent to them unchanged.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Publish")]
pub struct PublishRequest {
    pub target: PublishTarget,
    pub event: Map<String, Value>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Target")]
pub struct PublishTarget {
    /// `connection`, `session`, `user`, `org` or `agent`.
    #[serde(rename = "type")]
    pub kind: String,
    #[schemars(length(min = 1))]
    pub id: String,
}

/// The number of connections that an event was given to.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Delivered")]
pub struct PublishReceipt {
    pub delivered: u64,
}
