//! Watches files and folders by polling their names, sizes and modification times.

use std::{collections::BTreeMap, time::Duration, time::SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    args::{IngestArgs, IngestPlan},
    report::IngestReport,
    run::Ingester,
    source::ItemLocation,
};
use crate::{knowledge::KnowledgeStoreError, limits};

/// The observed state of the files.
type Look = BTreeMap<String, (u64, Option<SystemTime>)>;

/// Ingests after every change, until the future is dropped.
///
/// Contract: (1) look, (2) when the state equals that of the round before and differs from that of the last run, the
/// changes have come to rest: run, (3) wait for the next round.
pub async fn watch(
    ingest: &Ingester,
    args: &IngestArgs,
    plan: &IngestPlan,
    tell: impl Fn(&IngestReport),
) -> Result<(), KnowledgeStoreError> {
    let mut rounds = interval(Duration::from_millis(limits::WATCH_EVERY_MS));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut at_last_run) = (None, None);
    loop {
        rounds.tick().await;
        let now = look(ingest, plan).await;
        let rests = before.as_ref() == Some(&now);
        if at_last_run.is_none() || (rests && at_last_run.as_ref() != Some(&now)) {
            match ingest.run(args, plan).await {
                Ok(report) => tell(&report),
                // The server is unavailable: the next round tries again.
                Err(error @ (KnowledgeStoreError::Unavailable(_) | KnowledgeStoreError::Read(_))) => {
                    tracing::warn!(%error, "the change was not ingested; the next round tries again");
                    continue;
                }
                Err(error) => return Err(error),
            }
            at_last_run = Some(now.clone());
        }
        before = Some(now);
    }
}

async fn look(ingest: &Ingester, plan: &IngestPlan) -> Look {
    let mut found = Look::new();
    for origin in &plan.origins {
        for item in origin.list(&ingest.web).await.items {
            if let ItemLocation::File { path, .. } = &item.place {
                let metadata = tokio::fs::metadata(path).await.ok();
                let times = metadata.map_or((0, None), |known| (known.len(), known.modified().ok()));
                found.insert(path.display().to_string(), times);
            }
        }
    }
    found
}
