//! Access to the web and to GitHub.

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};

use crate::fetch::Fetcher;

/// The access to the web.
pub struct WebAccess {
    pub fetcher: Fetcher,
    pub github_url: String,
    pub github_token: Option<String>,
}

impl WebAccess {
    /// Returns the headers for GitHub's API.
    pub fn github_headers(&self, raw: bool) -> HeaderMap {
        let form = if raw { "application/vnd.github.raw+json" } else { "application/vnd.github+json" };
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(form))]);
        let token = self.github_token.as_ref().and_then(|token| format!("Bearer {token}").parse().ok());
        headers.extend(token.map(|token| (AUTHORIZATION, token)));
        headers
    }
}
