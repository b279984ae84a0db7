//! The current configurations, followed by every edge.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, RwLock},
    time::Duration,
};

use super::{
    DEFAULT,
    config::{AgentConfig, AgentWidgetPolicy},
    store::{AgentEntry, AgentStore},
};
use crate::{domain::event::AgentVersion, limits, nats::ReadError};

/// Polls between two checks that the bucket is still the same one.
const CHECK_EVERY: u32 = 20;

/// The current configurations of all agents.
#[derive(Clone)]
pub struct CurrentAgents {
    store: AgentStore,
    current: Arc<RwLock<CurrentVersion>>,
}

#[derive(Default)]
struct CurrentVersion {
    /// Revision and configuration, by organisation and agent.
    entries: HashMap<(String, String), (u64, Arc<AgentConfig>)>,
    /// Organisations with a widget policy, by agent name and revision.
    widgets: HashMap<String, BTreeMap<u64, String>>,
    read_to: u64,
    /// The configurations current at start have been read.
    has_begun: bool,
}

impl CurrentAgents {
    pub fn new(store: AgentStore) -> Self {
        Self { store, current: Arc::default() }
    }

    /// Returns the effective configuration of an agent: its own, or its organisation's default.
    pub fn find(&self, org: &str, agent: &str) -> Option<(AgentVersion, Arc<AgentConfig>)> {
        let known = self.current.read().expect("no panic happens under this lock");
        [agent, DEFAULT].into_iter().find_map(|name| {
            let (revision, config) = known.entries.get(&(org.to_string(), name.to_string()))?;
            Some((AgentVersion { agent: name.to_string(), revision: *revision }, config.clone()))
        })
    }

    /// Returns the widget policy of this agent, and its organisation.
    ///
    /// A visitor names only the agent, so of several organisations' policies for one name the oldest counts;
    /// `turnstream agent put` refuses a second one.
    pub fn widget(&self, agent: &str) -> Option<(String, AgentWidgetPolicy)> {
        let known = self.current.read().expect("no panic happens under this lock");
        let (_, org) = known.widgets.get(agent)?.first_key_value()?;
        let (_, config) = known.entries.get(&(org.clone(), agent.to_string()))?;
        Some((org.clone(), config.widget.clone()?))
    }

    /// Returns the pools named by agents' configurations.
    pub fn pools(&self) -> BTreeSet<String> {
        let known = self.current.read().expect("no panic happens under this lock");
        known.entries.values().filter_map(|(_, config)| config.pool.clone()).collect()
    }

    /// Returns the configured agents of an organisation, by name.
    pub fn of(&self, org: &str) -> BTreeMap<String, Arc<AgentConfig>> {
        let known = self.current.read().expect("no panic happens under this lock");
        let of_org = known.entries.iter().filter(|((known, _), _)| known == org);
        of_org.map(|((_, agent), (_, config))| (agent.clone(), config.clone())).collect()
    }

    /// Returns the names of the agents with a widget policy, of any organisation.
    pub fn with_widgets(&self) -> Vec<String> {
        self.current.read().expect("no panic happens under this lock").widgets.keys().cloned().collect()
    }

    /// Returns whether any agent has a widget policy.
    pub fn have_widgets(&self) -> bool {
        !self.current.read().expect("no panic happens under this lock").widgets.is_empty()
    }

    /// Catches up with the bucket: first the current versions, without earlier ones.
    pub async fn catch_up(&self) -> Result<(), ReadError> {
        let has_begun = self.current.read().expect("no panic happens under this lock").has_begun;
        if !has_begun {
            let (seq, entries) = self.store.current().await?;
            tracing::info!(agents = entries.len(), "agents' configurations");
            self.take(seq, entries);
        }
        loop {
            let read_to = self.current.read().expect("no panic happens under this lock").read_to;
            let Some((seq, mut entries)) = self.store.after(read_to).await? else { return Ok(()) };
            {
                let known = self.current.read().expect("no panic happens under this lock");
                entries.retain(|entry| !known.has(entry));
            }
            for AgentEntry { org, agent, revision, config, .. } in &entries {
                tracing::info!(org, agent, revision, removed = config.is_none(), "an agent configuration changed");
            }
            self.take(seq, entries);
        }
    }

    /// Keeps the configurations current until the future is dropped.
    ///
    /// Polls several times a second, with one small request and without a consumer; at intervals it checks whether the
    /// bucket was recreated.
    pub async fn follow(self) {
        for round in 0u32.. {
            tokio::time::sleep(Duration::from_millis(limits::AGENTS_EVERY_MS)).await;
            let looked = async {
                if round % CHECK_EVERY == 0 {
                    self.begin_again_if_made_anew().await?;
                }
                self.catch_up().await
            };
            if let Err(error) = looked.await {
                tracing::warn!(%error, "agent configurations can't be read; the loaded ones stay in force");
            }
        }
    }

    async fn begin_again_if_made_anew(&self) -> Result<(), ReadError> {
        let last = self.store.last().await?;
        let mut known = self.current.write().expect("no panic happens under this lock");
        if last < known.read_to {
            tracing::warn!("the agents bucket was recreated; reading it from the start");
            *known = CurrentVersion::default();
        }
        Ok(())
    }

    fn take(&self, seq: u64, entries: Vec<AgentEntry>) {
        let mut known = self.current.write().expect("no panic happens under this lock");
        (known.read_to, known.has_begun) = (seq, true);
        entries.into_iter().for_each(|entry| known.take(entry));
    }
}

impl CurrentVersion {
    /// Returns whether this version of an agent, or a later one, is known.
    fn has(&self, entry: &AgentEntry) -> bool {
        let known = self.entries.get(&(entry.org.clone(), entry.agent.clone()));
        known.is_some_and(|(revision, _)| *revision >= entry.revision)
    }

    fn take(&mut self, AgentEntry { org, agent, revision, config, .. }: AgentEntry) {
        let widgets = self.widgets.entry(agent.clone()).or_default();
        widgets.retain(|_, other| *other != org);
        if config.as_ref().is_some_and(|config| config.widget.is_some()) {
            widgets.insert(revision, org.clone());
        }
        if widgets.is_empty() {
            self.widgets.remove(&agent);
        }
        match config {
            Some(config) => self.entries.insert((org, agent), (revision, config)),
            None => self.entries.remove(&(org, agent)),
        };
    }
}
