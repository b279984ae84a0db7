//! Folding conversations: a cached fold and the chain of newer events behind it.
//!
//! Contract: what a load returns is the fold of a prefix of the conversation's log that reaches at least the sequence that
//! the caller knows of. A load is one request when nothing is newer than the cache; it never scans the stream. Deleting
//! every cache changes no answer.

use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{AppendError, EventLog, NewEvent, ReadError, Stored, Via, backoff::Backoff, nats::NatsLog};
use crate::{
    domain::{Command, Conversation, Event, Message, Recorded, Refusal, decide},
    limits,
    subjects::{self, ConversationKey},
};

/// Version of the cached form; another version is ignored and written over.
const FOLD_VERSION: u32 = 1;
const BUCKET: &str = "CONVERSATIONS";

/// How current a load must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// At least up to this sequence; the rest as any replica has it.
    AtLeast(u64),
    /// Confirmed by the stream's leader: for answers that deny something.
    Leader,
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("the conversation changed too often meanwhile")]
    Contended,
}

impl ExecuteError {
    /// The storage did not do its part, so the outcome is not known.
    pub fn is_storage(&self) -> bool {
        matches!(self, Self::Append(AppendError::Unavailable(_)) | Self::Read(_) | Self::Contended)
    }
}

/// An event that was appended, with the state after it.
pub struct Executed {
    pub recorded: Recorded,
    pub state: Arc<Conversation>,
}

/// Who decides, and the nonce of the decision, kept over its retries.
#[derive(Clone)]
pub struct Decider {
    pub source: String,
    pub event_id: String,
}

#[derive(Clone)]
struct Cached {
    state: Arc<Conversation>,
    /// Revision of the fold's entry in the bucket, and the events that came after it.
    revision: u64,
    newer_events: u64,
}

#[derive(Serialize, Deserialize)]
struct CachedForm<T> {
    version: u32,
    state: T,
}

/// The conversations of a log.
#[derive(Clone)]
pub struct Conversations<L> {
    log: L,
    bucket: Option<NatsLog>,
    memory: Cache<Uuid, Cached>,
}

impl Conversations<NatsLog> {
    /// Conversations of a JetStream log, with folds cached in memory and in the bucket.
    pub fn over_nats(log: NatsLog) -> Self {
        Self { bucket: Some(log.clone()), ..Self::new(log) }
    }
}

impl<L: EventLog> Conversations<L> {
    /// Conversations of any log, with folds cached in memory.
    pub fn new(log: L) -> Self {
        let weight = |_: &Uuid, cached: &Cached| u32::try_from(cached.state.memory_bytes()).unwrap_or(u32::MAX);
        let memory = Cache::builder().weigher(weight).max_capacity(limits::FOLDS_CACHED_BYTES).build();
        Self { log, bucket: None, memory }
    }

    /// The fold as this process knows it, which may be behind: for decisions that an append will check.
    pub fn cached(&self, key: &ConversationKey) -> Option<Arc<Conversation>> {
        self.memory.get(&key.conversation).map(|cached| cached.state)
    }

    /// The fold of a conversation; one that does not exist has `last_seq` 0.
    pub async fn load(&self, key: &ConversationKey, freshness: Freshness) -> Result<Arc<Conversation>, ReadError> {
        let (mut via, needed) = match freshness {
            Freshness::AtLeast(seq) => (Via::Replica, seq),
            Freshness::Leader => (Via::Leader, 0),
        };
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        loop {
            match self.try_load(key, via).await? {
                Some(state) if state.last_seq >= needed => return Ok(state),
                // A replica lags behind, or lacks a link of the chain; the leader does not.
                _ if backoff.pause().await => via = Via::Leader,
                _ => return Err(ReadError::Unavailable(format!("event {needed} is not readable"))),
            }
        }
    }

    /// One load through one copy. `None`: the copy lacks a link of the chain.
    async fn try_load(&self, key: &ConversationKey, via: Via) -> Result<Option<Arc<Conversation>>, ReadError> {
        let (cached, last) = match self.memory.get(&key.conversation) {
            Some(cached) => (cached, self.log.last(key, via).await?),
            None => {
                let (cached, last) = tokio::join!(self.read_bucket(key), self.log.last(key, via));
                (cached, last?)
            }
        };
        let Some(last) = last else { return Ok(Some(cached.state)) };
        if last.recorded.seq <= cached.state.last_seq {
            return Ok(Some(cached.state));
        }
        let base = cached.state.last_seq;
        let Some(chain) = self.walk_back(key, vec![last], base, via).await? else { return Ok(None) };
        if chain.last().is_some_and(|oldest| oldest.envelope.prev == base) {
            return Ok(Some(self.advance(key, cached, chain)));
        }
        // The chain passes the cached state by, so the cache is not of this log: fold from the beginning.
        let cached = Cached { state: Arc::default(), ..cached };
        Ok(self.walk_back(key, chain, 0, via).await?.map(|chain| self.advance(key, cached, chain)))
    }

    /// Extends a chain (newest event first) down to `base`, or `None` when the copy lacks one of its events.
    async fn walk_back(
        &self,
        key: &ConversationKey,
        mut chain: Vec<Stored>,
        base: u64,
        via: Via,
    ) -> Result<Option<Vec<Stored>>, ReadError> {
        while let Some(prev) = chain.last().map(|stored| stored.envelope.prev).filter(|prev| *prev > base) {
            match self.log.at(key, prev, via).await? {
                Some(stored) => chain.push(stored),
                None => return Ok(None),
            }
        }
        Ok(Some(chain))
    }

    /// Folds a chain (newest event first) on top of a cached state.
    fn advance(&self, key: &ConversationKey, cached: Cached, chain: Vec<Stored>) -> Arc<Conversation> {
        let mut state = (*cached.state).clone();
        let newer_events = cached.newer_events + chain.len() as u64;
        for stored in chain.iter().rev() {
            state.evolve(&stored.recorded);
        }
        self.keep(key, Cached { state: Arc::new(state), revision: cached.revision, newer_events })
    }

    /// Keeps a fold in memory unless a newer one is there.
    fn keep(&self, key: &ConversationKey, cached: Cached) -> Arc<Conversation> {
        let state = cached.state.clone();
        self.memory.entry(key.conversation).and_upsert_with(|entry| match entry {
            Some(entry) if entry.value().state.last_seq > cached.state.last_seq => entry.into_value(),
            _ => cached,
        });
        state
    }

    /// Decides a command and appends its event, again on the new state after each lost race.
    ///
    /// `state` is what the caller decided on; a refusal that it causes is confirmed on the leader's state first.
    pub async fn execute(
        &self,
        key: &ConversationKey,
        mut state: Arc<Conversation>,
        command: &Command,
        decider: &Decider,
    ) -> Result<Executed, ExecuteError> {
        let mut confirmed = false;
        let mut duplicates = 0;
        for _ in 0..limits::DECIDE_TRIES {
            let event = match decide(&state, command) {
                Ok(event) => event,
                Err(refusal) if confirmed => return Err(refusal.into()),
                Err(_) => {
                    state = self.load(key, Freshness::Leader).await?;
                    confirmed = true;
                    continue;
                }
            };
            match self.append(key, &state, event, decider).await {
                Ok(executed) => return Ok(executed),
                // The log has this id, but the fold does not: the event came too late and is void.
                Err(AppendError::Duplicate) if duplicates > 0 => return Err(ExecuteError::Contended),
                Err(error @ (AppendError::Conflict | AppendError::Duplicate)) => {
                    duplicates += u32::from(matches!(error, AppendError::Duplicate));
                    state = self.load(key, Freshness::Leader).await?;
                    confirmed = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ExecuteError::Contended)
    }

    async fn append(
        &self,
        key: &ConversationKey,
        state: &Arc<Conversation>,
        event: Event,
        decider: &Decider,
    ) -> Result<Executed, AppendError> {
        let time = chrono::Utc::now();
        let new = NewEvent { id: decider.event_id.clone(), source: decider.source.clone(), time, event };
        let seq = self.log.append(key, state.last_seq, &new).await?;
        let stored_at = chrono::Utc::now();
        let recorded = match &new.event {
            // Its ack took long. Whether the event came in time only the log can tell, and the fold depends on it.
            Event::TurnRequested(request) if request.is_void_at(stored_at) => {
                self.event_at(key, seq).await.map_err(|error| AppendError::Unavailable(error.to_string()))?
            }
            _ => Recorded { seq, time: micros(time), stored_at, event: new.event },
        };
        let mut next = (**state).clone();
        next.evolve(&recorded);
        let known = self.memory.get(&key.conversation);
        let (revision, newer_events) = known.map_or((0, 0), |cached| (cached.revision, cached.newer_events));
        let state = self.keep(key, Cached { state: Arc::new(next), revision, newer_events: newer_events + 1 });
        Ok(Executed { recorded, state })
    }

    /// The newest messages before `before` (a sequence; `None` = all), newest first, and whether there are older ones.
    pub async fn messages(
        &self,
        key: &ConversationKey,
        state: &Conversation,
        before: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<Message>, bool), ReadError> {
        let before = before.unwrap_or(u64::MAX);
        let recent = state.messages.iter().rev().filter(|message| message.seq < before);
        let mut page: Vec<Message> = recent.take(limit).cloned().collect();
        let older: Vec<u64> = state.older.iter().rev().filter(|seq| **seq < before).copied().collect();
        let missing = limit - page.len();
        let reads = older.iter().take(missing).map(|seq| self.message_at(key, *seq));
        for message in futures_util::future::try_join_all(reads).await? {
            page.push(message);
        }
        let oldest = page.last().map_or(before, |message| message.seq);
        let more = state.messages.front().is_some_and(|message| message.seq < oldest)
            || state.older.front().is_some_and(|seq| *seq < oldest);
        Ok((page, more))
    }

    async fn message_at(&self, key: &ConversationKey, seq: u64) -> Result<Message, ReadError> {
        let event = self.event_at(key, seq).await?;
        Message::of(&event).ok_or_else(|| ReadError::Unavailable(format!("event {seq} holds no message")))
    }

    /// An event that is known to be there.
    pub async fn event_at(&self, key: &ConversationKey, seq: u64) -> Result<Recorded, ReadError> {
        for via in [Via::Replica, Via::Leader] {
            if let Some(stored) = self.log.at(key, seq, via).await? {
                return Ok(stored.recorded);
            }
        }
        Err(ReadError::Unavailable(format!("event {seq} is not readable")))
    }

    async fn read_bucket(&self, key: &ConversationKey) -> Cached {
        let empty = Cached { state: Arc::default(), revision: 0, newer_events: 0 };
        let Some(bucket) = &self.bucket else { return empty };
        let subject = subjects::kv(BUCKET, &subjects::fold_key(key));
        // A cache that can't be read costs time, not answers.
        match bucket.get(&format!("KV_{BUCKET}"), &json!({ "last_by_subj": subject }), Via::Replica).await {
            Ok(Some(message)) => match serde_json::from_slice::<CachedForm<Conversation>>(&message.payload) {
                Ok(form) if form.version == FOLD_VERSION => {
                    Cached { state: Arc::new(form.state), revision: message.seq, newer_events: 0 }
                }
                _ => Cached { revision: message.seq, ..empty },
            },
            Ok(None) | Err(_) => empty,
        }
    }

    /// Writes the fold to the bucket when it has grown by some events. A lost race means that somebody wrote a newer one.
    pub async fn save(&self, key: &ConversationKey) {
        let Some(bucket) = &self.bucket else { return };
        let Some(cached) =
            self.memory.get(&key.conversation).filter(|c| c.newer_events >= limits::FOLD_CACHE_EVERY_EVENTS)
        else {
            return;
        };
        let form = CachedForm { version: FOLD_VERSION, state: &*cached.state };
        let Ok(payload) = serde_json::to_vec(&form) else { return };
        let subject = subjects::kv(BUCKET, &subjects::fold_key(key));
        let id = format!("fold-{}-{}", key.conversation, cached.state.last_seq);
        let expected = cached.revision.to_string();
        let revision = match bucket.put_at(&subject, &id, &expected, Bytes::from(payload)).await {
            Ok(revision) => revision,
            // Somebody else wrote it: take their revision from the bucket.
            Err(AppendError::Conflict) => self.read_bucket(key).await.revision,
            Err(error) => return tracing::debug!(%error, "the fold was not cached"),
        };
        self.memory.entry(key.conversation).and_compute_with(|entry| match entry {
            Some(entry) => moka::ops::compute::Op::Put(Cached { revision, newer_events: 0, ..entry.into_value() }),
            None => moka::ops::compute::Op::Nop,
        });
    }
}

/// Times are stored with microseconds; a fold must not depend on whether it was read or made.
fn micros(time: chrono::DateTime<chrono::Utc>) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}
