//! Retrieval of passages: one trait, implemented by the local index and by an organisation's own search.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    index::{Index, Query},
    passage::Passage,
    reader::Reader,
};
use crate::{
    calls::{Call, Caller},
    limits,
    model::Gateway,
    subjects,
};

/// A source of passages.
pub trait Retrieve: Send + Sync {
    /// Returns the best matching passages that the reader may read, best first.
    fn retrieve<'a>(
        &'a self,
        query: &'a str,
        reader: &'a Reader,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Passage>, RetrieveError>>;

    /// Returns whether an organisation certainly has no passages.
    fn is_empty(&self, org: &str) -> bool;
}

/// The reason why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum RetrieveError {
    #[error("the index failed: {0}")]
    Index(String),
    #[error("the search service did not answer: {0}")]
    Service(String),
    #[error("the search service's answer is malformed: {0}")]
    Answer(serde_json::Error),
}

/// The way in which the best passages are ranked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerank {
    /// By the share of the query's words that they hold.
    Lexical,
    /// By the gateway's `/rerank`.
    Gateway,
}

/// The models that the local index uses.
#[derive(Clone, Default)]
pub struct Models {
    pub gateway: Option<Gateway>,
    pub embedding: Option<String>,
    pub rerank: Option<Rerank>,
}

/// Retrieval from the index of this process.
pub struct Local {
    index: Arc<Index>,
    models: Models,
}

impl Local {
    pub fn new(index: Arc<Index>, models: Models) -> Self {
        Self { index, models }
    }

    async fn find(&self, query: &str, reader: &Reader, limit: usize) -> Result<Vec<Passage>, RetrieveError> {
        let vector = self.embed(query).await;
        let by_gateway = self.models.rerank == Some(Rerank::Gateway);
        let wanted = if by_gateway { limits::RERANKED.max(limit) } else { limit };
        let lexical = self.models.rerank == Some(Rerank::Lexical);
        let (index, text, reader) = (self.index.clone(), query.to_string(), reader.clone());
        // Milliseconds of computing on a large index: not on a thread that serves tokens.
        let search = tokio::task::spawn_blocking(move || {
            let query = Query { text: &text, vector: vector.as_deref(), rerank: lexical };
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

    /// Returns the query's embedding. Without one the words decide: a failed embedding does not fail the answer.
    async fn embed(&self, query: &str) -> Option<Vec<f32>> {
        let (gateway, model) = (self.models.gateway.as_ref()?, self.models.embedding.as_ref()?);
        let texts = [query.to_string()];
        let embedded = timeout(Duration::from_millis(limits::RETRIEVE_MS), gateway.embed(model, &texts)).await;
        match embedded {
            Ok(Ok(mut vectors)) => vectors.pop(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a query was not embedded; full-text results only");
                None
            }
            Err(_) => {
                tracing::warn!("a query was not embedded in time; full-text results only");
                None
            }
        }
    }

    /// Returns the passages as the gateway ranks them; in their given order if the gateway does not answer.
    async fn rerank(&self, query: &str, passages: Vec<Passage>) -> Vec<Passage> {
        let Some(gateway) = self.models.gateway.as_ref().filter(|_| passages.len() > 1) else { return passages };
        let texts: Vec<String> = passages.iter().map(|p| format!("{}\n{}", p.title, p.text)).collect();
        let ranked = timeout(Duration::from_millis(limits::RETRIEVE_MS), gateway.rerank(query, &texts)).await;
        let ranked = match ranked {
            Ok(Ok(ranked)) => ranked,
            Ok(Err(error)) => {
                tracing::warn!(%error, "passages were not reranked; the fused order stays");
                return passages;
            }
            Err(_) => {
                tracing::warn!("passages were not reranked in time; the fused order stays");
                return passages;
            }
        };
        let scored = ranked
            .into_iter()
            .filter_map(|(n, score)| Some(Passage { score: score.clamp(0.0, 1.0), ..passages.get(n)?.clone() }));
        scored.collect()
    }
}

impl Retrieve for Local {
    fn retrieve<'a>(
        &'a self,
        query: &'a str,
        reader: &'a Reader,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Passage>, RetrieveError>> {
        self.find(query, reader, limit).boxed()
    }

    fn is_empty(&self, org: &str) -> bool {
        self.index.is_empty(org)
    }
}

/// An organisation's own search engine: a NATS micro service on [`subjects::retrieve`].
pub struct Remote {
    caller: Caller,
}

/// The request to a search service.
#[derive(Serialize)]
struct Request<'a> {
    query: &'a str,
    limit: usize,
    reader: &'a Reader,
}

/// The response of a search service.
#[derive(Deserialize)]
struct Answer {
    passages: Vec<Passage>,
}

impl Remote {
    pub fn new(caller: Caller) -> Self {
        Self { caller }
    }

    async fn ask(&self, query: &str, reader: &Reader, limit: usize) -> Result<Vec<Passage>, RetrieveError> {
        let payload = serde_json::to_vec(&Request { query, limit, reader }).map_err(RetrieveError::Answer)?;
        let call = Call {
            subject: subjects::retrieve(&reader.org),
            headers: vec![
                ("Turnstream-Call-Id", uuid::Uuid::new_v4().to_string()),
                ("Turnstream-Org", subjects::encode_token(&reader.org)),
            ],
            payload: payload.into(),
            timeout: Duration::from_millis(limits::RETRIEVE_MS),
        };
        let service = |cause: String| RetrieveError::Service(cause);
        let reply = self.caller.call(call).await.map_err(|error| service(error.to_string()))?;
        if let Some(error) = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
            return Err(service(error.to_string()));
        }
        let mut passages = serde_json::from_slice::<Answer>(&reply.payload).map_err(RetrieveError::Answer)?.passages;
        passages.truncate(limit);
        Ok(passages)
    }
}

impl Retrieve for Remote {
    fn retrieve<'a>(
        &'a self,
        query: &'a str,
        reader: &'a Reader,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Passage>, RetrieveError>> {
        self.ask(query, reader, limit).boxed()
    }

    fn is_empty(&self, _org: &str) -> bool {
        false
    }
}
