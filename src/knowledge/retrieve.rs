//! Retrieval of passages: one trait, implemented by the local index and by an organisation's own search.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};

use super::{passage::Passage, reader::KnowledgeReader};
use crate::{
    calls::{ServiceCall, ServiceCaller},
    limits, subjects,
};

/// A source of passages.
pub trait Retriever: Send + Sync {
    /// Returns the best matching passages that the reader may read, best first.
    fn retrieve<'a>(
        &'a self,
        query: &'a str,
        reader: &'a KnowledgeReader,
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

/// An organisation's own search engine: a NATS micro service on [`subjects::retrieve`].
pub struct RemoteRetriever {
    caller: ServiceCaller,
}

/// The request to a search service.
#[derive(Serialize)]
struct Request<'a> {
    query: &'a str,
    limit: usize,
    reader: &'a KnowledgeReader,
}

/// The response of a search service.
#[derive(Deserialize)]
struct Answer {
    passages: Vec<Passage>,
}

impl RemoteRetriever {
    pub fn new(caller: ServiceCaller) -> Self {
        Self { caller }
    }

    async fn ask(&self, query: &str, reader: &KnowledgeReader, limit: usize) -> Result<Vec<Passage>, RetrieveError> {
        let payload = serde_json::to_vec(&Request { query, limit, reader }).map_err(RetrieveError::Answer)?;
        let call = ServiceCall {
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

impl Retriever for RemoteRetriever {
    fn retrieve<'a>(
        &'a self,
        query: &'a str,
        reader: &'a KnowledgeReader,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Passage>, RetrieveError>> {
        self.ask(query, reader, limit).boxed()
    }

    fn is_empty(&self, _org: &str) -> bool {
        false
    }
}
