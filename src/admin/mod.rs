//! The administrators' HTTP API, under `/admin` of every edge.
//!
//! - [`route`]: the table of routes, with the role that each needs.   - [`serve`]: from a request to its answer.
//! - [`answer`]: answers and refusals.   - [`forms`]: their JSON.   - [`openapi`]: the API's OpenAPI document.
//! - [`audit`], [`conversations`], [`knowledge`], [`connectors`], [`settings`], [`publish`]: the handlers of the routes.
//!
//! Invariant: a request is served for the organisation of its token and for no other; data of another organisation counts
//! as missing.

mod answer;
mod audit;
mod connectors;
mod conversations;
pub mod forms;
mod knowledge;
pub mod openapi;
mod publish;
pub mod route;
mod serve;
mod settings;

use std::sync::Arc;

use async_nats::Client;
use uuid::Uuid;

pub use serve::routes;

use crate::{
    agents,
    audit::open::Opener,
    auth::Verifier,
    config::Regions,
    ids,
    knowledge::{Store, runs::Runs},
    lists::Lists,
    log::{load::Conversations, nats::NatsLog},
    subjects::ConversationKey,
};

/// The API's connections and stores.
pub struct Admin {
    pub client: Client,
    pub log: NatsLog,
    /// Decrypts the log for auditors.
    pub opener: Opener,
    pub auth: Arc<Verifier>,
    pub agents: agents::Store,
    pub conversations: Conversations<NatsLog>,
    pub lists: Lists,
    pub documents: Store,
    pub runs: Runs,
    pub regions: Regions,
}

impl Admin {
    /// Returns the key of a conversation's log, or `None` if its id names no region of this deployment.
    fn key(&self, org: &str, conversation: Uuid) -> Option<ConversationKey> {
        let region = self.regions.name(ids::region_number(conversation)?)?;
        Some(ConversationKey { region: region.to_string(), org: org.to_string(), conversation })
    }
}
