//! The web access of the built-in tools and of ingest.

use std::fmt;

use url::Url;

use super::{ConfigError, values::switch, without_secrets, wrong};
use crate::fetch::FetchPolicy;

/// The base URL of GitHub's own API.
const GITHUB: &str = "https://api.github.com/";

/// The settings of fetching and of search services.
#[derive(Clone, Debug, PartialEq)]
pub struct WebConfig {
    /// The model may fetch public web pages.
    pub fetch: bool,
    /// Hosts that may be fetched although they are not public, as `host:port`.
    pub allow: FetchPolicy,
    /// The search engine's URL, queried with `q` and `format=json`.
    pub search_url: Option<Url>,
    pub search_key: Option<String>,
    /// The model may search GitHub.
    pub github_search: bool,
    pub github_url: Url,
    pub github_token: Option<String>,
}

/// Reads the settings that begin with `SMOOTH_AGENT_FETCH`, `SMOOTH_AGENT_WEB_SEARCH` and `SMOOTH_AGENT_GITHUB`.
pub fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<WebConfig, ConfigError> {
    let allow = text("SMOOTH_AGENT_FETCH_ALLOW").unwrap_or_default();
    let allow = FetchPolicy::parse(&allow)
        .map_err(|entry| wrong("SMOOTH_AGENT_FETCH_ALLOW", format!("`{entry}` is not `host:port`")))?;
    let github_url = url(text, "SMOOTH_AGENT_GITHUB_URL")?;
    Ok(WebConfig {
        fetch: switch(text, "SMOOTH_AGENT_FETCH")?,
        allow,
        search_url: url(text, "SMOOTH_AGENT_WEB_SEARCH_URL")?,
        search_key: text("SMOOTH_AGENT_WEB_SEARCH_KEY"),
        github_search: switch(text, "SMOOTH_AGENT_GITHUB_SEARCH")?,
        github_url: github_url.unwrap_or_else(|| Url::parse(GITHUB).expect("a constant that a test reads")),
        github_token: text("SMOOTH_AGENT_GITHUB_TOKEN"),
    })
}

fn url(text: &dyn Fn(&str) -> Option<String>, name: &'static str) -> Result<Option<Url>, ConfigError> {
    let is_web = |url: &Url| ["http", "https"].contains(&url.scheme());
    let parse = |value: String| {
        Url::parse(&value)
            .ok()
            .filter(is_web)
            .ok_or_else(|| wrong(name, format!("`{}` is not an http or https URL", without_secrets(&value))))
    };
    text(name).map(parse).transpose()
}

impl fmt::Display for WebConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |present: bool| if present { "set" } else { "unset" };
        writeln!(f, "SMOOTH_AGENT_FETCH={}", self.fetch)?;
        writeln!(f, "SMOOTH_AGENT_FETCH_ALLOW={}", self.allow)?;
        let search_url = self.search_url.as_ref().map_or("unset".into(), |url| without_secrets(url.as_str()));
        writeln!(f, "SMOOTH_AGENT_WEB_SEARCH_URL={search_url}")?;
        writeln!(f, "SMOOTH_AGENT_WEB_SEARCH_KEY={}", set(self.search_key.is_some()))?;
        writeln!(f, "SMOOTH_AGENT_GITHUB_SEARCH={}", self.github_search)?;
        writeln!(f, "SMOOTH_AGENT_GITHUB_URL={}", without_secrets(self.github_url.as_str()))?;
        write!(f, "SMOOTH_AGENT_GITHUB_TOKEN={}", set(self.github_token.is_some()))
    }
}
