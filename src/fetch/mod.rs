//! Fetches public web addresses for people who are not trusted: the model, pages, sitemaps.
//!
//! - [`guard`]: which URLs and addresses may be fetched at all.
//! - [`fetcher`]: fetches one URL under the guard, hop by hop.

mod fetcher;
mod guard;
#[cfg(test)]
mod tests;

pub use fetcher::{FetchError, Fetched, Fetcher, Names};
pub use guard::{Policy, Refused, is_public};
