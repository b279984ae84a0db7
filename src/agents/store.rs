//! The bucket of configurations: its versions, read and written.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use moka::sync::Cache;
use serde_json::json;

use super::config::AgentConfig;
use crate::{
    domain::event::AgentVersion,
    ids, limits,
    log::{
        AppendError, ReadError, Via,
        batch::Lasts,
        nats::{NatsLog, RawMessage},
    },
    subjects,
};

const BUCKET: &str = "AGENTS";
const STREAM: &str = "KV_AGENTS";
/// The header of a message that takes a configuration away, as every client of buckets writes it.
const OPERATION: &str = "KV-Operation";

/// Access to the versions of configurations.
#[derive(Clone)]
pub struct Store {
    log: NatsLog,
    /// Versions never change, so those that were read are kept.
    known: Cache<u64, Arc<AgentConfig>>,
}

/// Why a configuration was not written.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("somebody else changed it at the same moment; look at it and try again")]
    Changed,
    #[error("{0}")]
    Append(AppendError),
}

/// A message of the bucket.
pub struct Entry {
    pub org: String,
    pub agent: String,
    pub revision: u64,
    pub at: DateTime<Utc>,
    /// `None`: taken away.
    pub config: Option<Arc<AgentConfig>>,
}

impl Store {
    pub fn new(log: NatsLog) -> Self {
        Self { log, known: Cache::new(limits::AGENT_VERSIONS_CACHED) }
    }

    /// A version that a turn names. `None`: there is no such version of this agent.
    pub async fn version(&self, org: &str, version: &AgentVersion) -> Result<Option<Arc<AgentConfig>>, ReadError> {
        if let Some(config) = self.known.get(&version.revision) {
            return Ok(Some(config));
        }
        for via in [Via::Replica, Via::Leader] {
            let message = self.log.get(STREAM, &json!({ "seq": version.revision }), via).await?;
            let entry = message.and_then(|message| self.entry(&message));
            if let Some(entry) = entry.filter(|entry| entry.org == org && entry.agent == version.agent) {
                return Ok(entry.config);
            }
        }
        Ok(None)
    }

    /// The current entry of an agent.
    pub async fn get(&self, org: &str, agent: &str) -> Result<Option<Entry>, ReadError> {
        let subject = subjects::kv(BUCKET, &subjects::agent_key(org, agent));
        let message = self.log.get(STREAM, &json!({ "last_by_subj": subject }), Via::Leader).await?;
        Ok(message.and_then(|message| self.entry(&message)))
    }

    /// Writes a new version; returns its revision.
    pub async fn put(&self, org: &str, agent: &str, config: &AgentConfig) -> Result<u64, PutError> {
        let subject = subjects::kv(BUCKET, &subjects::agent_key(org, agent));
        let last = self.get(org, agent).await?.map_or(0, |entry| entry.revision);
        let payload = serde_json::to_vec(config).expect("a configuration is a map with string keys");
        let id = format!("agent-{}", ids::new_random());
        self.log.put_at(&subject, &id, &last.to_string(), payload.into()).await.map_err(|error| match error {
            AppendError::Conflict => PutError::Changed,
            error => PutError::Append(error),
        })
    }

    /// Takes a configuration away. Turns that run under a version of it go on.
    pub async fn delete(&self, org: &str, agent: &str) -> Result<(), PutError> {
        let subject = subjects::kv(BUCKET, &subjects::agent_key(org, agent));
        let id = format!("agent-{}", ids::new_random());
        self.log.put(&subject, &id, &[(OPERATION, "DEL")], "".into()).await.map_err(PutError::Append)
    }

    /// The next messages of the bucket after a sequence, in one request: where the last of them stands, and what they say. `None`:
    /// there are none.
    pub async fn after(&self, seq: u64) -> Result<Option<(u64, Vec<Entry>)>, ReadError> {
        let (messages, _) = self.log.next_of(STREAM, subjects::AGENTS_ALL, seq + 1).await?;
        let Some(last) = messages.last().map(|message| message.seq) else { return Ok(None) };
        Ok(Some((last, messages.iter().filter_map(|message| self.entry(message)).collect())))
    }

    /// The current configurations, without the versions before them, and the sequence up to which the bucket was read at least.
    pub async fn current(&self) -> Result<(u64, Vec<Entry>), ReadError> {
        // A replica of the bucket may lag behind, so the latest changes are read again.
        let recent = self.log.now() - TimeDelta::seconds(limits::AGENTS_LAG_SECS);
        let read_to = match self.log.first_since(STREAM, subjects::AGENTS_ALL, recent).await? {
            Some(first) => first.seq - 1,
            None => self.last().await?,
        };
        let mut messages = Vec::new();
        match self.log.last_of(STREAM, &[subjects::AGENTS_ALL.into()]).await? {
            Lasts::All(all) => messages = all,
            Lasts::TooMany => {
                let all = self.log.subjects_of(STREAM, subjects::AGENTS_ALL).await?;
                let take = |message| messages.push(message);
                self.log.last_of_many(STREAM, &all, limits::AGENTS_LOOKUP, take).await?;
            }
        }
        let mut entries = Vec::with_capacity(messages.len());
        for message in &messages {
            match self.entry(message) {
                Some(entry) => entries.push(entry),
                None => entries.extend(self.readable_before(message).await?),
            }
        }
        Ok((read_to, entries))
    }

    /// The newest version of an agent that can be read, where the last one can't.
    async fn readable_before(&self, last: &RawMessage) -> Result<Option<Entry>, ReadError> {
        if subjects::parse_agent(&last.subject).is_none() {
            return Ok(None);
        }
        let (mut found, mut from, mut more) = (None, 1, true);
        while more {
            let versions;
            (versions, more) = self.log.next_of(STREAM, &last.subject, from).await?;
            from = versions.last().map_or(from, |last| last.seq + 1);
            more &= !versions.is_empty();
            found = versions.iter().rev().find_map(|version| self.entry(version)).or(found);
        }
        Ok(found)
    }

    /// The sequence of the bucket's last message, 0 = there is none.
    pub async fn last(&self) -> Result<u64, ReadError> {
        let message = self.log.get(STREAM, &json!({ "last_by_subj": subjects::AGENTS_ALL }), Via::Leader).await?;
        Ok(message.map_or(0, |message| message.seq))
    }

    /// Every current entry, by organisation and agent.
    pub async fn list(&self) -> Result<Vec<Entry>, ReadError> {
        let (_, mut entries) = self.current().await?;
        entries.retain(|entry| entry.config.is_some());
        entries.sort_by(|a, b| (&a.org, &a.agent).cmp(&(&b.org, &b.agent)));
        Ok(entries)
    }

    /// What a message says; one that nobody can read is reported and says nothing.
    fn entry(&self, message: &RawMessage) -> Option<Entry> {
        let (org, agent) = subjects::parse_agent(&message.subject)?;
        let (revision, at) = (message.seq, message.stored_at);
        if message.headers.contains_key(OPERATION) {
            return Some(Entry { org, agent, revision, at, config: None });
        }
        let config = match serde_json::from_slice::<AgentConfig>(&message.payload) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                tracing::error!(%error, org, agent, revision, "a configuration can't be read; the one before it holds");
                return None;
            }
        };
        self.known.insert(revision, config.clone());
        Some(Entry { org, agent, revision, at, config: Some(config) })
    }
}
