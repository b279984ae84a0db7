//! A repository, through GitHub's API: its tree lists every file with the hash of its content, so only new content is
//! read.

use serde::Deserialize;

use super::{
    access::WebAccess,
    source::{ItemLocation, SourceItem, SourceListing},
};
use crate::extract::DocumentFormat;

/// A repository as `OWNER/REPO[@REF][/FOLDER]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    owner: String,
    repo: String,
    reference: Option<String>,
    folder: Option<String>,
}

#[derive(Deserialize)]
struct Tree {
    sha: String,
    #[serde(default)]
    truncated: bool,
    tree: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    sha: String,
}

impl Repository {
    /// Parses the text after `github:`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("github:{text}: write github:OWNER/REPO, github:OWNER/REPO@REF or github:OWNER/REPO@REF/FOLDER");
        let (owner, rest) = text.split_once('/').ok_or_else(wrong)?;
        let (rest, folder) = rest.split_once('/').map_or((rest, None), |(rest, folder)| (rest, Some(folder)));
        let (repo, reference) = rest.split_once('@').map_or((rest, None), |(repo, name)| (repo, Some(name)));
        let legal = |part: &str| {
            !part.is_empty() && part != ".." && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let folder = folder.map(|folder| folder.trim_matches('/')).filter(|folder| !folder.is_empty());
        if ![owner, repo].into_iter().chain(reference).all(legal) {
            return Err(wrong());
        }
        let owned = |text: &str| text.to_string();
        Ok(Self { owner: owned(owner), repo: owned(repo), reference: reference.map(owned), folder: folder.map(owned) })
    }

    /// Returns `OWNER/REPO[@REF][/FOLDER]`.
    pub fn name(&self) -> String {
        let reference = self.reference.iter().map(|reference| format!("@{reference}"));
        let folder = self.folder.iter().map(|folder| format!("/{folder}"));
        let rest: String = reference.chain(folder).collect();
        format!("{}/{}{rest}", self.owner, self.repo)
    }

    /// Lists the files with a known form, by their path in the repository.
    pub async fn list(&self, web: &WebAccess) -> SourceListing {
        let reference = self.reference.as_deref().unwrap_or("HEAD");
        let api = format!("{}/repos/{}/{}/git", web.github_url.trim_end_matches('/'), self.owner, self.repo);
        let url = format!("{api}/trees/{reference}?recursive=1");
        let tree = match web.fetcher.fetch(&url, &web.github_headers(false)).await {
            Ok(fetched) => serde_json::from_slice::<Tree>(&fetched.body).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let tree = match tree {
            Ok(tree) => tree,
            Err(why) => return SourceListing::failed(&self.name(), why),
        };
        let mut listing = SourceListing { cursor: Some(tree.sha), ..SourceListing::default() };
        if tree.truncated {
            let why = "the repository is too large to be listed at once; ingest its folders one by one";
            listing.failures.push((self.name(), why.into()));
        }
        let within = |path: &str| match &self.folder {
            Some(folder) => path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/')),
            None => true,
        };
        let hidden = |path: &str| path.split('/').any(|part| part.starts_with('.'));
        for entry in tree.tree {
            let understood = entry.kind == "blob" && DocumentFormat::of_name(&entry.path).is_some();
            if understood && within(&entry.path) && !hidden(&entry.path) {
                listing.items.push(SourceItem {
                    url: Some(format!(
                        "https://github.com/{}/{}/blob/{reference}/{}",
                        self.owner, self.repo, entry.path
                    )),
                    id: entry.path,
                    place: ItemLocation::Blob(format!("{api}/blobs/{}", entry.sha)),
                    content: Some(entry.sha),
                });
            }
        }
        listing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_with_or_without_ref_and_folder() {
        let repository = Repository::parse("acme/help@v1.2/docs/en/").unwrap();
        assert_eq!(
            (repository.name().as_str(), repository.reference.as_deref()),
            ("acme/help@v1.2/docs/en", Some("v1.2"))
        );
        assert_eq!(repository.folder.as_deref(), Some("docs/en"));
        assert_eq!(Repository::parse("acme/help").unwrap().reference, None);
        for wrong in ["acme", "acme/", "/help", "a/../b", "acme/help@", "acme/he lp", "acme/help?x"] {
            assert!(Repository::parse(wrong).is_err(), "{wrong}");
        }
    }
}
