//! The organisation's documents, and the runs of ingest.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{
    AdminApi,
    forms::{DocumentSet, DocumentSets, IngestRun, RunList, RunStatus},
    request::AdminRequest,
    response::{HttpRefusal, HttpResponse},
};
use crate::{
    knowledge::runs::{self, RunEvent},
    limits,
    nats::jetstream::RawMessage,
    subjects,
};

/// `GET document-sets`.
pub async fn document_sets(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let mut sets: BTreeMap<String, u64> = BTreeMap::new();
    for document in admin.documents.heads(&asked.principal.org).await?.into_values() {
        *sets.entry(document.set).or_default() += 1;
    }
    let document_sets = sets.into_iter().map(|(name, document_count)| DocumentSet { name, document_count }).collect();
    Ok(HttpResponse::ok(&DocumentSets { document_sets }))
}

/// `GET indexing/runs`.
pub async fn runs(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let subject = subjects::ingest_runs(&asked.principal.org);
    let events = admin.log.newest_of(runs::STREAM, &subject, limits::RUN_EVENTS_SHOWN).await?;
    Ok(HttpResponse::ok(&RunList { runs: fold(events) }))
}

/// Folds events to the runs that they are about, the newest first.
fn fold(events: impl IntoIterator<Item = RawMessage>) -> Vec<IngestRun> {
    let (mut runs, mut order): (HashMap<Uuid, IngestRun>, Vec<Uuid>) = Default::default();
    for message in events {
        let Some(source) = subjects::parse_ingest_run(&message.subject) else { continue };
        let Ok(event) = serde_json::from_slice::<RunEvent>(&message.payload) else {
            tracing::warn!(subject = message.subject, "an ingest run's event is malformed and is skipped");
            continue;
        };
        let id = event.run();
        let run = runs.entry(id).or_insert_with(|| {
            order.push(id);
            IngestRun::queued(id, source)
        });
        run.take(event);
    }
    order.into_iter().rev().filter_map(|id| runs.remove(&id)).take(limits::RUNS_SHOWN).collect()
}

impl IngestRun {
    /// Makes a run that was requested and has no other event yet.
    pub fn queued(id: Uuid, source: String) -> Self {
        let (requested_at, started_at, finished_at) = (None, None, None);
        let status = RunStatus::Queued;
        Self { id, source, status, requested_at, started_at, finished_at, counts: None, errors: vec![] }
    }

    /// Applies the next event of the run.
    pub fn take(&mut self, event: RunEvent) {
        match event {
            RunEvent::Requested { at, .. } => self.requested_at = Some(at),
            RunEvent::Started { at, .. } => {
                self.started_at = Some(at);
                self.status = RunStatus::Running;
            }
            RunEvent::Finished { at, counts, errors, .. } => {
                self.finished_at = Some(at);
                let is_whole = counts.failed == 0 && errors.is_empty();
                self.status = if is_whole { RunStatus::Succeeded } else { RunStatus::Failed };
                (self.counts, self.errors) = (Some(counts), errors);
            }
        }
    }
}
