//! The index of this process behind the trait: words, vectors, and the best passages ranked once more.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;

use super::{
    index::{KnowledgeIndex, PassageQuery},
    passage::Passage,
    reader::KnowledgeReader,
    retrieve::{RetrieveError, Retriever},
};
use crate::{limits, model::Gateway};

/// How the best passages are ranked once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerank {
    /// By the share of the query's words that they hold.
    Lexical,
    /// By the gateway's `/rerank`.
    Gateway,
}

/// What the local index asks models for.
#[derive(Clone, Default)]
pub struct RetrievalModels {
    pub gateway: Option<Gateway>,
    pub embedding: Option<String>,
    pub rerank: Option<Rerank>,
}

/// The index of this process.
pub struct LocalRetriever {
    index: Arc<KnowledgeIndex>,
    models: RetrievalModels,
}

impl LocalRetriever {
    pub fn new(index: Arc<KnowledgeIndex>, models: RetrievalModels) -> Self {
        Self { index, models }
    }

    async fn find(&self, query: &str, reader: &KnowledgeReader, limit: usize) -> Result<Vec<Passage>, RetrieveError> {
        let vector = self.embed(query).await;
        let by_gateway = self.models.rerank == Some(Rerank::Gateway);
        let wanted = if by_gateway { limits::RERANKED.max(limit) } else { limit };
        let lexical = self.models.rerank == Some(Rerank::Lexical);
        let (index, text, reader) = (self.index.clone(), query.to_string(), reader.clone());
        // Milliseconds of computing on a large index: not on a thread that serves tokens.
        let search = tokio::task::spawn_blocking(move || {
            let query = PassageQuery { text: &text, vector: vector.as_deref(), rerank: lexical };
            index.search(&query, &reader, wanted)
        });
        let found = search.await.map_err(|panic| RetrieveError::Index(panic.to_string()))?;
        let mut passages = found.map_err(|error| RetrieveError::Index(error.to_string()))?;
        if by_gateway {
            passages = self.rerank(query, passages).await;
        }
        passages.truncate(limit);
        Ok(passages)
    }

    /// The query's embedding. Without one the words decide: an answer does not fail for want of it.
    async fn embed(&self, query: &str) -> Option<Vec<f32>> {
        let (gateway, model) = (self.models.gateway.as_ref()?, self.models.embedding.as_ref()?);
        let texts = [query.to_string()];
        let embedded = timeout(Duration::from_millis(limits::RETRIEVE_MS), gateway.embed(model, &texts)).await;
        match embedded {
            Ok(Ok(mut vectors)) => vectors.pop(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a query was not embedded; only its words count");
                None
            }
            Err(_) => {
                tracing::warn!("a query was not embedded in time; only its words count");
                None
            }
        }
    }

    /// The passages as the gateway ranks them; without its answer, as they are.
    async fn rerank(&self, query: &str, passages: Vec<Passage>) -> Vec<Passage> {
        let Some(gateway) = self.models.gateway.as_ref().filter(|_| passages.len() > 1) else { return passages };
        let texts: Vec<String> = passages.iter().map(|p| format!("{}\n{}", p.title, p.text)).collect();
        let ranked = timeout(Duration::from_millis(limits::RETRIEVE_MS), gateway.rerank(query, &texts)).await;
        let ranked = match ranked {
            Ok(Ok(ranked)) => ranked,
            Ok(Err(error)) => {
                tracing::warn!(%error, "passages were not ranked once more");
                return passages;
            }
            Err(_) => {
                tracing::warn!("passages were not ranked once more in time");
                return passages;
            }
        };
        let scored = ranked
            .into_iter()
            .filter_map(|(n, score)| Some(Passage { score: score.clamp(0.0, 1.0), ..passages.get(n)?.clone() }));
        scored.collect()
    }
}

impl Retriever for LocalRetriever {
    fn retrieve<'a>(
        &'a self,
        query: &'a str,
        reader: &'a KnowledgeReader,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Passage>, RetrieveError>> {
        self.find(query, reader, limit).boxed()
    }

    fn is_empty(&self, org: &str) -> bool {
        self.index.is_empty(org)
    }
}
