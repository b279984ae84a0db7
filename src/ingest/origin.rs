//! Origins of documents: files, pages, sitemaps and repositories.

use std::path::{Path, PathBuf};

use url::Url;

use super::{
    access::WebAccess,
    folder, github,
    source::{ItemLocation, SourceItem, SourceListing},
    web,
};
use crate::{
    extract::{DocumentFormat, to_utf8},
    limits,
};

/// The origin of documents that one argument names.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// A file or folder; `within`: a folder outside of which no file is read, also through links.
    Path {
        path: PathBuf,
        within: Option<PathBuf>,
    },
    Page(Url),
    Sitemap(Url),
    GitHub(github::Repository),
}

impl Origin {
    /// Parses an argument.
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

    /// Returns the source's default name: always the same for the same origin, without anything particular to a
    /// machine.
    pub fn name(&self) -> String {
        match self {
            // The whole path: two folders of one name are two sources, or the second would delete the documents of the
            // first.
            Self::Path { path, .. } => {
                path.canonicalize().unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned()
            }
            Self::Page(url) => url.host_str().unwrap_or("web").to_string(),
            Self::Sitemap(url) => url.to_string(),
            Self::GitHub(repository) => format!("github:{}", repository.name()),
        }
    }

    /// Returns whether the origin lists all documents of its source, so that missing ones are gone.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Path { path, .. } => path.is_dir(),
            Self::Page(_) => false,
            Self::Sitemap(_) | Self::GitHub(_) => true,
        }
    }

    /// Lists the documents.
    pub async fn list(&self, web: &WebAccess) -> SourceListing {
        match self {
            Self::Path { path, within } => {
                let (path, within) = (path.clone(), within.clone());
                let listed = tokio::task::spawn_blocking(move || folder::list(&path, within.as_deref())).await;
                listed.unwrap_or_else(|error| SourceListing::failed("the folder", error))
            }
            Self::Page(url) => SourceListing { items: vec![web::item(url.clone())], ..SourceListing::default() },
            Self::Sitemap(url) => web::sitemap(web, url).await,
            Self::GitHub(repository) => repository.list(web).await,
        }
    }
}

/// The reason why an item can't be read.
pub enum ItemReadError {
    /// The item is unreachable: it may be unchanged.
    Away(String),
    /// The item was reached, and its content can't be ingested.
    Refused(String),
}

/// Reads an item: its form and bytes.
pub async fn load(item: &SourceItem, web: &WebAccess) -> Result<(DocumentFormat, Vec<u8>), ItemReadError> {
    let not_understood = || ItemReadError::Refused("its form is not understood".into());
    match &item.place {
        ItemLocation::File { path, within } => {
            let form = DocumentFormat::of_name(&item.id).ok_or_else(not_understood)?;
            // A link may have been created since the file was listed.
            let path = &match within {
                Some(within) => {
                    folder::inside(path, within).ok_or_else(|| ItemReadError::Refused(folder::OUTSIDE.into()))?
                }
                None => path.clone(),
            };
            let away = |error: std::io::Error| ItemReadError::Away(error.to_string());
            let length = tokio::fs::metadata(path).await.map_err(away)?.len();
            if length > limits::DOCUMENT_MAX_BYTES as u64 {
                return Err(ItemReadError::Refused(format!("it is larger than {} bytes", limits::DOCUMENT_MAX_BYTES)));
            }
            Ok((form, tokio::fs::read(path).await.map_err(away)?))
        }
        ItemLocation::Page(url) => {
            let fetched = web.fetcher.fetch(url, &Default::default()).await;
            let fetched = fetched.map_err(|error| ItemReadError::Away(error.to_string()))?;
            let by_name = || DocumentFormat::of_name(fetched.url.path());
            let form = match fetched.content_type.as_str() {
                // The content types that servers give to Markdown and to unknown files.
                "" | "text/plain" | "application/octet-stream" => by_name().or(Some(DocumentFormat::Plain)),
                named => DocumentFormat::of_content_type(named),
            };
            let unknown =
                || ItemReadError::Refused(format!("the content type `{}` is not understood", fetched.content_type));
            let form = form.ok_or_else(unknown)?;
            match fetched.charset.filter(|_| form != DocumentFormat::Pdf) {
                Some(charset) => {
                    let unknown = || ItemReadError::Refused(format!("the encoding `{charset}` is not known"));
                    Ok((form, to_utf8(&fetched.body, &charset).ok_or_else(unknown)?))
                }
                None => Ok((form, fetched.body)),
            }
        }
        ItemLocation::Blob(url) => {
            let form = DocumentFormat::of_name(&item.id).ok_or_else(not_understood)?;
            let fetched = web.fetcher.fetch(url, &web.github_headers(true)).await;
            Ok((form, fetched.map_err(|error| ItemReadError::Away(error.to_string()))?.body))
        }
    }
}
