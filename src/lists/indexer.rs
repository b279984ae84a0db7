//! Keeps the index current: a durable consumer that all workers of a region share.
//!
//! Contract: an event is acked when its entry is written, so nothing is lost when a process dies. An entry is never overwritten
//! by one that covers less. Several waiting events of a conversation are written once. The indexer is never on the way of a
//! token or of a new session: it handles the events that end a turn or let it wait, for a few conversations at a time.

use std::collections::{BTreeSet, HashMap};

use chrono::{NaiveDate, TimeDelta};
use futures_util::{StreamExt, stream};
use uuid::Uuid;

use super::{BUCKET, ListEntry, STREAM};
use crate::{
    domain::{
        Conversation,
        event::{Event, TurnCompleted, kind},
    },
    limits,
    log::{
        conversations::{Conversations, Freshness},
        jetstream_log::NatsLog,
    },
    nats::{
        AppendError, ReadError,
        backoff::{self, Backoff},
        core::Client,
        direct_get::LastMessages,
        jetstream::RawMessage,
        streams::CHAT,
        work_queue::{WorkItem, WorkQueue},
    },
    subjects::{self, ConversationKey},
};

/// The consumer's name, see `streams/CHAT.index.json`.
pub const CONSUMER: &str = "index";

/// The lifetime of the marker of a deleted entry, in seconds: longer than any reader or writer takes.
const GONE_SECS: &str = "60";

/// The reason why an entry was not written.
#[derive(Debug, thiserror::Error)]
pub enum IndexWriteError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Write(#[from] AppendError),
}

impl IndexWriteError {
    fn is_of_conversation(&self) -> bool {
        matches!(self, Self::Read(error) if error.is_of_conversation())
    }
}

/// The indexer of a region.
pub struct ListIndexer {
    pub client: Client,
    pub index: ListIndex,
    pub region: String,
    /// True if tokens are counted, too, because a quota limits them.
    pub counts_tokens: bool,
}

/// The writer of entries.
#[derive(Clone)]
pub struct ListIndex {
    pub log: NatsLog,
    pub conversations: Conversations<NatsLog>,
}

/// The pending work for a conversation: its waiting events, and the sequence of the last one.
#[derive(Default)]
struct PendingUpdate {
    messages: Vec<WorkItem>,
    last_seq: u64,
}

impl ListIndexer {
    /// Runs until the task is dropped.
    ///
    /// (1) Finds the consumer, (2) pulls events, (3) groups the waiting ones by conversation, (4) writes the entries, a few at a
    /// time, (5) acks.
    pub async fn run(self) {
        let stream = subjects::stream_name(CHAT, &self.region);
        loop {
            let queue = WorkQueue::find(&self.client, &stream, CONSUMER).await;
            while let Ok(mut events) = queue.pull(limits::INDEX_BATCH, self.index.log.connected()).await {
                while let Some(Ok(first)) = events.next().await {
                    let mut there = vec![first];
                    there.extend(std::iter::from_fn(|| events.next_now()));
                    let due = stream::iter(by_conversation(there));
                    due.for_each_concurrent(limits::INDEX_PARALLEL, |(key, due)| self.serve(key, due)).await;
                }
            }
        }
    }

    async fn serve(&self, key: ConversationKey, due: PendingUpdate) {
        let served = async {
            if self.counts_tokens {
                self.count_tokens(&key, &due).await?;
            }
            self.index.update(&key, due.last_seq).await
        };
        match served.await {
            Ok(()) => ack(due.messages).await,
            Err(error) => {
                tracing::warn!(%error, conversation = %key.conversation, "the index is behind; the events are redelivered");
                if error.is_of_conversation() {
                    put_off(due.messages).await;
                }
            }
        }
    }

    /// Counts the tokens of the turns that have ended, each once.
    async fn count_tokens(&self, key: &ConversationKey, due: &PendingUpdate) -> Result<(), IndexWriteError> {
        let completed = key.event(kind::TURN_COMPLETED);
        for message in due.messages.iter().filter(|message| message.subject() == completed) {
            let Some(seq) = message.seq() else { continue };
            // The counter deduplicates for two minutes; later the entry of the index tells, which is written after the count.
            if message.deliveries() > 1 && self.was_counted(key, seq).await? {
                continue;
            }
            let recorded = self.index.conversations.event_at(key, seq).await?;
            let Event::TurnCompleted(TurnCompleted { usage: Some(usage), .. }) = &recorded.event else { continue };
            let tokens = usage.prompt_tokens + usage.completion_tokens;
            let subject = subjects::count_tokens(&key.org, recorded.stored_at.date_naive());
            let id = format!("tokens-{}-{seq}", key.conversation);
            self.index.log.count(&subject, i64::try_from(tokens).unwrap_or(i64::MAX), &id).await?;
        }
        Ok(())
    }
}

impl ListIndexer {
    /// Returns true if an event that is delivered again after a while was counted: the index knows it.
    async fn was_counted(&self, key: &ConversationKey, seq: u64) -> Result<bool, IndexWriteError> {
        let stored_at = self.index.conversations.event_at(key, seq).await?.stored_at;
        if self.index.log.now() - stored_at < TimeDelta::seconds(limits::COUNTED_ONCE_SECS) {
            return Ok(false);
        }
        let known =
            there(&self.index.log, key).await?.iter().filter_map(ListEntry::read).map(|entry| entry.last_seq).max();
        Ok(known.is_some_and(|last_seq| last_seq >= seq))
    }
}

impl ListIndex {
    /// Updates a conversation's entry to cover an event.
    pub async fn update(&self, key: &ConversationKey, seq: u64) -> Result<(), IndexWriteError> {
        let state = self.conversations.load(key, Freshness::AtLeast(seq)).await?;
        let Some(entry) = ListEntry::of(key.conversation, &state) else { return Ok(()) };
        let subject = entry.subject(key);
        let entry = match entry.encrypt(&self.log).await {
            // Erased after this process had read it: nothing of the conversation is listed.
            Err(AppendError::Erased) => return Ok(()),
            encrypted => encrypted?,
        };
        let places = places(key, &state);
        let mut backoff = Backoff::new(limits::APPEND_DEADLINE_MS);
        loop {
            let there = self.there(key, &state, &places).await?;
            let at_its_place = there.iter().find(|message| message.subject == subject);
            let known = at_its_place.and_then(ListEntry::read);
            if known.as_ref().is_some_and(|known| known.last_seq >= entry.last_seq) {
                return self.clear(there).await;
            }
            let expected = at_its_place.map_or(0, |message| message.seq);
            let id = format!("index-{}-{}-{expected}", key.conversation, entry.last_seq);
            let payload = serde_json::to_vec(&entry).expect("an entry is a map with string keys");
            match self.log.put_at(&subject, &id, &expected.to_string(), payload.into()).await {
                // Another worker with fewer events may have written another place meanwhile.
                Ok(_) if known.is_none() => return self.clear(self.there(key, &state, &places).await?).await,
                Ok(_) => return Ok(()),
                Err(AppendError::Conflict) if backoff.pause().await => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the entries that the bucket has of a conversation.
    ///
    /// Only the possible places are looked up, by exact subjects. A lookup of all places costs the server a walk over all
    /// entries of the organisation.
    async fn there(
        &self,
        key: &ConversationKey,
        state: &Conversation,
        places: &[String],
    ) -> Result<Vec<RawMessage>, ReadError> {
        match self.log.last_of(STREAM, places).await? {
            // A long conversation has an entry. If no place has it, the index was behind by all that the fold keeps.
            LastMessages::All(found) if !found.is_empty() || state.older.is_empty() => Ok(found),
            LastMessages::All(_) | LastMessages::TooMany => there(&self.log, key).await,
        }
    }

    /// Deletes all entries but the one that covers most: the conversation has moved to another day, or gained an owner.
    async fn clear(&self, there: Vec<RawMessage>) -> Result<(), IndexWriteError> {
        let mut entries: Vec<_> =
            there.iter().filter_map(|message| Some((ListEntry::read(message)?.last_seq, message))).collect();
        entries.sort_by_key(|(last_seq, _)| *last_seq);
        entries.pop();
        for (_, message) in entries {
            take_away(&self.log, message).await?;
        }
        Ok(())
    }
}

/// Returns the possible places of a conversation in the bucket: without an owner or under its owner, on the days of its
/// messages.
fn places(key: &ConversationKey, state: &Conversation) -> Vec<String> {
    let said = state.messages.iter().map(|message| message.at);
    let days: BTreeSet<NaiveDate> =
        said.chain(state.created_at).chain(state.updated_at).map(|at| at.date_naive()).collect();
    let owners: BTreeSet<Option<&str>> = BTreeSet::from([None, state.owner.as_deref()]);
    let of_day = |day| {
        let of_owner = move |owner: &Option<&str>| subjects::index_key(&key.org, *owner, day, key.conversation);
        owners.iter().map(of_owner).collect::<Vec<_>>()
    };
    days.into_iter().flat_map(of_day).map(|place| subjects::kv(BUCKET, &place)).collect()
}

/// Removes an erased conversation from all lists.
pub async fn forget(log: &NatsLog, key: &ConversationKey) -> Result<(), AppendError> {
    let there = there(log, key).await.map_err(|error| AppendError::Unavailable(error.to_string()))?;
    for message in there.iter().filter(|message| ListEntry::read(message).is_some()) {
        take_away(log, message).await?;
    }
    Ok(())
}

/// Returns the entries that the bucket has of a conversation, at all places.
async fn there(log: &NatsLog, key: &ConversationKey) -> Result<Vec<RawMessage>, ReadError> {
    let subject = subjects::kv(BUCKET, &subjects::index_everywhere(&key.org, key.conversation));
    match log.last_of(STREAM, &[subject]).await? {
        LastMessages::All(messages) => Ok(messages),
        LastMessages::TooMany => Err(ReadError::Unavailable("a conversation has too many entries".into())),
    }
}

/// Deletes an entry, unless another writer has changed it: then that writer clears up.
async fn take_away(log: &NatsLog, message: &RawMessage) -> Result<(), AppendError> {
    let expected = message.seq.to_string();
    let gone =
        [("KV-Operation", "DEL"), ("Nats-TTL", GONE_SECS), ("Nats-Expected-Last-Subject-Sequence", expected.as_str())];
    let id = format!("index-gone-{}", Uuid::new_v4());
    match log.put(&message.subject, &id, &gone, "".into()).await {
        Ok(()) | Err(AppendError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Groups events by conversation.
fn by_conversation(messages: Vec<WorkItem>) -> HashMap<ConversationKey, PendingUpdate> {
    let mut all: HashMap<ConversationKey, PendingUpdate> = HashMap::new();
    for message in messages {
        let Some(key) = ConversationKey::parse_event(message.subject()) else { continue };
        let due = all.entry(key).or_default();
        due.last_seq = due.last_seq.max(message.seq().unwrap_or_default());
        due.messages.push(message);
    }
    all
}

/// Postpones the redelivery of events, each time for longer, so that unreadable ones do not hold up the others.
async fn put_off(messages: Vec<WorkItem>) {
    for message in messages {
        message.give_back(Some(backoff::put_off(message.deliveries()))).await;
    }
}

async fn ack(messages: Vec<WorkItem>) {
    for message in messages {
        message.ack().await;
    }
}
