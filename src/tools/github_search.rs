//! `github_search`: GitHub's search API.

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    context::required,
    web_search::{bearer, shortened},
};
use crate::{fetch::Fetcher, limits};

#[derive(Clone)]
pub struct GitHubSearch {
    pub fetcher: Fetcher,
    /// The base URL of the API.
    pub url: Url,
    pub token: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    total_count: u64,
    items: Vec<Found>,
}

/// The fields of repositories, issues and code that describe a hit.
#[derive(Deserialize)]
struct Found {
    html_url: String,
    full_name: Option<String>,
    title: Option<String>,
    path: Option<String>,
    description: Option<String>,
    body: Option<String>,
    state: Option<String>,
}

impl GitHubSearch {
    pub async fn call(&self, arguments: &Value) -> Result<String, String> {
        let query = required(arguments, "query")?;
        let kind = match arguments["kind"].as_str() {
            None => "repositories",
            Some(kind @ ("repositories" | "issues" | "code")) => kind,
            Some(other) => return Err(format!("`kind` is repositories, issues or code, not `{other}`.")),
        };
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["search", kind]);
        }
        url.query_pairs_mut().append_pair("q", query).append_pair("per_page", &limits::SEARCH_RESULTS.to_string());
        let fetched = self.fetcher.fetch(url.as_str(), &bearer(self.token.as_deref())).await;
        let fetched = fetched.map_err(|error| format!("The search failed: {error}."))?;
        let answer: Answer = serde_json::from_slice(&fetched.body).map_err(|_| "GitHub's answer is none.")?;
        let found = answer.items.into_iter().take(limits::SEARCH_RESULTS).map(|found| {
            let text = found.description.or(found.body);
            json!({
                "name": found.full_name.or(found.title).or(found.path),
                "url": found.html_url,
                "state": found.state,
                "excerpt": shortened(text.as_deref()),
            })
        });
        Ok(json!({ "total": answer.total_count, "results": found.collect::<Vec<_>>() }).to_string())
    }
}
