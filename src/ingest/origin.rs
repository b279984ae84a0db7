//! Where documents come from.

use std::path::{Path, PathBuf};

use url::Url;

use super::{folder, github, run::Web, web};
use crate::{extract::Form, limits};

/// One thing that is ingested.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// A file or folder; `within`: a folder that nothing is read outside of, whatever links say.
    Path {
        path: PathBuf,
        within: Option<PathBuf>,
    },
    Page(Url),
    Sitemap(Url),
    GitHub(github::Repository),
}

/// A document that is there, not read yet.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path relative to the folder, or URL.
    pub id: String,
    pub url: Option<String>,
    /// Known without reading it: stands for the content.
    pub content: Option<String>,
    pub place: Place,
}

/// Where an item is read.
#[derive(Clone, Debug)]
pub enum Place {
    File {
        path: PathBuf,
        within: Option<PathBuf>,
    },
    Page(String),
    /// A raw blob of GitHub's API.
    Blob(String),
}

/// What a source has now.
#[derive(Debug, Default)]
pub struct Listing {
    pub items: Vec<Item>,
    /// What could not be looked at. Then what is not listed may still be there.
    pub failures: Vec<(String, String)>,
    pub cursor: Option<String>,
}

impl Origin {
    /// Understands an argument.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(repository) = text.strip_prefix("github:") {
            return github::Repository::parse(repository).map(Self::GitHub);
        }
        if text.contains("://") {
            return Url::parse(text).map(Self::Page).map_err(|_| format!("{text}: this is not a URL"));
        }
        match Path::new(text) {
            path if path.exists() => Ok(Self::Path { path: path.to_path_buf(), within: None }),
            _ => Err(format!("{text}: there is no such file or folder")),
        }
    }

    /// The source's name when none is given: the same for the same thing, without what is particular to a machine.
    pub fn name(&self) -> String {
        match self {
            // Whole: two folders of one name are two sources, or the second would delete what the first one brought.
            Self::Path { path, .. } => {
                path.canonicalize().unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned()
            }
            Self::Page(url) => url.host_str().unwrap_or("web").to_string(),
            Self::Sitemap(url) => url.to_string(),
            Self::GitHub(repository) => format!("github:{}", repository.name()),
        }
    }

    /// Whether it lists all documents of its source, so that what is missing is gone.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Path { path, .. } => path.is_dir(),
            Self::Page(_) => false,
            Self::Sitemap(_) | Self::GitHub(_) => true,
        }
    }

    /// Looks what there is.
    pub async fn list(&self, web: &Web) -> Listing {
        match self {
            Self::Path { path, within } => {
                let (path, within) = (path.clone(), within.clone());
                let listed = tokio::task::spawn_blocking(move || folder::list(&path, within.as_deref())).await;
                listed.unwrap_or_else(|error| Listing::failed("the folder", error))
            }
            Self::Page(url) => Listing { items: vec![web::item(url.clone())], ..Listing::default() },
            Self::Sitemap(url) => web::sitemap(web, url).await,
            Self::GitHub(repository) => repository.list(web).await,
        }
    }
}

impl Listing {
    /// Nothing but a failure.
    pub fn failed(what: &str, why: impl std::fmt::Display) -> Self {
        Self { failures: vec![(what.to_string(), why.to_string())], ..Self::default() }
    }
}

/// Reads an item: its form and bytes.
pub async fn load(item: &Item, web: &Web) -> Result<(Form, Vec<u8>), String> {
    match &item.place {
        Place::File { path, within } => {
            let form = Form::of_name(&item.id).ok_or("its form is not understood")?;
            // A link may have come since the file was listed.
            let path = &match within {
                Some(within) => folder::inside(path, within).ok_or(folder::OUTSIDE)?,
                None => path.clone(),
            };
            let length = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
            if length > limits::DOCUMENT_MAX_BYTES as u64 {
                return Err(format!("it is larger than {} bytes", limits::DOCUMENT_MAX_BYTES));
            }
            Ok((form, tokio::fs::read(path).await.map_err(|error| error.to_string())?))
        }
        Place::Page(url) => {
            let fetched = web.fetcher.fetch(url, &Default::default()).await.map_err(|error| error.to_string())?;
            let by_name = || Form::of_name(fetched.url.path());
            let form = match fetched.content_type.as_str() {
                // What servers say of Markdown and of files that they don't know.
                "" | "text/plain" | "application/octet-stream" => by_name().or(Some(Form::Plain)),
                named => Form::of_content_type(named),
            };
            let form = form.ok_or_else(|| format!("the content type `{}` is not understood", fetched.content_type))?;
            Ok((form, fetched.body))
        }
        Place::Blob(url) => {
            let form = Form::of_name(&item.id).ok_or("its form is not understood")?;
            let fetched = web.fetcher.fetch(url, &web.github_headers(true)).await;
            Ok((form, fetched.map_err(|error| error.to_string())?.body))
        }
    }
}
