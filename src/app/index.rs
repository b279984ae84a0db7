//! The local index of knowledge of a worker, which follows its stream.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config::Config, knowledge::Retriever, model::Gateway, nats::connection::NatsConnection};

/// Starts the index. It has caught up with the stream when this returns.
#[cfg(feature = "search")]
pub(super) async fn follow(
    config: &Config,
    nats: &NatsConnection,
    gateway: &Option<Gateway>,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<Arc<dyn Retriever>> {
    use anyhow::Context;
    use tokio::{sync::watch, time::Instant};

    use crate::{
        config::RerankBy,
        knowledge::{
            self, KnowledgeIndex,
            local::{LocalRetriever, Rerank, RetrievalModels},
        },
    };

    let index = Arc::new(KnowledgeIndex::new()?);
    let (caught_up, mut has_caught_up) = watch::channel(false);
    let follow = knowledge::indexer::run(nats.client.clone(), index.clone(), caught_up);
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(follow));
    let begun = Instant::now();
    has_caught_up.wait_for(|caught_up| *caught_up).await.context("the index does not follow its stream")?;
    let (documents, passages) = index.size();
    tracing::info!(documents, passages, ms = begun.elapsed().as_millis() as u64, "the index has caught up");
    let rerank = config.rerank.map(|by| match by {
        RerankBy::Gateway => Rerank::Gateway,
        RerankBy::Lexical => Rerank::Lexical,
    });
    let models = RetrievalModels { gateway: gateway.clone(), embedding: config.embedding_model.clone(), rerank };
    Ok(Arc::new(LocalRetriever::new(index, models)))
}

/// A build without the index has nothing to start.
#[cfg(not(feature = "search"))]
pub(super) async fn follow(
    _config: &Config,
    _bus: &NatsConnection,
    _gateway: &Option<Gateway>,
    _shutdown: &CancellationToken,
    _tasks: &TaskTracker,
) -> anyhow::Result<Arc<dyn Retriever>> {
    anyhow::bail!(
        "this build has no local index of knowledge (it is without the feature `search`): \
         set SMOOTH_AGENT_RETRIEVAL=nats, or build with it"
    )
}
