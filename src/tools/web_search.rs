//! `web_search`: asks a search engine with a JSON interface, such as SearXNG's.

use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::context::required;
use crate::{fetch::Fetcher, limits};

#[derive(Clone)]
pub struct WebSearch {
    pub fetcher: Fetcher,
    /// The search URL: called with `q` and `format=json`, it returns `{"results": [{"title", "url", "content"}]}`.
    pub url: Url,
    pub key: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    title: String,
    url: String,
    #[serde(default)]
    content: Option<String>,
}

impl WebSearch {
    pub async fn call(&self, arguments: &Value) -> Result<String, String> {
        let query = required(arguments, "query")?;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("q", query).append_pair("format", "json");
        let fetched = self.fetcher.fetch(url.as_str(), &bearer(self.key.as_deref())).await;
        let fetched = fetched.map_err(|error| format!("The search failed: {error}."))?;
        let answer: Answer =
            serde_json::from_slice(&fetched.body).map_err(|_| "The search engine's answer is none.")?;
        let found = answer.results.into_iter().take(limits::SEARCH_RESULTS);
        let found =
            found.map(|f| json!({ "title": f.title, "url": f.url, "excerpt": shortened(f.content.as_deref()) }));
        Ok(json!({ "results": found.collect::<Vec<_>>() }).to_string())
    }
}

/// Returns the header with a token, if there is one.
pub fn bearer(token: Option<&str>) -> HeaderMap {
    let value = token.and_then(|token| format!("Bearer {token}").parse().ok());
    HeaderMap::from_iter(value.map(|value| (AUTHORIZATION, value)))
}

/// Returns as much of a text as an overview needs.
pub fn shortened(text: Option<&str>) -> Option<String> {
    text.map(|text| text.chars().take(limits::SEARCH_EXCERPT_CHARS).collect())
}
