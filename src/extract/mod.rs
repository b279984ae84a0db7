//! Extracts readable text from files and pages, and cuts it into passages.
//!
//! - [`front_matter`]: the block at a Markdown file's head that names title, set and readers.
//! - [`html`]: a page's main text as Markdown.
//! - [`pdf`]: a PDF's text.
//! - [`chunker`]: passages of about a thousand characters, with the headings above each.
//! - [`sandbox`]: all of it in a sandbox process, since a document may attack its reader.

mod chunker;
mod decode;
mod front_matter;
mod html;
mod pdf;
pub mod sandbox;
#[cfg(test)]
mod tests;

pub use chunker::{TextChunk, chunks};
pub use decode::to_utf8;
pub use front_matter::FrontMatter;
pub use sandbox::SandboxReader;

use serde::{Deserialize, Serialize};

use crate::limits;

/// The forms of documents that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    Markdown,
    Plain,
    /// A table: its first line names the columns.
    Table,
    Html,
    Pdf,
}

impl DocumentFormat {
    const NAMES: [(&str, Self); 5] = [
        ("markdown", Self::Markdown),
        ("plain", Self::Plain),
        ("table", Self::Table),
        ("html", Self::Html),
        ("pdf", Self::Pdf),
    ];

    /// Returns the argument that a reader is started with.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| name)
    }

    fn of_argument(argument: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == argument).map(|(_, form)| *form)
    }

    /// Returns the form for the extension of a file or of a URL's path.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit('/').next()?.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "md" | "markdown" | "mdx" => Some(Self::Markdown),
            "txt" | "text" | "rst" | "adoc" | "log" => Some(Self::Plain),
            "csv" | "tsv" => Some(Self::Table),
            "html" | "htm" | "xhtml" => Some(Self::Html),
            "pdf" => Some(Self::Pdf),
            _ => None,
        }
    }

    /// Returns the form for a response's content type.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type {
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            "text/markdown" => Some(Self::Markdown),
            "application/pdf" => Some(Self::Pdf),
            "text/csv" | "text/tab-separated-values" => Some(Self::Table),
            "application/json" | "application/xml" => Some(Self::Plain),
            other if other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml") => {
                Some(Self::Plain)
            }
            _ => None,
        }
    }
}

/// The text and the metadata of a document.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExtractedText {
    pub front: FrontMatter,
    /// The title from front matter, from the page or from the first heading.
    pub title: Option<String>,
    /// Markdown, or plain text of the other forms. Lines end with a line feed.
    pub text: String,
}

/// The reason why a document has no text.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ExtractError {
    #[error("it is not text in UTF-8, in UTF-16 with a byte order mark, or in an encoding that it declares")]
    NotText,
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    #[error("its front matter can't be read: {0}")]
    Front(String),
    #[error("its elements are nested too deeply")]
    Nested,
    #[error("it is not a PDF that can be read: {0}")]
    Pdf(String),
    #[error("it holds no text")]
    Empty,
}

/// Extracts a document's text. Computes for a while; documents from others are read by a [`SandboxReader`].
pub fn extract(form: DocumentFormat, bytes: &[u8]) -> Result<ExtractedText, ExtractError> {
    if bytes.len() > limits::DOCUMENT_MAX_BYTES {
        return Err(ExtractError::TooLarge(limits::DOCUMENT_MAX_BYTES));
    }
    let front_failed = ExtractError::Front;
    let extracted = match form {
        DocumentFormat::Pdf => ExtractedText { text: with_line_feeds(&pdf::text(bytes)?), ..ExtractedText::default() },
        DocumentFormat::Html => {
            let html = decode::page(bytes)?;
            front_matter::refuse_readers(&with_line_feeds(&html)).map_err(front_failed)?;
            let page = html::page(&html)?;
            let title = page.title.or_else(|| first_heading(&page.markdown));
            ExtractedText { title, text: with_line_feeds(&page.markdown), ..ExtractedText::default() }
        }
        DocumentFormat::Plain | DocumentFormat::Table => {
            let text = with_line_feeds(&decode::text(bytes)?);
            front_matter::refuse_readers(&text).map_err(front_failed)?;
            ExtractedText { text, ..ExtractedText::default() }
        }
        DocumentFormat::Markdown => {
            let text = with_line_feeds(&decode::text(bytes)?);
            let (front, text) = front_matter::split(&text).map_err(front_failed)?;
            let title = front.title.clone().or_else(|| first_heading(text));
            ExtractedText { front, title, text: text.to_string() }
        }
    };
    let text = extracted.text.replace('\0', "");
    if text.trim().is_empty() { Err(ExtractError::Empty) } else { Ok(ExtractedText { text, ..extracted }) }
}

/// Returns the text with line feeds as its line ends.
fn with_line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn first_heading(markdown: &str) -> Option<String> {
    chunker::Outline::of(markdown).headings.into_iter().map(|heading| heading.text).find(|text| !text.is_empty())
}
