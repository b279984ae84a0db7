//! Advertisements of processes.
//!
//! Workers advertise themselves so that edges can tell whether a message can be answered; edges, so that the sender of a
//! host's event knows when all of them have answered.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The bucket of advertisements, and the stream behind it.
pub const BUCKET: &str = "WORKERS";
pub const STREAM: &str = "KV_WORKERS";

/// A worker's advertisement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerAdvertisement {
    pub version: String,
    /// Organisations for which the worker has a gateway key; `*` = all.
    pub orgs: Vec<String>,
}

/// The bucket of edges, and the stream behind it.
pub const EDGES: &str = "EDGES";
pub const EDGES_STREAM: &str = "KV_EDGES";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeAdvertisement {
    pub version: String,
}

/// An edge's answer to a host's event: the number of connections that took the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PushReceipt {
    pub edge: Uuid,
    pub delivered: u64,
}
