//! The edge: client connections, their actions, and the frames of the turns that they watch.
//!
//! An edge has sockets, subscriptions and caches, and no state that another edge could not rebuild from the log.
//!
//! - [`transport`]: from a socket to whole messages.   - [`connection`]: the loop of a client.   - [`client`]: its state.
//! - [`actions`]: one file an action.   - [`delivery`]: frames and events to clients.   - [`ending`]: ends turns from outside.
//! - [`policy`]: rights and limits.   - [`directory`]: sessions, workers, skills.
//! - [`visitors`]: widgets' requests over plain HTTP.   - [`mcp`]: agents as tools.
//! - [`pages`]: the chat page, the auditors' page, the widget.
//!
//! Invariant: this room never imports `worker` or `model`.

pub mod actions;
pub mod client;
pub mod connection;
pub mod delivery;
pub mod directory;
mod ending;
mod mcp;
mod pages;
pub mod policy;
pub mod transport;
mod visitors;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::TimeDelta;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    agents::CurrentAgents,
    auth::{TokenVerifier, widget::WidgetGate},
    calls::ServiceCaller,
    config::{AccessConfig, Quotas, Regions},
    fetch::FetchPolicy,
    ids, limits,
    lists::{ConversationLists, indexer::ListIndex},
    live::hub::Hub,
    log::{
        conversations::{Conversations, EventAuthor},
        jetstream_log::NatsLog,
        objects::ObjectStore,
    },
    nats::{core::Client, presence::PresenceEntry},
    otp::{allowance::OtpAllowance, challenge::OtpChallenges},
    subjects::{self, ConversationKey},
    wire::presence::{EDGES, EdgeAdvertisement},
};

#[derive(Clone)]
pub struct EdgeSettings {
    pub regions: Regions,
    pub pool: String,
    pub agent_name: String,
    pub quotas: Quotas,
    /// The time that a turn may stand still before it is given up.
    pub turn_limit: Duration,
    pub skills: directory::skills::SkillFolder,
    /// Calls the host's services for one-time passwords.
    pub passwords: ServiceCaller,
    pub access: AccessConfig,
    /// True if the edge is reachable from its own machine only.
    pub is_loopback: bool,
    /// The default model of turns, which messages may name.
    pub model: String,
    /// The policy on addresses that the URLs of attachments may lead to.
    pub fetch: FetchPolicy,
}

/// The shared parts of an edge process.
pub struct Edge {
    pub(crate) id: Uuid,
    pub(crate) client: Client,
    pub(crate) conversations: Conversations<NatsLog>,
    pub(crate) sessions: directory::sessions::SessionDirectory,
    pub(crate) lists: ConversationLists,
    pub(crate) hub: Hub,
    pub(crate) objects: ObjectStore,
    /// Memory for unfinished frames.
    pub(crate) rooms: transport::frame_limiter::FrameMemory,
    pub(crate) workers: directory::worker_availability::WorkerDirectory,
    pub(crate) pushes: delivery::push::PushRegistry,
    pub(crate) auth: Arc<TokenVerifier>,
    pub(crate) agents: CurrentAgents,
    pub(crate) widgets: WidgetGate,
    pub(crate) quota: policy::quota::QuotaCounter,
    pub(crate) challenges: OtpChallenges,
    pub(crate) log: NatsLog,
    pub(crate) settings: EdgeSettings,
    /// Cancelled when the edge begins to stop: a connection closes with 1012 when no turn runs on it.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the edge stops: every connection then closes with 1012.
    pub(crate) shutdown: CancellationToken,
    pub(crate) connections: TaskTracker,
}

impl Edge {
    pub fn new(
        log: NatsLog,
        auth: Arc<TokenVerifier>,
        widgets: WidgetGate,
        agents: CurrentAgents,
        settings: EdgeSettings,
        shutdown: CancellationToken,
    ) -> Self {
        let client = log.client();
        let id = ids::new_random();
        let allowance = OtpAllowance { address: settings.quotas.address_codes, org: settings.quotas.org_codes.clone() };
        Self {
            challenges: OtpChallenges::new(log.clone(), settings.passwords.clone(), allowance),
            id,
            quota: policy::quota::QuotaCounter::new(settings.quotas.clone(), log.clone(), id),
            conversations: Conversations::over_nats(log.clone()),
            lists: ConversationLists::new(log.clone()),
            objects: ObjectStore::new(log.clone()),
            rooms: transport::frame_limiter::FrameMemory::default(),
            sessions: directory::sessions::SessionDirectory::new(log.clone(), settings.regions.clone()),
            hub: Hub::new(client.clone()),
            workers: directory::worker_availability::WorkerDirectory::default(),
            agents,
            pushes: delivery::push::PushRegistry::default(),
            auth,
            widgets,
            log: log.clone(),
            client,
            settings,
            draining: CancellationToken::new(),
            shutdown,
            connections: TaskTracker::new(),
        }
    }

    /// Tells the index that a conversation has gained an owner. Otherwise the index learns it when the next turn ends.
    pub(crate) fn list_under_owner(&self, key: &ConversationKey, seq: u64) {
        let (index, key) =
            (ListIndex { log: self.log.clone(), conversations: self.conversations.clone() }, key.clone());
        tokio::spawn(async move {
            if let Err(error) = index.update(&key, seq).await {
                tracing::debug!(%error, conversation = %key.conversation, "the index learns the owner only when the next turn ends");
            }
        });
    }

    /// Drops erased conversations from the caches while the process runs.
    pub async fn forget_erased(self: Arc<Self>) {
        let (conversations, sessions) = (self.conversations.clone(), self.clone());
        let forget = move |conversation| {
            conversations.forget(conversation);
            sessions.sessions.forget(conversation);
        };
        self.log.forget_erased(&self.settings.regions.home, forget).await;
    }

    /// Ends turns that no worker takes, watched or not.
    pub async fn end_abandoned(self: Arc<Self>) {
        ending::abandoned::AbandonedSweep::default().run(&self).await;
    }

    /// Returns this edge's presence.
    pub(crate) fn presence(&self) -> PresenceEntry {
        let advertisement = EdgeAdvertisement { version: env!("CARGO_PKG_VERSION").into() };
        let payload = serde_json::to_vec(&advertisement).expect("an advertisement is a map with string keys");
        let subject = subjects::kv(EDGES, &subjects::edge_key(&self.settings.regions.home, self.id));
        let payload = Bytes::from(payload);
        PresenceEntry {
            jetstream: self.log.jetstream(),
            process: self.id,
            subject,
            payload: Box::new(move || payload.clone()),
        }
    }

    /// Saves a conversation's snapshot where its fold has grown by some events.
    ///
    /// Otherwise sessions that are opened and never request a turn would be read one by one, again and again.
    pub(crate) fn save_fold(&self, key: &ConversationKey) {
        let (conversations, key) = (self.conversations.clone(), key.clone());
        tokio::spawn(async move { conversations.save_snapshot(&key).await });
    }

    /// Returns the key of a conversation's log, or `None` if its id names no region of this deployment.
    pub(crate) fn key(&self, org: &str, conversation: Uuid) -> Option<ConversationKey> {
        let region = self.settings.regions.name(ids::region_number(conversation)?)?;
        Some(ConversationKey { region: region.to_string(), org: org.to_string(), conversation })
    }

    /// Returns the author of a new decision, for a client that waits for the answer.
    pub(crate) fn author(&self) -> EventAuthor {
        self.author_with_id(ids::event_id(ids::new_random(), 0))
    }

    /// Returns the author of a decision with an event id that the caller derives.
    pub(crate) fn author_with_id(&self, event_id: String) -> EventAuthor {
        let not_after = Some(self.log.now() + TimeDelta::milliseconds(limits::ACT_NOT_AFTER_MS));
        EventAuthor {
            source: format!("turnstream/{}/edge/{}", self.settings.regions.home, self.id),
            event_id,
            not_after,
        }
    }
}
