//! Runs of ingest as events on the stream KNOWLEDGE_RUNS: the outcome of each one, kept with its history.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::store::KnowledgeStoreError;
use crate::{
    nats::{
        core::{Client, HeaderMap},
        jetstream::{JetStream, PublishOutcome},
    },
    subjects,
};

/// The stream of runs.
pub const STREAM: &str = "KNOWLEDGE_RUNS";

/// An event of a run: it was requested, began or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum RunEvent {
    /// An administrator wants a connector's documents ingested; an ingester will take it up.
    #[serde(rename = "run.requested")]
    Requested { run: Uuid, at: DateTime<Utc> },
    #[serde(rename = "run.started")]
    Started { run: Uuid, at: DateTime<Utc> },
    /// The run has ended. Without this event it is still going on, or was interrupted: running it again ends in the same state.
    #[serde(rename = "run.finished")]
    Finished {
        run: Uuid,
        at: DateTime<Utc>,
        counts: RunCounts,
        /// The source's version: the tree of a repository. Files and pages have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// The errors of single documents, the first ones, or of the run.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        errors: Vec<String>,
    },
}

impl RunEvent {
    /// Returns the run that the event belongs to.
    pub fn run(&self) -> Uuid {
        match self {
            Self::Requested { run, .. } | Self::Started { run, .. } | Self::Finished { run, .. } => *run,
        }
    }
}

/// The outcome for a source's documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunCounts {
    pub added: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub deleted: u64,
    pub failed: u64,
}

/// The events of runs.
#[derive(Clone)]
pub struct RunLog {
    jetstream: JetStream,
}

impl RunLog {
    pub fn new(client: Client) -> Self {
        Self { jetstream: JetStream::new(client) }
    }

    /// Stores an event of a run.
    pub async fn record(&self, org: &str, source: &str, event: &RunEvent) -> Result<(), KnowledgeStoreError> {
        let payload = serde_json::to_vec(event).expect("an event is a map with string keys");
        let subject = subjects::ingest_run(org, source);
        match self.jetstream.publish(&subject, HeaderMap::new(), payload.into()).await {
            PublishOutcome::Stored { .. } | PublishOutcome::Duplicate => Ok(()),
            PublishOutcome::Conflict => Err(KnowledgeStoreError::Unavailable("another last sequence".into())),
            PublishOutcome::Again(cause) => Err(KnowledgeStoreError::Unavailable(cause)),
        }
    }
}
