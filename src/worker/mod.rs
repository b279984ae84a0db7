//! The worker: takes work items, drives turns, lets go of them.
//!
//! A worker has no state of its own. For every item it loads the log, asks the core what the next step is, does it, appends
//! what happened and asks again, until the turn is over, parked or somebody else's.
//!
//! - [`consumer`]: finds work items and due deadlines.
//! - [`run`]: one item from claim to exit; the steps are in [`model_step`], [`tool_step`], [`wait_step`], [`auth_step`] and
//!   [`end_step`].
//! - [`lease`]: how long a delivered item is this worker's.
//! - [`gateways`]: which key is used for whom.   - [`profile`]: what holds for a turn.   - [`prompt`]: what the model is given.
//! - [`attachments`]: pictures that came with the message.   - [`title`]: names a conversation after its first turn.
//! - [`suggested`]: suggested replies, cut out of the text.   - [`side`]: small questions to a model.
//! - [`presence`]: says that this worker is there.
//!
//! Invariant: this room never imports `edge`.

mod attachments;
mod auth_step;
pub mod consumer;
mod end_step;
pub mod gateways;
mod history;
mod lease;
mod model_step;
pub mod presence;
mod profile;
mod prompt;
mod run;
mod side;
mod suggested;
mod title;
mod tool_step;
mod wait_step;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::Client;
use futures_util::StreamExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use gateways::Gateways;

use crate::{
    agents,
    calls::Caller,
    ids,
    knowledge::Retrieve,
    limits,
    lists::keep::{Index, Keeper},
    log::{bus::soon, load::Conversations, nats::NatsLog, objects::Objects},
    otp::{allowance::Allowance, challenge::Challenges},
    subjects,
    tools::{self, Registry},
};

/// What a worker is told by configuration.
#[derive(Clone)]
pub struct Settings {
    pub region: String,
    pub pool: String,
    pub model: String,
    /// The model that names conversations; without one their first message does.
    pub title_model: Option<String>,
    pub max_iterations: u32,
    pub max_tokens: u32,
    pub human_wait_secs: u32,
    /// How long a turn may go without progress, and how long it may take in all; waits for people count only in the latter.
    pub turn_limit_secs: u32,
    pub turn_cap_secs: u32,
    /// Lower-cased parts of tool names that wait for approval.
    pub confirm_tools: Vec<String>,
    /// Lower-cased parts of names of tools that are called only for those whom the agent's configuration demands; `*` = all.
    pub auth_tools: Vec<String>,
    pub preamble_model: Option<String>,
    pub judge_model: Option<String>,
    pub builtins: tools::Builtins,
    /// Whether somebody limits the tokens of organisations.
    pub counts_tokens: bool,
    /// Whether somebody limits the turns of organisations.
    pub counts_turns: bool,
    pub mcp: tools::Mcp,
    /// Call the tools, and the host's services for one-time passwords.
    pub tools: Caller,
    pub passwords: Caller,
    /// How many one-time passwords may be sent.
    pub codes: Allowance,
}

/// A worker process's shared parts.
pub struct Worker {
    pub(crate) id: Uuid,
    pub(crate) client: Client,
    pub(crate) log: NatsLog,
    pub(crate) conversations: Conversations<NatsLog>,
    pub(crate) objects: Objects,
    /// Room for pictures on their way to the model, in bytes.
    images: Arc<Semaphore>,
    pub(crate) tools: Registry,
    pub(crate) agents: agents::Store,
    pub(crate) knowledge: Arc<dyn Retrieve>,
    pub(crate) challenges: Challenges,
    /// Without a key for an organisation this worker fails its turns, and advertises that it can't answer them.
    pub(crate) gateways: Gateways,
    pub(crate) settings: Settings,
    /// Who to wake when a conversation's log should be looked at.
    stops: Mutex<HashMap<Uuid, Arc<Notify>>>,
    /// Whether the pull consumer answered last.
    pulling: AtomicBool,
}

impl Worker {
    pub fn new(log: NatsLog, knowledge: Arc<dyn Retrieve>, gateways: Gateways, settings: Settings) -> Self {
        let client = log.client();
        Self {
            id: ids::new_random(),
            tools: Registry::new(
                settings.tools.clone(),
                knowledge.clone(),
                settings.builtins.clone(),
                settings.mcp.clone(),
            ),
            conversations: Conversations::over_nats(log.clone()),
            objects: Objects::new(log.clone()),
            images: Arc::new(Semaphore::new(limits::IMAGES_BYTES)),
            agents: agents::Store::new(log.clone()),
            challenges: Challenges::new(log.clone(), settings.passwords.clone(), settings.codes.clone()),
            log,
            client,
            knowledge,
            gateways,
            settings,
            stops: Mutex::default(),
            pulling: AtomicBool::new(false),
        }
    }

    /// Runs until `shutdown`; then lets running turns finish for a while and hands the rest over.
    ///
    /// (1) Find the tools that are there; (2) advertise, look for tools, listen for stop hints, pull items and deadlines;
    /// (3) on shutdown stop pulling and advertising; (4) wait for the turns; (5) give back what still runs, for another
    /// worker to take at once; (6) end the MCP servers.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let turns = TaskTracker::new();
        let hand_over = CancellationToken::new();
        let side = TaskTracker::new();
        // Servers stay until the turns that may call them are over.
        let stop_mcp = CancellationToken::new();
        side.spawn(self.settings.mcp.clone().run(stop_mcp.clone()));
        side.spawn(stop_mcp.clone().run_until_cancelled_owned(self.tools.clone().lend()));
        match tools::discovery::Discovery::new(self.client.clone()).await {
            Ok(mut discovery) => {
                self.tools.set_discovered(discovery.first().await.tools);
                let run = tools::discovery::run(self.tools.clone(), discovery);
                side.spawn(shutdown.clone().run_until_cancelled_owned(run));
            }
            Err(error) => tracing::error!(error, "tools of NATS services can't be found"),
        }
        shutdown.run_until_cancelled(self.settings.mcp.first()).await;
        side.spawn(shutdown.clone().run_until_cancelled_owned(listen_for_stops(self.clone())));
        let (log, conversations) = (self.log.clone(), self.conversations.clone());
        let region = self.settings.region.clone();
        let forget = async move { log.forget_erased(&region, |conversation| conversations.forget(conversation)).await };
        side.spawn(shutdown.clone().run_until_cancelled_owned(forget));
        side.spawn(shutdown.clone().run_until_cancelled_owned(consumer::pull_deadlines(self.clone())));
        side.spawn(shutdown.clone().run_until_cancelled_owned(self.keeper().run()));
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
            tracing::warn!(turns = turns.len(), "some turns could not be handed over in time; their items come again");
        }
        if let Err(error) = soon(self.client.flush()).await {
            tracing::warn!(error, "the last messages may not have reached NATS");
        }
    }

    /// Keeps the index of conversations current.
    fn keeper(&self) -> Keeper {
        Keeper {
            client: self.client.clone(),
            index: Index { log: self.log.clone(), conversations: self.conversations.clone() },
            region: self.settings.region.clone(),
            counts_tokens: self.settings.counts_tokens,
        }
    }

    /// Whether work can arrive.
    pub fn is_pulling(&self) -> bool {
        self.pulling.load(Ordering::Relaxed)
    }

    fn source(&self) -> String {
        format!("turnstream/{}/worker/{}", self.settings.region, self.id)
    }

    /// Registers a running turn for stop hints. The newest of two runs of one conversation gets them; the older one looks
    /// at the log at its next tick.
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

/// Wakes running turns at stop hints. Hints are only hints: a turn looks at the log at every tick anyway.
async fn listen_for_stops(worker: Arc<Worker>) {
    let mut hints = match soon(worker.client.subscribe(subjects::stop_all(&worker.settings.region))).await {
        Ok(hints) => hints,
        Err(error) => return tracing::error!(error, "no stop hints; cancels take effect at the next look at the log"),
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
