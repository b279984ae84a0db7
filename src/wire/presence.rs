//! A worker's advertisement: what edges read to tell whether anybody can answer.

use serde::{Deserialize, Serialize};

/// The bucket of advertisements.
pub const BUCKET: &str = "WORKERS";

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advertisement {
    pub version: String,
    /// Organisations for which the worker has a gateway key; `*` = all.
    pub orgs: Vec<String>,
}
