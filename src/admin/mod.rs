//! The administrators' HTTP API, under `/admin` of every edge.
//!
//! - [`route`]: the table of routes, with the role that each needs.   - [`serve`]: from a request to its answer.
//! - [`response`]: answers and refusals.   - [`forms`]: their JSON.   - [`openapi`]: the API's OpenAPI document.
//! - [`audit`], [`conversations`], [`knowledge`], [`connectors`], [`settings`], [`publish`]: the handlers of the routes.
//!
//! Invariant: a request is served for the organisation of its token and for no other; data of another organisation counts
//! as missing.

mod audit;
mod connectors;
mod conversations;
pub mod forms;
mod knowledge;
pub mod openapi;
mod publish;
mod request;
mod response;
pub mod route;
mod serve;
mod settings;

use std::sync::Arc;

use uuid::Uuid;

pub use serve::routes;

use crate::{
    agents,
    auth::TokenVerifier,
    config::Regions,
    history::event_reader::EventReader,
    ids,
    knowledge::{KnowledgeStore, runs::RunLog},
    lists::ConversationLists,
    log::{conversations::Conversations, jetstream_log::NatsLog},
    nats::core::Client,
    subjects::ConversationKey,
};

/// The API's connections and stores.
pub struct AdminApi {
    pub client: Client,
    pub log: NatsLog,
    /// Decrypts the log for auditors.
    pub event_reader: EventReader,
    pub auth: Arc<TokenVerifier>,
    pub agents: agents::AgentStore,
    pub conversations: Conversations<NatsLog>,
    pub lists: ConversationLists,
    pub documents: KnowledgeStore,
    pub runs: RunLog,
    pub regions: Regions,
}

impl AdminApi {
    /// Returns the key of a conversation's log, or `None` if its id names no region of this deployment.
    fn key(&self, org: &str, conversation: Uuid) -> Option<ConversationKey> {
        let region = self.regions.name(ids::region_number(conversation)?)?;
        Some(ConversationKey { region: region.to_string(), org: org.to_string(), conversation })
    }
}
