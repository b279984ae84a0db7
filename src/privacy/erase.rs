//! Finds the content to erase, and erases it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use serde_json::json;
use uuid::Uuid;

use super::{
    ledger::{ErasureExtent, Ledger, LedgerAction, LedgerEntry, LedgerError},
    person::Person,
};
use crate::{
    domain::{
        Event, RecordedEvent,
        event::{TurnCancelled, TurnCompleted, TurnFailed},
    },
    encryption::EncryptedPayload,
    history::{
        chain_reader::{self, ReadBounds, WholeConversation},
        stream_reader::StreamReader,
    },
    ids, limits,
    lists::indexer::forget,
    live::replay::LIVE,
    log::{jetstream_log::NatsLog, key_store::class_of},
    nats::{AppendError, ReadError, ReadFrom, jetstream::RawMessage, streams::CHAT},
    subjects::{self, ConversationKey},
};

/// The author of retention's erasures.
pub const RETENTION: &str = "retention";

/// The content of some conversations.
#[derive(Default)]
pub struct ErasureFindings {
    pub people: BTreeMap<Uuid, BTreeSet<Person>>,
    /// The log keys of the conversations.
    pub keys: BTreeMap<Uuid, ConversationKey>,
    /// Clear events with erasable content, by conversation.
    pub clear_events: BTreeMap<Uuid, u64>,
    /// Conversations with content left to erase.
    pub readable: BTreeSet<Uuid>,
    /// The unfinished turn of each conversation that has one.
    pub active: BTreeMap<Uuid, Uuid>,
    /// Conversations with content that can't be decrypted now, and the reason.
    pub closed: BTreeMap<Uuid, String>,
    /// Time of the last stored event of each conversation.
    pub last_at: BTreeMap<Uuid, DateTime<Utc>>,
}

/// The conversations to erase, and the reason.
pub struct ErasureOrder {
    pub person: Option<Person>,
    pub conversations: BTreeSet<Uuid>,
    pub extent: ErasureExtent,
    pub reason: String,
    pub by: String,
}

/// The result of an erasure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasureReport {
    pub conversations: u64,
    pub keys: u64,
    pub clear_events: u64,
    /// Conversations that could not be erased, and the reason; their request stays in the ledger.
    pub failed: BTreeMap<Uuid, String>,
}

impl ErasureReport {
    fn add(&mut self, more: Self) {
        self.conversations += more.conversations;
        self.keys += more.keys;
        self.clear_events += more.clear_events;
        self.failed.extend(more.failed);
    }
}

impl ErasureFindings {
    /// Reads all conversations of a region; `progress` gets the sequence that was read last.
    pub async fn in_region(log: &NatsLog, region: &str, progress: impl Fn(u64)) -> Result<Self, ReadError> {
        let mut stream_reader = StreamReader::new(log.clone(), region, None);
        let mut found = Self::default();
        while let Some(message) = stream_reader.next().await? {
            let seq = message.seq;
            found.take(log, message).await?;
            progress(seq);
        }
        Ok(found)
    }

    /// Reads a conversation; the result is empty if it does not exist.
    pub async fn in_conversation(log: &NatsLog, region: &str, conversation: Uuid) -> Result<Self, ReadError> {
        let (stream, events) = (subjects::stream_name(CHAT, region), subjects::events_of(region, Some(conversation)));
        let last = log.get(&stream, &json!({ "last_by_subj": events }), ReadFrom::Leader).await?;
        let Some(key) = last.and_then(|last| ConversationKey::parse_event(&last.subject)) else {
            return Ok(Self::default());
        };
        let mut found = Self::default();
        if let WholeConversation::Read(messages) = chain_reader::whole(log, &key, ReadBounds::NONE).await? {
            for message in messages {
                found.take(log, message).await?;
            }
        }
        Ok(found)
    }

    async fn take(&mut self, log: &NatsLog, message: RawMessage) -> Result<(), ReadError> {
        let Some(key) = ConversationKey::parse_event(&message.subject) else { return Ok(()) };
        let (id, is_encrypted) = (key.conversation, EncryptedPayload::parse(&message.payload).is_some());
        let last_at = self.last_at.entry(id).or_insert(message.stored_at);
        *last_at = message.stored_at.max(*last_at);
        self.keys.entry(id).or_insert(key);
        let recorded = match log.decode(message).await {
            Ok(stored) => stored.recorded,
            // An undecryptable event does not stop the erasure of other conversations.
            Err(error @ (ReadError::Encrypted(_) | ReadError::NoKey(_))) => {
                self.closed.entry(id).or_insert(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let event = &recorded.event;
        self.people.entry(id).or_default().extend(Person::all_of(event));
        self.follow_turn(id, &recorded);
        // An unreadable event may hold any content.
        if class_of(event).is_some() || matches!(event, Event::Unreadable(_)) {
            self.readable.insert(id);
            *self.clear_events.entry(id).or_default() += u64::from(!is_encrypted);
        }
        Ok(())
    }

    fn follow_turn(&mut self, id: Uuid, recorded: &RecordedEvent) {
        if recorded.event.is_void_at(recorded.stored_at) {
            return;
        }
        match &recorded.event {
            Event::TurnRequested(e) => drop(self.active.entry(id).or_insert(e.turn)),
            Event::TurnCompleted(TurnCompleted { turn, .. })
            | Event::TurnFailed(TurnFailed { turn, .. })
            | Event::TurnCancelled(TurnCancelled { turn, .. })
                if self.active.get(&id) == Some(turn) =>
            {
                self.active.remove(&id);
            }
            _ => {}
        }
    }

    /// Adds other conversations.
    pub fn add(&mut self, others: Self) {
        self.people.extend(others.people);
        self.keys.extend(others.keys);
        self.clear_events.extend(others.clear_events);
        self.readable.extend(others.readable);
        self.active.extend(others.active);
        self.closed.extend(others.closed);
        self.last_at.extend(others.last_at);
    }

    /// Returns the conversations that name a person.
    pub fn of(&self, person: &Person) -> BTreeSet<Uuid> {
        let with = self.people.iter().filter(|(_, people)| people.contains(person));
        with.map(|(id, _)| *id).filter(|id| self.readable.contains(id)).collect()
    }
}

/// Erases conversations that were found; `progress` is called for each.
pub async fn erase(
    log: &NatsLog,
    ledger: &mut Ledger,
    found: &ErasureFindings,
    order: &ErasureOrder,
    progress: impl Fn(),
) -> Result<ErasureReport, LedgerError> {
    let mut done = ErasureReport::default();
    // One hold fails the whole order, before any key is destroyed.
    ledger.refuse_held(&order.conversations, &found.people)?;
    let all: Vec<Uuid> = order.conversations.iter().copied().collect();
    for conversations in all.chunks(limits::ERASE_BATCH) {
        let ErasureOrder { person, extent, reason, by, .. } = order;
        let erasure = ids::new_random();
        let part: BTreeSet<Uuid> = conversations.iter().copied().collect();
        let deed = LedgerAction::EraseRequested {
            erasure,
            person: person.clone(),
            conversations: part.clone(),
            extent: *extent,
            reason: reason.clone(),
        };
        ledger.add(LedgerEntry { at: Utc::now(), by: by.clone(), deed }, &found.people).await?;
        let (person, reason) = (person.clone(), reason.clone());
        let requested =
            PendingErasure { erasure, person, conversations: part, extent: *extent, reason, by: by.clone(), keys: 0 };
        done.add(requested.carry_out(log, ledger, found, BTreeMap::new(), &progress).await?);
    }
    Ok(done)
}

/// Decides whether retention may still erase a conversation.
pub type StillDue<'a> = &'a (dyn Fn(Uuid, ErasureExtent, &ErasureFindings) -> bool + Sync);

/// Completes open erasures: their process died, or a part could not be carried out.
///
/// Conversations that are held by now stay; so do retention's finds that are no longer due. Without `still_due`,
/// retention's erasures are left to its sweep.
pub async fn complete_open(
    log: &NatsLog,
    ledger: &mut Ledger,
    region: &str,
    still_due: Option<StillDue<'_>>,
) -> Result<ErasureReport, LedgerError> {
    let mut done = ErasureReport::default();
    for LedgerEntry { by, deed, .. } in ledger.open() {
        let LedgerAction::EraseRequested { erasure, person, conversations, extent, reason } = deed else { continue };
        let is_retention = by == RETENTION;
        if is_retention && still_due.is_none() {
            continue;
        }
        let (mut found, mut keys, mut failed, mut kept) = (ErasureFindings::default(), 0, BTreeMap::new(), Vec::new());
        for id in &conversations {
            // A readable conversation still has its key, and its people are known.
            if let Ok(now) = ErasureFindings::in_conversation(log, region, *id).await {
                let is_held = ledger.hold_on(*id, now.people.get(id)).is_some();
                let is_over =
                    is_retention && now.readable.contains(id) && still_due.is_some_and(|due| !due(*id, extent, &now));
                if is_held || is_over {
                    kept.push(*id);
                    failed.insert(*id, "it is held, or in use again".to_string());
                    continue;
                }
            }
            // A key may have been deleted without a marker: then the conversation is unreadable until the marker is
            // written.
            let destroyed = destroy_keys(log, *id, extent).await.map_err(|error| error.to_string());
            let one = match destroyed {
                Ok(destroyed) => {
                    keys += destroyed;
                    ErasureFindings::in_conversation(log, region, *id).await.map_err(|error| error.to_string())
                }
                Err(cause) => Err(cause),
            };
            match one {
                Ok(one) => found.add(one),
                Err(cause) => drop(failed.insert(*id, cause)),
            }
        }
        let requested = PendingErasure { erasure, person, conversations, extent, reason, by, keys };
        let mut completed = requested.carry_out(log, ledger, &found, failed, &|| {}).await?;
        completed.failed.retain(|id, _| !kept.contains(id));
        done.add(completed);
    }
    Ok(done)
}

/// An erasure in the ledger.
struct PendingErasure {
    erasure: Uuid,
    person: Option<Person>,
    conversations: BTreeSet<Uuid>,
    extent: ErasureExtent,
    reason: String,
    by: String,
    /// Number of keys destroyed already.
    keys: u64,
}

impl PendingErasure {
    /// Erases the conversations except those in `failed`.
    ///
    /// Failures stay in the ledger as an erasure of their own, so they don't delay the completion of the others.
    async fn carry_out(
        self,
        log: &NatsLog,
        ledger: &mut Ledger,
        found: &ErasureFindings,
        mut failed: BTreeMap<Uuid, String>,
        progress: &impl Fn(),
    ) -> Result<ErasureReport, LedgerError> {
        let Self { erasure, person, mut conversations, extent, reason, by, mut keys } = self;
        let left: Vec<Uuid> = conversations.iter().filter(|id| !failed.contains_key(id)).copied().collect();
        let mut destroyed = stream::iter(left)
            .map(|id| async move { (id, destroy(log, id, found.keys.get(&id), extent).await) })
            .buffer_unordered(limits::ERASE_PARALLEL);
        while let Some((id, destroyed)) = destroyed.next().await {
            match destroyed {
                Ok(more) => keys += more,
                Err(error) => drop(failed.insert(id, error.to_string())),
            }
            progress();
        }
        if failed.len() == conversations.len() {
            return Ok(ErasureReport { failed, ..ErasureReport::default() });
        }
        if !failed.is_empty() {
            let rest: BTreeSet<Uuid> = failed.keys().copied().collect();
            conversations.retain(|id| !failed.contains_key(id));
            let deed = LedgerAction::EraseRequested {
                erasure: ids::new_random(),
                person,
                conversations: rest,
                extent,
                reason,
            };
            match ledger.add(LedgerEntry { at: Utc::now(), by: by.clone(), deed }, &found.people).await {
                Ok(()) => {}
                // The whole erasure stays open, and held conversations stay readable, until the hold is lifted.
                Err(LedgerError::Held { .. }) => return Ok(ErasureReport { failed, keys, ..ErasureReport::default() }),
                Err(error) => return Err(error),
            }
        }
        let clear_events = conversations.iter().filter_map(|id| found.clear_events.get(id)).sum();
        let deed = LedgerAction::EraseCompleted { erasure, keys_destroyed: keys, clear_events };
        ledger.add(LedgerEntry { at: Utc::now(), by, deed }, &BTreeMap::new()).await?;
        Ok(ErasureReport { conversations: conversations.len() as u64, keys, clear_events, failed })
    }
}

/// Erases a conversation and returns the number of destroyed keys.
///
/// (1) Destroy the keys; (2) delete the snapshot, the live frames and the index entries; (3) have every process drop its
/// state.
async fn destroy(
    log: &NatsLog,
    conversation: Uuid,
    key: Option<&ConversationKey>,
    extent: ErasureExtent,
) -> Result<u64, AppendError> {
    let keys = destroy_keys(log, conversation, extent).await?;
    if let Some(key) = key {
        log.forget_snapshot(key).await?;
    }
    if let Some(key) = key.filter(|_| extent == ErasureExtent::All) {
        let live = subjects::stream_name(LIVE, &key.region);
        log.purge(&live, &subjects::live_all(&key.region, conversation)).await?;
        forget(log, key).await?;
    }
    log.tell_erased(conversation).await?;
    Ok(keys)
}

async fn destroy_keys(log: &NatsLog, conversation: Uuid, extent: ErasureExtent) -> Result<u64, AppendError> {
    let mut keys = 0;
    for class in extent.classes() {
        keys += u64::from(log.destroy_key(conversation, class).await?);
    }
    Ok(keys)
}
