//! The gateway's other calls: embeddings, and ranking passages.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Gateway, ModelError};

/// The model that gateways offer for `/rerank` by default.
const RERANK_MODEL: &str = "rerank";

impl Gateway {
    /// Returns the embeddings of some texts, in their order.
    pub async fn embed(&self, model: &str, texts: &[String]) -> Result<Vec<Vec<f32>>, ModelError> {
        #[derive(Deserialize)]
        struct Answer {
            data: Vec<Embedding>,
        }
        #[derive(Deserialize)]
        struct Embedding {
            index: usize,
            embedding: Vec<f32>,
        }
        let body = json!({ "model": model, "input": texts, "encoding_format": "float" });
        let mut answer: Answer = self.ask("embeddings", &body).await?;
        answer.data.sort_by_key(|embedding| embedding.index);
        let whole = answer.data.iter().enumerate().all(|(n, e)| e.index == n && !e.embedding.is_empty());
        if !whole || answer.data.len() != texts.len() {
            let detail = format!("{} embeddings of {} texts", answer.data.len(), texts.len());
            return Err(ModelError::NotTheApi { detail });
        }
        Ok(answer.data.into_iter().map(|embedding| embedding.embedding).collect())
    }

    /// Returns the indexes of texts with their relevance for a query, best first.
    pub async fn rerank(&self, query: &str, texts: &[String]) -> Result<Vec<(usize, f64)>, ModelError> {
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<Ranked>,
        }
        #[derive(Deserialize)]
        struct Ranked {
            index: usize,
            relevance_score: f64,
        }
        let body = json!({ "model": RERANK_MODEL, "query": query, "documents": texts, "top_n": texts.len() });
        let mut answer: Answer = self.ask("rerank", &body).await?;
        answer.results.retain(|ranked| ranked.index < texts.len());
        answer.results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        Ok(answer.results.into_iter().map(|ranked| (ranked.index, ranked.relevance_score)).collect())
    }

    /// Makes one call without retries: the caller decides how to go on without an answer.
    async fn ask<T: DeserializeOwned>(&self, endpoint: &str, body: &Value) -> Result<T, ModelError> {
        let answer = self.post(endpoint, body).await?;
        serde_json::from_slice(&answer).map_err(|error| ModelError::NotTheApi { detail: error.to_string() })
    }
}
