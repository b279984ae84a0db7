//! Fetches public web addresses for untrusted sources of URLs: the model, pages, sitemaps.
//!
//! - [`guard`]: the rules for URLs and addresses that may be fetched.
//! - [`fetcher`]: fetches one URL under the guard, hop by hop.

mod fetcher;
mod guard;
#[cfg(test)]
mod tests;

pub use fetcher::{FetchError, Fetched, Fetcher, Names};
pub use guard::{Policy, Refused, is_public};
