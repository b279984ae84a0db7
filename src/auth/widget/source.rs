//! Sources of policies: the agents' configuration, a file, a service of the host.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use moka::future::Cache;
use reqwest::{Client, StatusCode};
use url::Url;

use super::WidgetPolicy;
use crate::{config::WidgetService, limits};

/// Looks a policy up in the memory of the process.
pub type PolicyLookup = Arc<dyn Fn(&str) -> Option<WidgetPolicy> + Send + Sync>;

/// A source of policies.
pub enum PolicySource {
    /// The memory of the process: agents' configuration; `any` tells whether it holds a policy at all.
    Known {
        lookup: PolicyLookup,
        any: Arc<dyn Fn() -> bool + Send + Sync>,
    },
    File(HashMap<String, WidgetPolicy>),
    Service(Box<PolicyService>),
}

/// The reason why a source can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicySourceError {
    #[error("WIDGET_AUTH_FILE: {0} can't be read: {1}")]
    File(String, std::io::Error),
    #[error("WIDGET_AUTH_FILE: {0} is not a JSON object of policies by agent: {1}")]
    Json(String, serde_json::Error),
    #[error("the HTTP client for the policy service can't be built: {0}")]
    Client(String),
}

impl PolicySource {
    /// Reads a JSON file, once: an object with a policy for each agent's id.
    pub fn file(path: &Path) -> Result<Self, PolicySourceError> {
        let shown = path.display().to_string();
        let text = std::fs::read(path).map_err(|error| PolicySourceError::File(shown.clone(), error))?;
        Ok(Self::File(serde_json::from_slice(&text).map_err(|error| PolicySourceError::Json(shown, error))?))
    }

    /// Returns true if policies may come from here.
    pub fn is_configured(&self) -> bool {
        match self {
            Self::Known { any, .. } => any(),
            Self::File(_) | Self::Service(_) => true,
        }
    }

    pub async fn policy(&self, agent: &str) -> Option<WidgetPolicy> {
        match self {
            Self::Known { lookup, .. } => lookup(agent),
            Self::File(policies) => policies.get(agent).cloned(),
            Self::Service(service) => service.policy(agent).await,
        }
    }
}

/// Policies over HTTP: `GET {url}/{agent}`.
///
/// A policy, and the absence of one, are cached for a while; a failure is not. The last policy is kept for longer, and holds
/// while the service fails.
pub struct PolicyService {
    client: Client,
    url: Url,
    bearer: Option<String>,
    known: Cache<String, Option<WidgetPolicy>>,
    last: Cache<String, Option<WidgetPolicy>>,
}

/// The reason why the service gave no valid answer. It holds nothing of the answer.
#[derive(Clone, Debug, thiserror::Error)]
enum Failure {
    #[error("status {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Http(String),
    #[error("the answer is too large, or not a policy")]
    Body,
}

impl PolicyService {
    pub fn new(config: &WidgetService) -> Result<Self, PolicySourceError> {
        let client = Client::builder()
            .timeout(Duration::from_millis(limits::WIDGET_POLICY_MS))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| PolicySourceError::Client(error.to_string()))?;
        let known = Cache::builder().max_capacity(limits::WIDGET_POLICIES_CACHED);
        let known = known.time_to_live(Duration::from_secs(config.ttl_secs.into())).build();
        let last = Cache::builder().max_capacity(limits::WIDGET_POLICIES_CACHED);
        let last = last.time_to_live(Duration::from_secs(limits::WIDGET_POLICY_HOLDS_SECS)).build();
        Ok(Self { client, url: config.url.clone(), bearer: config.bearer.clone(), known, last })
    }

    /// Returns an agent's policy. Of many sessions that are opened at once, one asks the service.
    async fn policy(&self, agent: &str) -> Option<WidgetPolicy> {
        let asked = self.known.try_get_with_by_ref(agent, self.ask_and_keep(agent)).await;
        match asked {
            Ok(policy) => policy,
            Err(error) => {
                let last = self.last.get(agent).await;
                let held = last.is_some();
                tracing::warn!(%error, agent, held, "the widget policy service did not answer; the last known policy, if any, applies");
                last.flatten()
            }
        }
    }

    async fn ask_and_keep(&self, agent: &str) -> Result<Option<WidgetPolicy>, Failure> {
        let answer = self.ask(agent).await?;
        // Any visitor may name agents that do not exist; they must not push out existing ones.
        match &answer {
            Some(_) => self.last.insert(agent.to_string(), answer.clone()).await,
            None => self.last.invalidate(agent).await,
        }
        Ok(answer)
    }

    async fn ask(&self, agent: &str) -> Result<Option<WidgetPolicy>, Failure> {
        // A path can't hold these as a segment, in any spelling.
        if agent == "." || agent == ".." {
            return Ok(None);
        }
        let http = |error: reqwest::Error| Failure::Http(error.without_url().to_string());
        let mut request = self.client.get(address(&self.url, agent));
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let mut response = request.send().await.map_err(http)?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            status => return Err(Failure::Status(status)),
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(http)? {
            body.extend_from_slice(&part);
            if body.len() > limits::WIDGET_POLICY_MAX_BYTES {
                return Err(Failure::Body);
            }
        }
        // A list would be accepted for a struct, too.
        let policy: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&body).map_err(|_| Failure::Body)?;
        serde_json::from_value(policy.into()).map(Some).map_err(|_| Failure::Body)
    }
}

/// Builds `{url}/{agent}`, with the agent's id as one segment.
fn address(url: &Url, agent: &str) -> Url {
    let mut address = url.clone();
    if let Ok(mut segments) = address.path_segments_mut() {
        segments.pop_if_empty().push(agent);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_id_is_one_segment_of_the_path() {
        for (base, agent, expected) in [
            ("https://p.example/widgets", "a-1", "https://p.example/widgets/a-1"),
            ("https://p.example/widgets/", "a/../b", "https://p.example/widgets/a%2F..%2Fb"),
            ("https://p.example", "ü ?#%", "https://p.example/%C3%BC%20%3F%23%25"),
        ] {
            assert_eq!(address(&Url::parse(base).unwrap(), agent).as_str(), expected);
        }
    }
}
