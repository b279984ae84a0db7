//! `turnstream ingest`: brings documents from folders, pages and repositories into the organisation's knowledge.
//!
//! - [`args`]: the command line.
//! - [`origin`]: where documents come from, with [`folder`], [`web`] and [`github`].
//! - [`run`]: compares with what is there, writes what differs, deletes what is gone.
//! - [`report`]: what a run did.
//! - [`serve`]: runs that administrators ask for.
//! - [`watch`]: runs again whenever a folder changes.

pub mod args;
mod folder;
mod github;
mod origin;
mod report;
mod run;
pub mod serve;
mod watch;
mod web;

pub use args::IngestArgs;
pub use report::Report;
pub use run::{Embed, Embeds, Ingest, Web};
pub use watch::watch;
