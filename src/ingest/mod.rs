//! `turnstream ingest`: brings documents from folders, pages and repositories into the organisation's knowledge.
//!
//! - [`args`]: the command line.
//! - [`origin`]: sources of documents, with [`folder`], [`web`] and [`github`].
//! - [`run`]: compares a source with the stored documents, writes the differences, deletes removed documents.
//! - [`report`]: the summary of a run.
//! - [`serve`]: runs that administrators request.
//! - [`watch`]: runs again whenever a folder changes.

mod access;
pub mod args;
mod folder;
mod github;
mod origin;
mod report;
mod run;
pub mod serve;
mod source;
mod watch;
mod web;

pub use access::WebAccess;
pub use args::IngestArgs;
pub use report::IngestReport;
pub use run::{EmbedFn, EmbedFuture, Ingester};
pub use watch::watch;
