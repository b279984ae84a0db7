//! Secrets of organisations, by name: configuration names them, and only the processes that use them hold their values.
//!
//! A secret is the file `{folder}/{organisation}/{name}`, as mounted secrets are laid out; the organisation is encoded as in
//! subjects. A name can't lead out of its organisation's folder, so no organisation can use the secret of another.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{limits, subjects};

/// The folder of secrets; `None` = no secrets.
#[derive(Clone, Default)]
pub struct Secrets(Option<PathBuf>);

impl Secrets {
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// Reads the current value of an organisation's secret. `None` = the secret is missing or unreadable.
    pub async fn find(&self, org: &str, name: &str) -> Option<String> {
        let folder = self.0.as_ref().filter(|_| is_name(name))?.join(subjects::encode_token(org));
        let folder = tokio::fs::canonicalize(folder).await.ok()?;
        let file = tokio::fs::canonicalize(folder.join(name)).await.ok().filter(|file| file.starts_with(&folder))?;
        let metadata = tokio::fs::metadata(&file).await.ok()?;
        if !metadata.is_file() || metadata.len() > limits::SECRET_MAX_BYTES {
            return None;
        }
        let value = tokio::fs::read_to_string(&file).await.ok()?;
        Some(value.trim().to_string()).filter(|value| !value.is_empty())
    }

    /// Returns the organisations that have secrets.
    pub fn orgs(&self) -> BTreeSet<String> {
        let folders = self.0.as_ref().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        let holds_something = |path: &Path| {
            let files = std::fs::read_dir(path).into_iter().flatten().flatten();
            files.into_iter().any(|file| file.file_name().to_str().is_some_and(is_name))
        };
        let with_secrets = folders.filter(|folder| holds_something(&folder.path()));
        with_secrets.filter_map(|folder| subjects::decode_token(folder.file_name().to_str()?)).collect()
    }
}

/// Returns true if a name is one plain path component; mounted folders also hold names that begin with a dot.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_belongs_to_its_organisation_alone() {
        let folder = tempfile::tempdir().unwrap();
        let org = |name: &str| folder.path().join(subjects::encode_token(name));
        for (name, value) in [("acme inc.", "key of acme\n"), ("globex", "key of globex")] {
            std::fs::create_dir(org(name)).unwrap();
            std::fs::write(org(name).join("gateway"), value).unwrap();
        }
        std::fs::create_dir(org("empty")).unwrap();
        std::fs::write(org("globex").join("blank"), " \n").unwrap();
        std::os::unix::fs::symlink(org("acme inc.").join("gateway"), org("globex").join("stolen")).unwrap();
        let secrets = Secrets::new(Some(folder.path().to_path_buf()));
        assert_eq!(secrets.find("acme inc.", "gateway").await.as_deref(), Some("key of acme"));
        let other = format!("../{}/gateway", subjects::encode_token("acme inc."));
        for name in ["blank", "stolen", "none", "", "..", other.as_str(), "/etc/hostname"] {
            assert_eq!(secrets.find("globex", name).await, None, "{name}");
        }
        assert_eq!(secrets.find("", "gateway").await, None);
        assert_eq!(Vec::from_iter(secrets.orgs()), ["acme inc.", "globex"]);
        assert!(Secrets::default().orgs().is_empty());
    }
}
