//! Reads and writes the versions in the bucket of configurations.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use moka::sync::Cache;
use serde_json::json;

use super::config::AgentConfig;
use crate::{
    domain::event::AgentVersion,
    ids, limits,
    log::jetstream_log::NatsLog,
    nats::{AppendError, ReadError, ReadFrom, direct_get::LastMessages, jetstream::RawMessage},
    subjects,
};

const BUCKET: &str = "AGENTS";
const STREAM: &str = "KV_AGENTS";
/// The header of a message that deletes a configuration, as written by every KV client.
const OPERATION: &str = "KV-Operation";

/// Access to the versions of configurations.
#[derive(Clone)]
pub struct AgentStore {
    log: NatsLog,
    /// Cache of versions, which never change.
    known: Cache<u64, Arc<AgentConfig>>,
}

/// The reason why a configuration was not written.
#[derive(Debug, thiserror::Error)]
pub enum AgentPutError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("the configuration was changed concurrently; read it again and retry")]
    Changed,
    #[error("{0}")]
    Append(AppendError),
}

/// A message of the bucket.
pub struct AgentEntry {
    pub org: String,
    pub agent: String,
    pub revision: u64,
    pub at: DateTime<Utc>,
    /// `None`: deleted.
    pub config: Option<Arc<AgentConfig>>,
}

impl AgentStore {
    pub fn new(log: NatsLog) -> Self {
        Self { log, known: Cache::new(limits::AGENT_VERSIONS_CACHED) }
    }

    /// Returns a version that a turn names. `None`: this agent has no such version.
    pub async fn version(&self, org: &str, version: &AgentVersion) -> Result<Option<Arc<AgentConfig>>, ReadError> {
        if let Some(config) = self.known.get(&version.revision) {
            return Ok(Some(config));
        }
        for via in [ReadFrom::Replica, ReadFrom::Leader] {
            let message = self.log.get(STREAM, &json!({ "seq": version.revision }), via).await?;
            let entry = message.and_then(|message| self.entry(&message));
            if let Some(entry) = entry.filter(|entry| entry.org == org && entry.agent == version.agent) {
                return Ok(entry.config);
            }
        }
        Ok(None)
    }

    /// Returns the current entry of an agent.
    pub async fn get(&self, org: &str, agent: &str) -> Result<Option<AgentEntry>, ReadError> {
        let subject = subjects::kv(BUCKET, &subjects::agent_key(org, agent));
        let message = self.log.get(STREAM, &json!({ "last_by_subj": subject }), ReadFrom::Leader).await?;
        Ok(message.and_then(|message| self.entry(&message)))
    }

    /// Writes a new version; returns its revision.
    pub async fn put(&self, org: &str, agent: &str, config: &AgentConfig) -> Result<u64, AgentPutError> {
        let subject = subjects::kv(BUCKET, &subjects::agent_key(org, agent));
        let last = self.get(org, agent).await?.map_or(0, |entry| entry.revision);
        let payload = serde_json::to_vec(config).expect("a configuration is a map with string keys");
        let id = format!("agent-{}", ids::new_random());
        self.log.put_at(&subject, &id, &last.to_string(), payload.into()).await.map_err(|error| match error {
            AppendError::Conflict => AgentPutError::Changed,
            error => AgentPutError::Append(error),
        })
    }

    /// Deletes a configuration. Turns that run under a version of it continue.
    pub async fn delete(&self, org: &str, agent: &str) -> Result<(), AgentPutError> {
        let subject = subjects::kv(BUCKET, &subjects::agent_key(org, agent));
        let id = format!("agent-{}", ids::new_random());
        self.log.put(&subject, &id, &[(OPERATION, "DEL")], "".into()).await.map_err(AgentPutError::Append)
    }

    /// Returns the next messages of the bucket after a sequence, in one request: the sequence of the last one, and the
    /// entries.
    ///
    /// `None`: no newer message.
    pub async fn after(&self, seq: u64) -> Result<Option<(u64, Vec<AgentEntry>)>, ReadError> {
        let (messages, _) = self.log.next_of(STREAM, subjects::AGENTS_ALL, seq + 1).await?;
        let Some(last) = messages.last().map(|message| message.seq) else { return Ok(None) };
        Ok(Some((last, messages.iter().filter_map(|message| self.entry(message)).collect())))
    }

    /// Returns the current configurations, without earlier versions, and a sequence up to which the bucket has been read.
    pub async fn current(&self) -> Result<(u64, Vec<AgentEntry>), ReadError> {
        // A replica of the bucket may lag behind, so the latest changes are read again.
        let recent = self.log.now() - TimeDelta::seconds(limits::AGENTS_LAG_SECS);
        let read_to = match self.log.first_since(STREAM, subjects::AGENTS_ALL, recent).await? {
            Some(first) => first.seq - 1,
            None => self.last().await?,
        };
        let mut messages = Vec::new();
        match self.log.last_of(STREAM, &[subjects::AGENTS_ALL.into()]).await? {
            LastMessages::All(all) => messages = all,
            LastMessages::TooMany => {
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

    /// Returns the newest readable version of an agent with an unreadable last one.
    async fn readable_before(&self, last: &RawMessage) -> Result<Option<AgentEntry>, ReadError> {
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

    /// Returns the sequence of the bucket's last message; 0 = the bucket is empty.
    pub async fn last(&self) -> Result<u64, ReadError> {
        let message = self.log.get(STREAM, &json!({ "last_by_subj": subjects::AGENTS_ALL }), ReadFrom::Leader).await?;
        Ok(message.map_or(0, |message| message.seq))
    }

    /// Returns every current entry, ordered by organisation and agent.
    pub async fn list(&self) -> Result<Vec<AgentEntry>, ReadError> {
        let (_, mut entries) = self.current().await?;
        entries.retain(|entry| entry.config.is_some());
        entries.sort_by(|a, b| (&a.org, &a.agent).cmp(&(&b.org, &b.agent)));
        Ok(entries)
    }

    /// Decodes a message; an unreadable one is logged and skipped.
    fn entry(&self, message: &RawMessage) -> Option<AgentEntry> {
        let (org, agent) = subjects::parse_agent(&message.subject)?;
        let (revision, at) = (message.seq, message.stored_at);
        if message.headers.contains_key(OPERATION) {
            return Some(AgentEntry { org, agent, revision, at, config: None });
        }
        let config = match serde_json::from_slice::<AgentConfig>(&message.payload) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                tracing::error!(%error, org, agent, revision, "an agent configuration can't be decoded; the previous revision applies");
                return None;
            }
        };
        self.known.insert(revision, config.clone());
        Some(AgentEntry { org, agent, revision, at, config: Some(config) })
    }
}
