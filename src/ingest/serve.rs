//! `turnstream ingest --serve`: ingests the connectors that administrators request over the API.
//!
//! Contract: an item is acked when its run has ended and the outcome is on the stream of runs. During a run its item is
//! kept by progress acks; when the process dies, another one begins the run again, which ends in the same state. One
//! run at a time.
//!
//! An administrator's request stays within their organisation: files below the folder of the organisation, and secrets
//! that were put there for it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::Utc;
use tokio::time::{interval, sleep};

use super::{IngestArgs, Ingester};
use crate::{
    knowledge::{
        KnowledgeStoreError,
        connector::{Connector, ConnectorKind, IngestItem, is_secret_name},
        runs::{RunCounts, RunEvent},
    },
    limits,
    nats::{
        connection::NatsConnection,
        work_queue::{WorkItem, WorkQueue},
    },
    secrets::Secrets,
    subjects,
};

/// The stream of items, and its consumer; see `streams/`.
const STREAM: &str = "INGEST";
const CONSUMER: &str = "serve";

/// The folders in which an ingester finds files and secrets of connectors, with a folder for each organisation.
#[derive(Clone, Debug, Default)]
pub struct SourceFolders {
    pub files: Option<PathBuf>,
    pub secrets: Option<PathBuf>,
}

/// Serves items until the future is dropped.
pub async fn serve(nats: NatsConnection, mut ingest: Ingester, places: SourceFolders) {
    loop {
        let queue = WorkQueue::find(&nats.client, STREAM, CONSUMER).await;
        while let Ok(mut items) = queue.pull(1, nats.connections.subscribe()).await {
            while let Some(Ok(message)) = items.next().await {
                serve_item(&mut ingest, &places, message).await;
            }
        }
        sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
    }
}

async fn serve_item(ingest: &mut Ingester, places: &SourceFolders, message: WorkItem) {
    let item: IngestItem = match serde_json::from_slice(message.payload()) {
        Ok(item) => item,
        Err(error) => {
            tracing::error!(%error, subject = message.subject(), "a work item is malformed");
            return message.terminate().await;
        }
    };
    let source = item.connector.source();
    tracing::info!(run = %item.run, org = item.org, source, "a run begins");
    let mut keep = interval(Duration::from_millis(limits::INGEST_PROGRESS_MS));
    let done = {
        let mut run = std::pin::pin!(run(ingest, places, &item));
        loop {
            tokio::select! {
                done = &mut run => break done,
                _ = keep.tick() => message.progress().await,
            }
        }
    };
    match done {
        Ok(()) => message.ack().await,
        Err(error) => tracing::warn!(%error, run = %item.run, "a run was interrupted; its work item is redelivered"),
    }
}

/// Runs an item until its end is on the stream of runs. An error has the item redelivered.
async fn run(ingest: &mut Ingester, places: &SourceFolders, item: &IngestItem) -> Result<(), KnowledgeStoreError> {
    let prepared = arguments(item, places).and_then(|args| Ok((args.plan()?, args)));
    let secret = secret(item, places).await;
    let why = match (prepared, secret) {
        (Ok((plan, args)), Ok(secret)) => {
            ingest.web.github_token = secret;
            return ingest.run_as(item.run, &args, &plan).await.map(drop);
        }
        (Err(why), _) | (_, Err(why)) => why,
    };
    let counts = RunCounts { failed: 1, ..RunCounts::default() };
    let finished = RunEvent::Finished { run: item.run, at: Utc::now(), counts, cursor: None, errors: vec![why] };
    ingest.runs.record(&item.org, &item.connector.source(), &finished).await
}

/// Returns the equivalent command line.
fn arguments(item: &IngestItem, places: &SourceFolders) -> Result<IngestArgs, String> {
    let Connector { kind, set, .. } = &item.connector;
    kind.check()?;
    let (mut from, mut sitemap) = (vec![], vec![]);
    match kind {
        ConnectorKind::Github { owner, repo } => from.push(format!("github:{owner}/{repo}")),
        ConnectorKind::Web { url } if is_sitemap(url) => sitemap.push(url.clone()),
        ConnectorKind::Web { url } => from.push(url.clone()),
        ConnectorKind::File { path } => {
            let (root, path) = inside(places, &item.org, path)?;
            let args =
                IngestArgs::of_connector(vec![path], vec![], item.org.clone(), item.connector.source(), set.clone());
            return Ok(args.within(root));
        }
    }
    Ok(IngestArgs::of_connector(from, sitemap, item.org.clone(), item.connector.source(), set.clone()))
}

fn is_sitemap(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.path().ends_with(".xml"))
}

/// Returns the organisation's folder, and the path below it. Links may not lead out of the folder.
fn inside(places: &SourceFolders, org: &str, path: &str) -> Result<(PathBuf, String), String> {
    const CLOSED: &str = "this ingester was given no folder of files";
    let gone = |_| format!("{path}: there is no such file or folder");
    let root = places.files.as_ref().ok_or(CLOSED)?.join(subjects::encode_token(org));
    let root = root.canonicalize().map_err(gone)?;
    let found = root.join(Path::new(path)).canonicalize().map_err(gone)?;
    match found.starts_with(&root) {
        true => Ok((root, found.to_string_lossy().into_owned())),
        false => Err(format!("{path}: there is no such file or folder")),
    }
}

/// Returns the secret that a connector names.
///
/// The name is validated again: an item may come from elsewhere than the API.
async fn secret(item: &IngestItem, places: &SourceFolders) -> Result<Option<String>, String> {
    let Some(name) = item.connector.secret_name.as_deref() else { return Ok(None) };
    if !is_secret_name(name) {
        return Err("the connector's `secretName` is not the name of a secret".into());
    }
    if places.secrets.is_none() {
        return Err("this ingester was given no secrets".into());
    }
    let secret = Secrets::new(places.secrets.clone()).find(&item.org, name).await;
    secret.map(Some).ok_or_else(|| format!("this ingester has no secret `{name}` for the organisation"))
}
