//! The administrators' HTTP API, under `/admin` of every edge.
//!
//! - [`route`]: the table of routes, with the role that each needs.   - [`serve`]: from a request to its answer.
//! - [`answer`]: answers and refusals.   - [`forms`]: their JSON.   - [`openapi`]: the document of it all.
//! - [`audit`], [`conversations`], [`knowledge`], [`connectors`], [`settings`], [`publish`]: what the routes do.
//!
//! Invariant: a request is served for the organisation of its token and for no other; what another organisation has is as
//! what does not exist.

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

/// What the API stands on.
pub struct Admin {
    pub client: Client,
    pub log: NatsLog,
    /// What auditors are shown of it.
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
    /// Where a conversation's log is, or `None` when its id names no region of this deployment.
    fn key(&self, org: &str, conversation: Uuid) -> Option<ConversationKey> {
        let region = self.regions.name(ids::region_number(conversation)?)?;
        Some(ConversationKey { region: region.to_string(), org: org.to_string(), conversation })
    }
}
