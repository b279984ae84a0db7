//! The arguments of `turnstream ingest`.

use std::path::PathBuf;

use clap::{Args, builder::ArgPredicate};
use url::Url;

use super::origin::Origin;
use crate::knowledge::{Acl, DEFAULT_SET};

/// Bring documents into an organisation's knowledge: Markdown, text, HTML and PDF.
#[derive(Args, Clone)]
pub struct IngestArgs {
    /// Files, folders, http(s) URLs, or repositories as github:OWNER/REPO[@REF][/FOLDER].
    #[arg(value_name = "PATH|URL")]
    from: Vec<String>,
    /// A sitemap (or an index of sitemaps) whose pages are ingested; may be repeated.
    #[arg(long, value_name = "URL")]
    sitemap: Vec<String>,
    /// The organisation whose knowledge the documents are added to.
    #[arg(
        long,
        required = false,
        required_unless_present = "serve",
        default_value_if("serve", ArgPredicate::IsPresent, Some(""))
    )]
    pub org: String,
    /// Name of the source; deletions are noticed within it [default: derived from the paths and URLs].
    #[arg(long)]
    source: Option<String>,
    /// The document set of documents whose front matter names none.
    #[arg(long, default_value = DEFAULT_SET)]
    pub set: String,
    /// Readers of documents whose front matter names none: public, user:NAME or group:NAME; may be repeated.
    #[arg(long, default_value = "public")]
    acl: Vec<String>,
    /// Write nothing, only report the changes.
    #[arg(long)]
    pub dry_run: bool,
    /// Go on, and ingest again whenever a file changes.
    #[arg(long, conflicts_with_all = ["sitemap", "dry_run"])]
    pub watch: bool,
    /// Delete documents that the source no longer has; the default for folders, sitemaps and repositories.
    #[arg(long, overrides_with = "no_prune")]
    prune: bool,
    /// Keep documents that the source no longer has; the default for single files and URLs.
    #[arg(long, overrides_with = "prune")]
    no_prune: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// Keep running, and ingest the connectors that administrators request over the API.
    #[arg(long, conflicts_with_all = ["from", "sitemap", "org", "source", "dry_run", "watch", "prune", "no_prune", "json"])]
    pub serve: bool,
    /// Folder with a folder of files for each organisation, which file connectors may read.
    #[arg(long, value_name = "FOLDER", requires = "serve")]
    pub files: Option<PathBuf>,
    /// Folder with a folder for each organisation, in which a file holds the secret of its name.
    #[arg(long, value_name = "FOLDER", requires = "serve")]
    pub secrets: Option<PathBuf>,
    /// Name of the environment variable that holds the token for GitHub's API.
    #[arg(long, value_name = "NAME", default_value = "GITHUB_TOKEN")]
    pub token_env: String,
    /// The folder outside of which no file is read.
    #[arg(skip)]
    within: Option<PathBuf>,
}

/// The parsed arguments.
pub struct IngestPlan {
    pub origins: Vec<Origin>,
    pub source: String,
    pub acl: Acl,
    pub prune: Prune,
}

/// The policy for documents that the source no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    Never,
    /// Deletes them, unless the source lists no documents at all: that is more often a wrong path than an empty source.
    Usual,
    Asked,
}

impl IngestArgs {
    /// Returns the arguments for a connector: one named source, public unless a document names its readers.
    pub fn of_connector(from: Vec<String>, sitemap: Vec<String>, org: String, source: String, set: String) -> Self {
        Self {
            from,
            sitemap,
            org,
            source: Some(source),
            set,
            acl: vec!["public".into()],
            dry_run: false,
            watch: false,
            prune: false,
            no_prune: false,
            json: false,
            serve: false,
            files: None,
            secrets: None,
            token_env: String::new(),
            within: None,
        }
    }

    /// Returns the same arguments, with no file read outside of this folder.
    pub fn within(self, folder: PathBuf) -> Self {
        Self { within: Some(folder), ..self }
    }

    /// Parses the arguments. The error names the wrong one.
    pub fn plan(&self) -> Result<IngestPlan, String> {
        let mut origins: Vec<Origin> = self.from.iter().map(|from| Origin::parse(from)).collect::<Result<_, _>>()?;
        for origin in &mut origins {
            if let Origin::Path { within, .. } = origin {
                within.clone_from(&self.within);
            }
        }
        for text in &self.sitemap {
            let url = Url::parse(text).map_err(|_| format!("--sitemap {text}: this is not a URL"))?;
            origins.push(Origin::Sitemap(url));
        }
        if self.watch && !origins.iter().all(|origin| matches!(origin, Origin::Path { .. })) {
            return Err("--watch watches files and folders only".into());
        }
        let source = match (&self.source, origins.as_slice()) {
            (_, []) => return Err("name something to ingest: a file, a folder, a URL, or --sitemap".into()),
            (Some(name), _) if name.trim().is_empty() || name.len() > 100 => {
                return Err("--source: a name has 1 to 100 characters".into());
            }
            (Some(name), _) => name.clone(),
            (None, [only]) => only.name(),
            (None, _) => return Err("with several things to ingest, name their source with --source".into()),
        };
        let acl = parse_acl(&self.acl).map_err(|why| format!("--acl: {why}"))?;
        let prune = match (self.prune, self.no_prune) {
            (true, _) => Prune::Asked,
            (_, true) => Prune::Never,
            _ if origins.iter().all(Origin::is_complete) => Prune::Usual,
            _ => Prune::Never,
        };
        Ok(IngestPlan { origins, source, acl, prune })
    }
}

/// Parses `public`, `user:NAME` and `group:NAME`. The error is worded for people.
pub fn parse_acl(entries: &[String]) -> Result<Acl, String> {
    let (mut users, mut groups, mut public) = (std::collections::BTreeSet::new(), Default::default(), false);
    for entry in entries.iter().map(|entry| entry.trim()) {
        let kept: &mut std::collections::BTreeSet<String> = match entry.split_once(':') {
            Some(("user", _)) => &mut users,
            Some(("group", _)) => &mut groups,
            None if entry == "public" => {
                public = true;
                continue;
            }
            _ => return Err(format!("`{entry}` is not `public`, `user:NAME` or `group:NAME`")),
        };
        match entry.split_once(':').map(|(_, name)| name.trim()).filter(|name| !name.is_empty()) {
            Some(name) => kept.insert(name.to_string()),
            None => return Err(format!("`{entry}` names no reader")),
        };
    }
    match (public, users.is_empty() && groups.is_empty()) {
        (true, true) => Ok(Acl::Public),
        (false, false) => Ok(Acl::Only { users, groups }),
        (true, false) => Err("`public` and single readers exclude each other".into()),
        (false, true) => Err("no reader is named".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_named_or_refused() {
        let parse = |names: &[&str]| parse_acl(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(parse(&["public"]), Ok(Acl::Public));
        let both = Acl::Only { users: ["a".to_string()].into(), groups: ["g".to_string()].into() };
        assert_eq!(parse(&["group:g", "user:a"]), Ok(both));
        for wrong in [&[][..], &["everyone"], &["user:"], &["public", "user:a"], &["role:x"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
