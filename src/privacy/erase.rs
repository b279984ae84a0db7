//! Finding what is to be erased, and erasing it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::{
    ledger::{Deed, Entry, Extent, Ledger, LedgerError},
    person::Person,
};
use crate::{
    audit::scan::Scan,
    ids, limits,
    lists::keep::forget,
    live::replay::LIVE,
    log::{AppendError, ReadError, keys::class_of, nats::NatsLog},
    sealing::Sealed,
    subjects::{self, ConversationKey},
};

/// What is in some conversations.
#[derive(Default)]
pub struct Found {
    pub people: BTreeMap<Uuid, BTreeSet<Person>>,
    /// Where each of them is.
    pub keys: BTreeMap<Uuid, ConversationKey>,
    /// Events that hold something to erase and are stored in the clear.
    pub clear_events: BTreeMap<Uuid, u64>,
    /// Conversations of which something is left to erase.
    pub readable: BTreeSet<Uuid>,
}

/// What is to be erased, and why.
pub struct Order {
    pub person: Option<Person>,
    pub conversations: BTreeSet<Uuid>,
    pub extent: Extent,
    pub reason: String,
    pub by: String,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    pub conversations: u64,
    pub keys: u64,
    pub clear_events: u64,
}

impl Found {
    /// Reads a conversation, or all of the region; `progress` is told the sequence that was read last.
    pub async fn read(
        log: &NatsLog,
        region: &str,
        conversation: Option<Uuid>,
        progress: impl Fn(u64),
    ) -> Result<Self, ReadError> {
        let mut scan = Scan::new(log.clone(), region, conversation);
        let mut found = Self::default();
        while let Some(message) = scan.next().await? {
            let Some(key) = ConversationKey::parse_event(&message.subject) else { continue };
            let (id, seq, is_sealed) = (key.conversation, message.seq, Sealed::parse(&message.payload).is_some());
            found.keys.entry(id).or_insert(key);
            let event = log.decode(message).await?.recorded.event;
            found.people.entry(id).or_default().extend(Person::all_of(&event));
            if class_of(&event).is_some() {
                found.readable.insert(id);
                *found.clear_events.entry(id).or_default() += u64::from(!is_sealed);
            }
            progress(seq);
        }
        Ok(found)
    }

    /// What is in these and in others.
    pub fn add(&mut self, others: Self) {
        self.people.extend(others.people);
        self.keys.extend(others.keys);
        self.clear_events.extend(others.clear_events);
        self.readable.extend(others.readable);
    }

    /// The conversations that a person is in.
    pub fn of(&self, person: &Person) -> BTreeSet<Uuid> {
        let with = self.people.iter().filter(|(_, people)| people.contains(person));
        with.map(|(id, _)| *id).filter(|id| self.readable.contains(id)).collect()
    }
}

/// Erases conversations that were found; `progress` is called with each.
pub async fn erase(
    log: &NatsLog,
    ledger: &mut Ledger,
    found: &Found,
    order: &Order,
    progress: impl Fn(),
) -> Result<Erased, LedgerError> {
    let mut done = Erased::default();
    // One that is held fails all of them, before anything is erased.
    let all: Vec<Uuid> = order.conversations.iter().copied().collect();
    for conversations in all.chunks(limits::ERASE_BATCH) {
        let erasure = ids::new_random();
        let deed = Deed::EraseRequested {
            erasure,
            person: order.person.clone(),
            conversations: conversations.iter().copied().collect(),
            extent: order.extent,
            reason: order.reason.clone(),
        };
        ledger.add(Entry { at: Utc::now(), by: order.by.clone(), deed }, &found.people).await?;
        let part = carry_out(log, ledger, found, erasure, conversations, order.extent, &order.by, &progress).await?;
        done.conversations += part.conversations;
        done.keys += part.keys;
        done.clear_events += part.clear_events;
    }
    Ok(done)
}

/// Completes erasures that were requested by somebody who then died. True: there was something to complete.
pub async fn complete_open(log: &NatsLog, ledger: &mut Ledger, region: &str) -> Result<bool, LedgerError> {
    let open = ledger.open();
    for entry in &open {
        let Deed::EraseRequested { erasure, conversations, extent, .. } = &entry.deed else { continue };
        let mut found = Found::default();
        for id in conversations {
            found.add(Found::read(log, region, Some(*id), |_| {}).await?);
        }
        let conversations: Vec<Uuid> = conversations.iter().copied().collect();
        carry_out(log, ledger, &found, *erasure, &conversations, *extent, &entry.by, &|| {}).await?;
    }
    Ok(!open.is_empty())
}

#[expect(clippy::too_many_arguments, reason = "the parts of an order that was recorded")]
async fn carry_out(
    log: &NatsLog,
    ledger: &mut Ledger,
    found: &Found,
    erasure: Uuid,
    conversations: &[Uuid],
    extent: Extent,
    by: &str,
    progress: &impl Fn(),
) -> Result<Erased, LedgerError> {
    let destroyed = stream::iter(conversations)
        .map(|id| async move { destroy(log, *id, found.keys.get(id), extent).await.inspect(|_| progress()) })
        .buffer_unordered(limits::ERASE_PARALLEL);
    let keys = destroyed.try_fold(0, |sum, keys| async move { Ok(sum + keys) }).await?;
    let clear_events = conversations.iter().filter_map(|id| found.clear_events.get(id)).sum();
    let deed = Deed::EraseCompleted { erasure, keys_destroyed: keys, clear_events };
    ledger.add(Entry { at: Utc::now(), by: by.to_string(), deed }, &BTreeMap::new()).await?;
    Ok(Erased { conversations: conversations.len() as u64, keys, clear_events })
}

/// (1) Destroy the keys; (2) take away what is kept of the conversation for a while, and what names it in lists; (3) have every
/// process forget it. Returns how many keys there were.
async fn destroy(
    log: &NatsLog,
    conversation: Uuid,
    key: Option<&ConversationKey>,
    extent: Extent,
) -> Result<u64, AppendError> {
    let mut keys = 0;
    for class in extent.classes() {
        keys += u64::from(log.destroy_key(conversation, class).await?);
    }
    if let Some(key) = key.filter(|_| extent == Extent::All) {
        let live = subjects::stream_name(LIVE, &key.region);
        log.purge(&live, &subjects::live_all(&key.region, conversation)).await?;
        forget(log, key).await?;
    }
    log.tell_erased(conversation).await?;
    Ok(keys)
}
