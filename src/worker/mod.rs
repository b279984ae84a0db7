//! The worker: takes work items, drives turns, releases them.
//!
//! A worker has no state of its own. For every item it loads the log, asks the core for the next step, takes it, appends
//! the result and asks again, until the turn is over, parked or another worker's.
//!
//! - [`consumer`]: finds work items and due deadlines.
//! - [`run`]: one item from claim to exit ([`exit`]); the steps are in [`model_step`], [`tool_step`], [`auth_step`] and [`end_step`].
//! - [`turn_run`]: recording and showing a turn.
//! - [`lease`]: the time for which a delivered item is this worker's.
//! - [`gateways`]: the gateway key of an organisation.
//! - [`profile`]: the settings of a turn.
//! - [`prompt`]: the model request.
//! - [`agent_step`]: a step that another program answers.
//! - [`attachments`]: the message's pictures.
//! - [`title`]: names a conversation after its first turn.
//! - [`reply_extractor`]: suggested replies, extracted from the text.
//! - [`side_calls`]: side requests to a model.
//! - [`presence`]: advertises this worker.
//!
//! Invariant: this room never imports `edge`.

mod agent_step;
mod attachments;
mod auth_step;
pub mod consumer;
pub mod deadline;
mod end_step;
mod exit;
pub mod gateways;
mod history;
mod lease;
mod model_answer;
mod model_step;
mod open_task;
pub mod presence;
mod profile;
mod prompt;
mod reply_extractor;
mod run;
mod side_calls;
mod title;
mod tool_step;
mod turn_run;
mod wait_step;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use gateways::OrgGateways;

use crate::{
    agents,
    calls::ServiceCaller,
    host::AgentHost,
    ids,
    knowledge::Retriever,
    limits,
    lists::indexer::{ListIndex, ListIndexer},
    log::{conversations::Conversations, jetstream_log::NatsLog, objects::ObjectStore},
    metrics::metrics,
    nats::{connection::soon, core::Client},
    otp::{allowance::OtpAllowance, challenge::OtpChallenges},
    subjects,
    tools::{self, ToolRegistry},
};

/// The worker's configuration.
#[derive(Clone)]
pub struct WorkerSettings {
    pub region: String,
    pub pool: String,
    pub model: String,
    /// The program that answers in the model's place.
    pub agent: Option<AgentHost>,
    /// The model that names conversations; `None`: the first message is the title.
    pub title_model: Option<String>,
    pub max_iterations: u32,
    pub max_tokens: u32,
    pub human_wait_secs: u32,
    /// Turns that this worker drives at a time.
    pub turns_max: u32,
    /// Limits of a turn without progress, and of a turn in all; waits for people count only in the latter.
    pub turn_limit_secs: u32,
    pub turn_cap_secs: u32,
    /// Lower-cased parts of names of tools that wait for approval.
    pub confirm_tools: Vec<String>,
    /// Lower-cased parts of names of tools that require the identity demanded by the agent's configuration; `*` = all.
    pub auth_tools: Vec<String>,
    pub preamble_model: Option<String>,
    pub judge_model: Option<String>,
    pub builtins: tools::Builtins,
    /// Organisations' tokens are limited, so they are counted.
    pub counts_tokens: bool,
    /// Organisations' concurrent turns are limited, so they are counted.
    pub counts_turns: bool,
    pub mcp: tools::McpTools,
    /// Callers of the tools, and of the hosts' services for one-time passwords.
    pub tools: ServiceCaller,
    pub passwords: ServiceCaller,
    /// Limits of one-time passwords.
    pub codes: OtpAllowance,
}

/// The shared parts of a worker process.
pub struct Worker {
    pub(crate) id: Uuid,
    pub(crate) client: Client,
    pub(crate) log: NatsLog,
    pub(crate) conversations: Conversations<NatsLog>,
    pub(crate) objects: ObjectStore,
    /// Memory permits, in bytes, for pictures on their way to the model.
    images: Arc<Semaphore>,
    pub(crate) tools: ToolRegistry,
    pub(crate) agents: agents::AgentStore,
    pub(crate) knowledge: Arc<dyn Retriever>,
    pub(crate) challenges: OtpChallenges,
    /// Without a key for an organisation this worker fails its turns, and advertises that it can't answer them.
    pub(crate) gateways: OrgGateways,
    pub(crate) settings: WorkerSettings,
    /// Wakes the run of a conversation to check the log.
    stops: Mutex<HashMap<Uuid, Arc<Notify>>>,
    /// The pull consumer's last answer was a success.
    pulling: AtomicBool,
}

impl Worker {
    pub fn new(log: NatsLog, knowledge: Arc<dyn Retriever>, gateways: OrgGateways, settings: WorkerSettings) -> Self {
        let client = log.client();
        Self {
            id: ids::new_random(),
            tools: ToolRegistry::new(
                settings.tools.clone(),
                knowledge.clone(),
                settings.builtins.clone(),
                settings.mcp.clone(),
            ),
            conversations: Conversations::over_nats(log.clone()),
            objects: ObjectStore::new(log.clone()),
            images: Arc::new(Semaphore::new(limits::IMAGES_BYTES)),
            agents: agents::AgentStore::new(log.clone()),
            challenges: OtpChallenges::new(log.clone(), settings.passwords.clone(), settings.codes.clone()),
            log,
            client,
            knowledge,
            gateways,
            settings,
            stops: Mutex::default(),
            pulling: AtomicBool::new(false),
        }
    }

    /// Runs until `shutdown`; then gives running turns time to finish and releases the rest.
    ///
    /// (1) Discover the tools; (2) advertise, poll for tools, subscribe to stop hints, pull items and deadlines; (3) on
    /// shutdown stop pulling and advertising; (4) wait for the turns; (5) release the turns that still run, for another
    /// worker to claim at once; (6) end the MCP servers.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let turns = TaskTracker::new();
        let hand_over = CancellationToken::new();
        let side = TaskTracker::new();
        // MCP servers outlive the turns that may call them.
        let stop_mcp = CancellationToken::new();
        side.spawn(self.settings.mcp.clone().run(stop_mcp.clone()));
        side.spawn(stop_mcp.clone().run_until_cancelled_owned(self.tools.clone().lend()));
        match tools::discovery::ToolDiscovery::new(self.client.clone()).await {
            Ok(mut discovery) => {
                self.tools.set_discovered(discovery.first().await.tools);
                let run = tools::discovery::run(self.tools.clone(), discovery);
                side.spawn(shutdown.clone().run_until_cancelled_owned(run));
            }
            Err(error) => tracing::error!(error, "tool discovery failed; tools of NATS services are not offered"),
        }
        shutdown.run_until_cancelled(self.settings.mcp.first()).await;
        side.spawn(shutdown.clone().run_until_cancelled_owned(listen_for_stops(self.clone())));
        let (log, conversations) = (self.log.clone(), self.conversations.clone());
        let region = self.settings.region.clone();
        let forget = async move { log.forget_erased(&region, |conversation| conversations.forget(conversation)).await };
        side.spawn(shutdown.clone().run_until_cancelled_owned(forget));
        side.spawn(shutdown.clone().run_until_cancelled_owned(consumer::pull_deadlines(self.clone())));
        side.spawn(shutdown.clone().run_until_cancelled_owned(self.indexer().run()));
        side.spawn(presence::advertise(self.clone(), shutdown.clone()));
        side.close();
        consumer::pull_items(self.clone(), shutdown, &turns, &hand_over).await;
        turns.close();
        if tokio::time::timeout(Duration::from_millis(limits::WORKER_DRAIN_MS), turns.wait()).await.is_err() {
            tracing::info!(turns = turns.len(), "handing over running turns");
            hand_over.cancel();
        }
        let ended = async {
            turns.wait().await;
            stop_mcp.cancel();
            side.wait().await;
        };
        if tokio::time::timeout(Duration::from_millis(limits::WORKER_END_MS), ended).await.is_err() {
            tracing::warn!(
                turns = turns.len(),
                "some turns could not be handed over in time; their work items are redelivered"
            );
        }
        if let Err(error) = soon(self.client.flush()).await {
            tracing::warn!(error, "the last messages may not have reached NATS");
        }
    }

    /// Returns the indexer of conversations.
    fn indexer(&self) -> ListIndexer {
        ListIndexer {
            client: self.client.clone(),
            index: ListIndex { log: self.log.clone(), conversations: self.conversations.clone() },
            region: self.settings.region.clone(),
            counts_tokens: self.settings.counts_tokens,
        }
    }

    fn set_pulling(&self, is_pulling: bool) {
        self.pulling.store(is_pulling, Ordering::Relaxed);
        metrics().work.pulls(is_pulling);
    }

    /// Returns whether work can arrive.
    pub fn is_pulling(&self) -> bool {
        self.pulling.load(Ordering::Relaxed)
    }

    fn source(&self) -> String {
        format!("turnstream/{}/worker/{}", self.settings.region, self.id)
    }

    /// Registers a running turn for stop hints.
    ///
    /// The newest of two runs of one conversation gets them; the older run checks the log at its next tick.
    fn watch_stops(&self, conversation: Uuid) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.stops.lock().expect("no panic happens under this lock").insert(conversation, notify.clone());
        notify
    }

    fn unwatch_stops(&self, conversation: Uuid, notify: &Arc<Notify>) {
        let mut stops = self.stops.lock().expect("no panic happens under this lock");
        if stops.get(&conversation).is_some_and(|current| Arc::ptr_eq(current, notify)) {
            stops.remove(&conversation);
        }
    }
}

/// Wakes running turns at stop hints. A lost hint is harmless: a turn checks the log at every tick anyway.
async fn listen_for_stops(worker: Arc<Worker>) {
    let mut hints = match soon(worker.client.subscribe(subjects::stop_all(&worker.settings.region))).await {
        Ok(hints) => hints,
        Err(error) => return tracing::error!(error, "no stop hints; cancels take effect at the next read of the log"),
    };
    while let Some(hint) = hints.next().await {
        if let Some(conversation) = subjects::parse_stop(&hint.subject) {
            let stops = worker.stops.lock().expect("no panic happens under this lock");
            if let Some(notify) = stops.get(&conversation) {
                notify.notify_one();
            }
        }
    }
}
