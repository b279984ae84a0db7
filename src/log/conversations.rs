//! Loads conversations: a snapshot, and the chain of newer events after it.
//!
//! Contract: a load returns the fold of a prefix of the conversation's log that reaches at least the sequence that the
//! caller knows of. A load is one request if nothing is newer than the snapshot; it never scans the stream. Deleting every
//! snapshot changes no answer.

mod chain;
mod counts;
mod history;
mod snapshots;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use moka::sync::Cache;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};
use uuid::Uuid;

use chain::CatchUp;
use snapshots::Snapshot;

use super::{AppendReceipt, EventLog, NewEvent, StoredEvent, jetstream_log::NatsLog};
use crate::{
    domain::{Command, Conversation, Event, RecordedEvent, Refusal, decide},
    limits,
    nats::{AppendError, ReadError, ReadFrom, backoff::Backoff},
    subjects::ConversationKey,
};

/// Version of the cached form; another version is ignored and written over.
pub const FOLD_VERSION: u32 = 10;
/// How long before an event's `not_after` its acknowledgement no longer tells that it was stored in time: more than the clocks
/// differ by what is known of them, and less than an ordinary append leaves.
const DOUBT: TimeDelta = TimeDelta::milliseconds(limits::ACT_NOT_AFTER_MS / 2);

/// The freshness that a load must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Up to this sequence at least; any replica may answer.
    AtLeast(u64),
    /// Confirmed by the stream's leader: for answers that deny something.
    Leader,
}

/// The reason why a command was not executed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("too many concurrent changes of the conversation")]
    Contended,
    /// The event is not in the log, or was stored too late to count.
    #[error("the event was not stored in time")]
    TooLate,
}

impl ExecuteError {
    /// Returns whether the storage failed, so that the outcome is unknown.
    pub fn is_storage(&self) -> bool {
        matches!(self, Self::Append(AppendError::Unavailable(_)) | Self::Read(_) | Self::Contended | Self::TooLate)
    }
}

/// An appended event, with the state after it.
pub struct ExecutedCommand {
    pub recorded: RecordedEvent,
    /// Sequence of the conversation's event before it.
    pub previous: u64,
    pub state: Arc<Conversation>,
}

/// The author of a decision, with its idempotency key, which is kept over retries.
#[derive(Clone)]
pub struct EventAuthor {
    pub source: String,
    pub event_id: String,
    /// Time until which a person's action must be stored to count. After that time the person is told that it failed.
    pub not_after: Option<DateTime<Utc>>,
}

/// The conversations of a log.
#[derive(Clone)]
pub struct Conversations<L> {
    log: L,
    bucket: Option<NatsLog>,
    /// Snapshots in memory, by conversation id, so that one is dropped without a scan.
    ///
    /// The full key is stored beside it, because an id does not name the organisation.
    snapshots: Cache<Uuid, (ConversationKey, Snapshot)>,
    /// Locks for loads of conversations that are not in memory.
    ///
    /// One caller reads, the others wait and find the snapshot. Many conversations share a lock.
    cold: Arc<Vec<Mutex<()>>>,
    /// Number of a chain's events held in memory before they are folded.
    chain_events: usize,
}

impl Conversations<NatsLog> {
    /// Returns the conversations of a JetStream log, with snapshots in memory and in the bucket.
    pub fn over_nats(log: NatsLog) -> Self {
        Self { bucket: Some(log.clone()), ..Self::new(log) }
    }
}

impl<L: EventLog> Conversations<L> {
    /// Returns the conversations of any log, with snapshots in memory.
    pub fn new(log: L) -> Self {
        // A conversation heavier than the whole cache would never be kept, and would be read again on each access.
        let heaviest = u32::try_from(limits::FOLDS_CACHED_BYTES / 4).unwrap_or(u32::MAX);
        let weight = move |_: &Uuid, (_, cached): &(ConversationKey, Snapshot)| {
            u32::try_from(cached.state.memory_bytes()).unwrap_or(u32::MAX).min(heaviest)
        };
        let memory = Cache::builder().weigher(weight).max_capacity(limits::FOLDS_CACHED_BYTES);
        let memory = memory.time_to_live(Duration::from_secs(limits::CLEAR_TEXT_SECS)).build();
        let cold = (0..limits::COLD_LOADS).map(|_| Mutex::new(())).collect();
        Self { log, bucket: None, snapshots: memory, cold: Arc::new(cold), chain_events: limits::CHAIN_EVENTS }
    }

    /// Sets the number of a chain's events that are held before they are folded.
    pub fn with_chain_events(self, held: usize) -> Self {
        Self { chain_events: held, ..self }
    }

    /// Returns the fold in this process's memory, which may be stale: for decisions that an append checks.
    pub fn cached(&self, key: &ConversationKey) -> Option<Arc<Conversation>> {
        self.snapshot(key).map(|cached| cached.state)
    }

    fn snapshot(&self, key: &ConversationKey) -> Option<Snapshot> {
        let (_, cached) = self.snapshots.get(&key.conversation).filter(|(of, _)| of == key)?;
        (cached.since.elapsed() < Duration::from_secs(limits::CLEAR_TEXT_SECS)).then_some(cached)
    }

    /// Drops an erased conversation from memory.
    pub fn forget(&self, conversation: Uuid) {
        self.snapshots.invalidate(&conversation);
    }

    /// Returns the fold of a conversation; a missing one has `last_seq` 0.
    pub async fn load(&self, key: &ConversationKey, freshness: Freshness) -> Result<Arc<Conversation>, ReadError> {
        let (mut via, needed) = match freshness {
            Freshness::AtLeast(seq) => (ReadFrom::Replica, seq),
            Freshness::Leader => (ReadFrom::Leader, 0),
        };
        let _alone = self.alone(key).await;
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        loop {
            match self.try_load(key, via).await? {
                Some(state) if state.last_seq >= needed => return Ok(state),
                // A replica can lag behind or lack a link of the chain; the leader can't.
                _ if backoff.pause().await => via = ReadFrom::Leader,
                _ => return Err(ReadError::Unavailable(format!("event {needed} is not readable"))),
            }
        }
    }

    /// Waits until no other load of an unknown conversation runs.
    ///
    /// The guard is held until the conversation is known; `None` if it is known already.
    async fn alone(&self, key: &ConversationKey) -> Option<MutexGuard<'_, ()>> {
        if self.snapshot(key).is_some() {
            return None;
        }
        let lock = &self.cold[key.conversation.as_u128() as usize % self.cold.len()];
        // Callers wait here no longer than for the log itself, in case the log does not answer.
        let alone = timeout(Duration::from_millis(limits::READ_DEADLINE_MS), lock.lock()).await.ok()?;
        self.snapshot(key).is_none().then_some(alone)
    }

    /// Loads once, through one copy. `None`: the copy lacks a link of the chain.
    async fn try_load(&self, key: &ConversationKey, via: ReadFrom) -> Result<Option<Arc<Conversation>>, ReadError> {
        let known = async {
            match self.snapshot(key) {
                Some(cached) => cached,
                None => self.read_snapshot(key).await,
            }
        };
        let (cached, last, standing) = tokio::join!(known, self.log.last(key, via), self.log.erasure_state(key));
        let (mut last, standing) = (last?, standing?);
        // A fold made before an erasure holds erased content.
        let erased_since = cached.erasure != standing;
        let mut cached =
            if erased_since { Snapshot { erasure: standing, ..Snapshot::nothing(cached.revision) } } else { cached };
        if last_seq(&last) < cached.state.last_seq {
            // The copy lags behind the snapshot, or the snapshot is of another log. The leader decides.
            last = self.log.last(key, ReadFrom::Leader).await?;
        }
        let Some(last) = last else { return Ok(Some(Arc::default())) };
        if cached.ends_with(&last) {
            return Ok(Some(self.keep_snapshot(key, cached)));
        }
        loop {
            // Boxed, like the rare cases below: a load is part of every future of this program.
            match Box::pin(self.chain(key, last.clone(), &cached, via)).await? {
                CatchUp::Folded(state, events) => {
                    let newer_events = cached.newer_events + events;
                    return Ok(Some(self.keep_snapshot(key, Snapshot { state, newer_events, ..cached })));
                }
                CatchUp::Lacking => return Ok(None),
                CatchUp::Elsewhere => {
                    self.snapshots.invalidate(&key.conversation);
                    cached = Snapshot { erasure: standing, ..Snapshot::nothing(cached.revision) };
                }
            }
        }
    }

    /// Keeps a fold in memory unless a newer one is there.
    fn keep_snapshot(&self, key: &ConversationKey, cached: Snapshot) -> Arc<Conversation> {
        let state = cached.state.clone();
        self.snapshots.entry(key.conversation).and_upsert_with(|entry| match entry.map(|entry| entry.into_value()) {
            Some((of, known)) if of == *key && known.state.last_seq > cached.state.last_seq => (of, known),
            _ => (key.clone(), cached),
        });
        state
    }

    /// Decides a command and appends its event; after each lost race it decides again on the new state.
    ///
    /// `state` is the state that the caller decided on; a refusal based on it is confirmed on the leader's state first.
    pub async fn execute(
        &self,
        key: &ConversationKey,
        mut state: Arc<Conversation>,
        command: &Command,
        author: &EventAuthor,
    ) -> Result<ExecutedCommand, ExecuteError> {
        let mut confirmed = false;
        let mut author = author.clone();
        for _ in 0..limits::DECIDE_TRIES {
            let event = match decide(&state, command) {
                Ok(_) if author.not_after.is_some_and(|not_after| self.log.now() > not_after) => {
                    return Err(ExecuteError::TooLate);
                }
                Ok(event) => event,
                Err(refusal) if confirmed => return Err(refusal.into()),
                Err(_) => {
                    state = self.load(key, Freshness::Leader).await?;
                    confirmed = true;
                    continue;
                }
            };
            match self.append(key, &state, event, &author).await {
                Ok(executed) => return Ok(executed),
                Err(ExecuteError::Append(AppendError::Duplicate)) if confirmed => {
                    // The fold may have forgotten the turn; then a retry of it can't be recognised.
                    if state.finished.len() >= limits::FOLD_REQUESTS {
                        return Err(ExecuteError::Contended);
                    }
                    // The id is in the log but not in the fold: that event came too late and is void. Every caller that
                    // decides on this state derives the same new id.
                    author.event_id = format!("{}-{}", author.event_id, state.last_seq);
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
        mut event: Event,
        author: &EventAuthor,
    ) -> Result<ExecutedCommand, ExecuteError> {
        if let Some(not_after) = author.not_after {
            event.set_not_after(not_after);
        }
        let time = micros(self.log.now());
        let (id, source) = (author.event_id.clone(), author.source.clone());
        let new = NewEvent { id, source, time, prev_digest: state.last_digest, event };
        let (previous, begun) = (state.last_seq, Instant::now());
        let appended = match self.log.append(key, previous, &new).await {
            Err(AppendError::Unavailable(cause)) => Box::pin(self.came_in_time(key, &new, previous, cause)).await,
            appended => appended.map_err(ExecuteError::from),
        };
        counts::tried(&appended, new.event.kind(), begun.elapsed());
        let AppendReceipt { seq, digest } = appended?;
        let stored_at = self.log.now();
        let recorded = match new.event.not_after() {
            // Near the deadline only the log knows whether the event was in time: its ack may have been slow.
            Some(not_after) if stored_at + DOUBT > not_after => self.event_at(key, seq).await?,
            _ => RecordedEvent { seq, time, stored_at, digest, event: new.event },
        };
        let mut next = (**state).clone();
        next.evolve(&recorded);
        // The standing of the deciding fold belongs to the event; another fold may have been made since.
        let known = self.snapshot(key).filter(|known| Arc::ptr_eq(&known.state, state));
        let known = known.unwrap_or_else(|| Snapshot::nothing(0));
        let newer_events = known.newer_events + 1;
        let is_void = recorded.event.is_void_at(recorded.stored_at);
        if !is_void {
            counts::appended(key, state, &recorded);
        }
        let state = self.keep_snapshot(key, Snapshot { state: Arc::new(next), newer_events, ..known });
        if is_void { Err(ExecuteError::TooLate) } else { Ok(ExecutedCommand { recorded, previous, state }) }
    }

    /// Finds an append without an ack.
    ///
    /// A person's action may still be stored until its `not_after`, so no one is told of a failure before then; and an
    /// event stored in time counts, however late that is found out.
    async fn came_in_time(
        &self,
        key: &ConversationKey,
        new: &NewEvent,
        previous: u64,
        cause: String,
    ) -> Result<AppendReceipt, ExecuteError> {
        let Some(not_after) = new.event.not_after() else { return Err(AppendError::Unavailable(cause).into()) };
        let left = not_after + TimeDelta::milliseconds(limits::ACT_DOUBT_MS) - self.log.now();
        tokio::time::sleep(left.to_std().unwrap_or_default()).await;
        let own = |stored: &StoredEvent| stored.envelope.id == new.id && stored.envelope.prev == previous;
        let found = async {
            let mut event = self.log.last(key, ReadFrom::Leader).await?;
            while let Some(stored) = event.filter(|stored| stored.recorded.seq > previous) {
                if own(&stored) {
                    return Ok(Some(stored.recorded));
                }
                event = self.log.at(key, stored.envelope.prev, ReadFrom::Leader).await?;
            }
            Ok::<_, ReadError>(None)
        };
        match timeout(Duration::from_millis(limits::READ_TRY_MS), found).await {
            Ok(Ok(Some(RecordedEvent { seq, digest, .. }))) => Ok(AppendReceipt { seq, digest }),
            Ok(Ok(None)) => Err(ExecuteError::TooLate),
            Ok(Err(_)) | Err(_) => Err(AppendError::Unavailable(cause).into()),
        }
    }

    /// Returns an event that is known to exist.
    pub async fn event_at(&self, key: &ConversationKey, seq: u64) -> Result<RecordedEvent, ReadError> {
        Ok(self.stored_at(key, seq).await?.recorded)
    }

    /// Returns the events of a turn up to this sequence, oldest first: one read per event, for repairs.
    pub async fn events_of_turn(
        &self,
        key: &ConversationKey,
        turn: Uuid,
        mut seq: u64,
    ) -> Result<Vec<Event>, ReadError> {
        let mut events = Vec::new();
        while seq > 0 {
            let StoredEvent { envelope, recorded, .. } = self.stored_at(key, seq).await?;
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

    async fn stored_at(&self, key: &ConversationKey, seq: u64) -> Result<StoredEvent, ReadError> {
        for via in [ReadFrom::Replica, ReadFrom::Leader] {
            if let Some(stored) = self.log.at(key, seq, via).await? {
                return Ok(stored);
            }
        }
        Err(ReadError::Unavailable(format!("event {seq} is not readable")))
    }
}

fn last_seq(last: &Option<StoredEvent>) -> u64 {
    last.as_ref().map_or(0, |stored| stored.recorded.seq)
}

/// Truncates a time to the stored precision of microseconds: a fold must not depend on whether it was read or made.
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
    async fn a_request_stored_too_late_can_be_repeated() {
        let conversations = Conversations::new(MemoryLog::default());
        let (turn, conversation) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let key = ConversationKey { region: "r".into(), org: "o".into(), conversation };
        let author = EventAuthor { source: "test".into(), event_id: turn.simple().to_string(), not_after: None };
        let execute = async |command: Command, state| conversations.execute(&key, state, &command, &author).await;

        for seq in 1..=2 {
            let late = execute(request(turn, -1), conversations.cached(&key).unwrap_or_default()).await;
            assert!(matches!(late, Err(ExecuteError::TooLate)));
            let state = conversations.cached(&key).unwrap();
            assert_eq!((state.last_seq, &state.turn), (seq, &None), "void, however often");
        }
        let state = conversations.cached(&key).unwrap();
        let accepted = execute(request(turn, 60), state.clone()).await.unwrap();
        assert!(accepted.state.turn.is_some());
        let again = execute(request(turn, 60), state).await;
        assert!(matches!(again, Err(ExecuteError::Refused(Refusal::AlreadyActive))));
    }
}
