//! Fetches public web addresses for untrusted sources of URLs: the model, pages, sitemaps.
//!
//! - [`guard`]: the rules for URLs and addresses that may be fetched.
//! - [`fetcher`]: fetches one URL under the guard, hop by hop.

mod fetcher;
mod guard;
#[cfg(test)]
mod tests;

pub use fetcher::{FetchError, FetchResponse, Fetcher, NameResolver};
pub use guard::{FetchPolicy, FetchRefusal, is_public};
