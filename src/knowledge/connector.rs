//! Connectors: sources of an organisation's documents, as its administrators define them, and the work item that has
//! one of them ingested.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use chrono::{DateTime, Utc};

use crate::limits;

/// A source of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connector {
    pub id: Uuid,
    pub name: String,
    #[serde(flatten)]
    pub kind: ConnectorKind,
    /// The document set of the connector's documents.
    pub set: String,
    /// Name of the secret for reading the source; the value is known to ingesters alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The kind of a source, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "config", rename_all = "lowercase")]
pub enum ConnectorKind {
    /// A repository of GitHub.
    Github { owner: String, repo: String },
    /// A page, or a sitemap (its path ends in `.xml`) with its pages.
    Web { url: String },
    /// A file or folder below the folder that an ingester allows.
    File { path: String },
}

/// The work item of an ingester: a connector whose documents are to be ingested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestItem {
    pub run: Uuid,
    pub org: String,
    pub connector: Connector,
}

impl Connector {
    /// Returns the name of the connector's source in runs and documents.
    pub fn source(&self) -> String {
        format!("connector-{}", self.id)
    }
}

impl ConnectorKind {
    /// Validates the settings; the error is worded for the administrator.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Github { owner, repo } if [owner, repo].into_iter().all(|name| is_name(name)) => Ok(()),
            Self::Github { .. } => Err("`owner` and `repo` are names of GitHub"),
            Self::Web { url } if is_public_url(url) => Ok(()),
            Self::Web { .. } => Err("`url` is an http or https URL without a password"),
            Self::File { path } if is_inner_path(path) => Ok(()),
            Self::File { .. } => Err("`path` is relative to the folder that the ingester allows, and stays in it"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(legal)
}

fn is_public_url(url: &str) -> bool {
    let is_web =
        |url: Url| ["http", "https"].contains(&url.scheme()) && url.username().is_empty() && url.password().is_none();
    url.len() <= limits::FETCH_URL_MAX_BYTES && Url::parse(url).is_ok_and(is_web)
}

fn is_inner_path(path: &str) -> bool {
    let parts = || path.split(['/', '\\']);
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    path.len() <= limits::CONNECTOR_PATH_MAX_BYTES && parts().all(plain)
}

/// Returns whether a text may be the name of a secret: it has the form of an environment variable, which no token looks
/// like.
pub fn is_secret_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    name.len() <= limits::SECRET_NAME_MAX_BYTES
        && name.bytes().all(legal)
        && name.bytes().next().is_some_and(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connector_reads_only_permitted_sources() {
        let github = |owner: &str, repo: &str| ConnectorKind::Github { owner: owner.into(), repo: repo.into() };
        let web = |url: &str| ConnectorKind::Web { url: url.into() };
        let file = |path: &str| ConnectorKind::File { path: path.into() };
        for good in [github("acme", "help.docs"), web("https://acme.example/a?b=c"), file("handbook"), file("a/b.md")] {
            assert_eq!(good.check(), Ok(()), "{good:?}");
        }
        let bad = [
            github("", "a"),
            github("a/b", "c"),
            github("a", ".."),
            web("ftp://a.example"),
            web("https://user:secret@a.example"),
            web("no url"),
            file(""),
            file("/etc/passwd"),
            file("a/../../b"),
            file("..\\a"),
            file("a//b"),
        ];
        for bad in bad {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_named_and_never_stored() {
        assert!(is_secret_name("GITHUB_TOKEN") && is_secret_name("A1"));
        for value in ["", "ghp_0123456789", "github_pat_11A", "1A", "A-B", "sk-abc", "A B"] {
            assert!(!is_secret_name(value), "{value}");
        }
    }
}
