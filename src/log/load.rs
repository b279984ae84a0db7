//! Folding conversations: a cached fold and the chain of newer events behind it.
//!
//! Contract: what a load returns is the fold of a prefix of the conversation's log that reaches at least the sequence that
//! the caller knows of. A load is one request when nothing is newer than the cache; it never scans the stream. Deleting
//! every cache changes no answer.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{AppendError, Appended, EventLog, NewEvent, ReadError, Stored, Via, backoff::Backoff, nats::NatsLog};
use crate::{
    domain::{Command, Conversation, Event, Message, Recorded, Refusal, decide},
    limits,
    subjects::{self, ConversationKey},
};

/// Version of the cached form; another version is ignored and written over.
pub const FOLD_VERSION: u32 = 6;
const BUCKET: &str = "CONVERSATIONS";
/// How long before a request's `not_after` its acknowledgement no longer tells that it was stored in time: more than clocks
/// differ, and less than an ordinary append leaves.
const REQUEST_DOUBT: chrono::TimeDelta = chrono::TimeDelta::milliseconds(limits::REQUEST_NOT_AFTER_MS / 2);

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
    /// Sequence of the conversation's event before it.
    pub previous: u64,
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
    memory: Cache<ConversationKey, Cached>,
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
        let weight =
            |_: &ConversationKey, cached: &Cached| u32::try_from(cached.state.memory_bytes()).unwrap_or(u32::MAX);
        let memory = Cache::builder().weigher(weight).max_capacity(limits::FOLDS_CACHED_BYTES).build();
        Self { log, bucket: None, memory }
    }

    /// The fold as this process knows it, which may be behind: for decisions that an append will check.
    pub fn cached(&self, key: &ConversationKey) -> Option<Arc<Conversation>> {
        self.memory.get(key).map(|cached| cached.state)
    }

    /// Forgets a conversation that was erased.
    pub fn forget(&self, conversation: Uuid) {
        let of_it: Vec<_> =
            self.memory.iter().filter(|(key, _)| key.conversation == conversation).map(|(key, _)| key).collect();
        of_it.iter().for_each(|key| self.memory.invalidate(&**key));
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
        let (cached, mut last) = match self.memory.get(key) {
            Some(cached) => (cached, self.log.last(key, via).await?),
            None => {
                let (cached, last) = tokio::join!(self.read_bucket(key), self.log.last(key, via));
                (cached, last?)
            }
        };
        let base = cached.state.last_seq;
        if last_seq(&last) < base {
            // The copy lags behind the cache, or the cache is not of this log. The leader knows.
            last = self.log.last(key, Via::Leader).await?;
        }
        if last_seq(&last) == base {
            return Ok(Some(cached.state));
        }
        let Some(chain) = self.walk_back(key, Vec::from_iter(last), base, via).await? else { return Ok(None) };
        if chain.last().is_some_and(|oldest| oldest.envelope.prev == base) {
            return Ok(Some(self.advance(key, cached, chain)));
        }
        // The chain ends before the cached state or passes it by, so the cache is not of this log: fold from the beginning.
        self.memory.invalidate(key);
        let cached = Cached { state: Arc::default(), newer_events: 0, ..cached };
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
        self.memory.entry_by_ref(key).and_upsert_with(|entry| match entry {
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
        let mut decider = decider.clone();
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
            match self.append(key, &state, event, &decider).await {
                Ok(executed) => return Ok(executed),
                Err(ExecuteError::Append(AppendError::Duplicate)) if confirmed => {
                    // The fold may have forgotten the turn; then it can't be told whether this is a retry of it.
                    if state.finished.len() >= limits::FOLD_REQUESTS {
                        return Err(ExecuteError::Contended);
                    }
                    // The log has this id and the fold does not: that event came too late and is void. Whoever decides on
                    // this state gives the same new id.
                    decider.event_id = format!("{}-{}", decider.event_id, state.last_seq);
                }
                Err(ExecuteError::Append(AppendError::Conflict | AppendError::Duplicate)) => {
                    state = self.load(key, Freshness::Leader).await?;
                    confirmed = true;
                }
                Err(error) => return Err(error),
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
    ) -> Result<Executed, ExecuteError> {
        let time = micros(Utc::now());
        let (id, source) = (decider.event_id.clone(), decider.source.clone());
        let new = NewEvent { id, source, time, prev_digest: state.last_digest, event };
        let previous = state.last_seq;
        let Appended { seq, digest } = self.log.append(key, previous, &new).await?;
        let stored_at = Utc::now();
        let recorded = match &new.event {
            // Only the log can tell whether it took the request in time: its ack may have been slow.
            Event::TurnRequested(request) if stored_at + REQUEST_DOUBT > request.not_after => {
                self.event_at(key, seq).await?
            }
            _ => Recorded { seq, time, stored_at, digest, event: new.event },
        };
        let mut next = (**state).clone();
        next.evolve(&recorded);
        let known = self.memory.get(key);
        let (revision, newer_events) = known.map_or((0, 0), |cached| (cached.revision, cached.newer_events));
        let state = self.keep(key, Cached { state: Arc::new(next), revision, newer_events: newer_events + 1 });
        Ok(Executed { recorded, previous, state })
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

    /// The oldest messages after `after` (a sequence), oldest first, and whether there are newer ones.
    pub async fn messages_after(
        &self,
        key: &ConversationKey,
        state: &Conversation,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Message>, bool), ReadError> {
        let older = state.older.iter().copied().filter(|seq| *seq > after);
        let recent = state.messages.iter().filter(|message| message.seq > after);
        let more = older.clone().count() + recent.clone().count() > limit;
        let mut page =
            futures_util::future::try_join_all(older.take(limit).map(|seq| self.message_at(key, seq))).await?;
        page.extend(recent.take(limit - page.len()).cloned());
        Ok((page, more))
    }

    async fn message_at(&self, key: &ConversationKey, seq: u64) -> Result<Message, ReadError> {
        let event = self.event_at(key, seq).await?;
        Message::of(&event).ok_or_else(|| ReadError::Unavailable(format!("event {seq} holds no message")))
    }

    /// An event that is known to be there.
    pub async fn event_at(&self, key: &ConversationKey, seq: u64) -> Result<Recorded, ReadError> {
        Ok(self.stored_at(key, seq).await?.recorded)
    }

    /// The events of a turn up to this sequence, oldest first: one read an event, for repairs.
    pub async fn events_of_turn(
        &self,
        key: &ConversationKey,
        turn: Uuid,
        mut seq: u64,
    ) -> Result<Vec<Event>, ReadError> {
        let mut events = Vec::new();
        while seq > 0 {
            let Stored { envelope, recorded } = self.stored_at(key, seq).await?;
            seq = envelope.prev;
            if recorded.event.turn() == Some(turn) {
                let first = matches!(recorded.event, Event::TurnRequested(_));
                events.push(recorded.event);
                if first {
                    break;
                }
            }
        }
        events.reverse();
        Ok(events)
    }

    async fn stored_at(&self, key: &ConversationKey, seq: u64) -> Result<Stored, ReadError> {
        for via in [Via::Replica, Via::Leader] {
            if let Some(stored) = self.log.at(key, seq, via).await? {
                return Ok(stored);
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
            Ok(Some(message)) => {
                let revision = message.seq;
                let opened = bucket.opened(message).await.ok().flatten();
                match opened.map(|message| serde_json::from_slice::<CachedForm<Conversation>>(&message.payload)) {
                    Some(Ok(form)) if form.version == FOLD_VERSION => {
                        Cached { state: Arc::new(form.state), revision, newer_events: 0 }
                    }
                    _ => Cached { revision, ..empty },
                }
            }
            Ok(None) | Err(_) => empty,
        }
    }

    /// Writes the fold to the bucket when it has grown by some events. A lost race means that somebody wrote a newer one.
    pub async fn save(&self, key: &ConversationKey) {
        let Some(bucket) = &self.bucket else { return };
        let Some(cached) = self.memory.get(key).filter(|c| c.newer_events >= limits::FOLD_CACHE_EVERY_EVENTS) else {
            return;
        };
        let form = CachedForm { version: FOLD_VERSION, state: &*cached.state };
        let Ok(payload) = serde_json::to_vec(&form) else { return };
        let subject = subjects::kv(BUCKET, &subjects::fold_key(key));
        let id = format!("fold-{}-{}", key.conversation, cached.state.last_seq);
        let expected = cached.revision.to_string();
        let Ok(payload) = bucket.seal(key.conversation, &subject, payload.into()).await else { return };
        let revision = match bucket.put_at(&subject, &id, &expected, payload).await {
            Ok(revision) => revision,
            // Somebody else wrote it: take their revision from the bucket.
            Err(AppendError::Conflict) => self.read_bucket(key).await.revision,
            Err(error) => return tracing::debug!(%error, "the fold was not cached"),
        };
        self.memory.entry_by_ref(key).and_compute_with(|entry| match entry {
            Some(entry) => moka::ops::compute::Op::Put(Cached { revision, newer_events: 0, ..entry.into_value() }),
            None => moka::ops::compute::Op::Nop,
        });
    }
}

fn last_seq(last: &Option<Stored>) -> u64 {
    last.as_ref().map_or(0, |stored| stored.recorded.seq)
}

/// Times are stored with microseconds; a fold must not depend on whether it was read or made.
fn micros(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        domain::event::{Participant, TurnRequested},
        log::memory::MemoryLog,
    };

    fn request(turn: Uuid, seconds_left: i64) -> Command {
        let person = Participant { id: Uuid::from_u128(7), name: "P".into() };
        Command::Request(TurnRequested {
            turn,
            session: Uuid::from_u128(8),
            request_id: "r1".into(),
            message_id: Uuid::from_u128(9),
            message: "hello".into(),
            images: vec![],
            files: vec![],
            model: None,
            stream: true,
            pool: "default".into(),
            user: person.clone(),
            agent: person,
            source: None,
            asker: None,
            agent_config: None,
            skill: None,
            not_after: Utc::now() + chrono::Duration::seconds(seconds_left),
        })
    }

    #[tokio::test]
    async fn a_request_that_was_stored_too_late_can_be_made_again() {
        let conversations = Conversations::new(MemoryLog::default());
        let (turn, conversation) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let key = ConversationKey { region: "r".into(), org: "o".into(), conversation };
        let decider = Decider { source: "test".into(), event_id: turn.simple().to_string() };
        let execute = async |command: Command, state| conversations.execute(&key, state, &command, &decider).await;

        for seq in 1..=2 {
            let late = execute(request(turn, -1), conversations.cached(&key).unwrap_or_default()).await.unwrap();
            assert_eq!((late.recorded.seq, &late.state.turn), (seq, &None), "void, however often");
        }
        let state = conversations.cached(&key).unwrap();
        let accepted = execute(request(turn, 60), state.clone()).await.unwrap();
        assert!(accepted.state.turn.is_some());
        let again = execute(request(turn, 60), state).await;
        assert!(matches!(again, Err(ExecuteError::Refused(Refusal::AlreadyActive))));
    }
}
