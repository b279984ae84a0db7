//! The ledger of holds and erasures: entries on `audit.{region}.privacy.…`, appended as one chain, so that a concurrent
//! hold and erasure see each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::person::Person;
use crate::{
    encryption::KeyClass,
    log::jetstream_log::NatsLog,
    nats::{AppendError, ReadError},
    subjects::{self, PrivacySubject},
};

/// Base name of the stream.
const AUDIT: &str = "AUDIT";

/// An entry of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Entry")]
pub struct LedgerEntry {
    pub at: DateTime<Utc>,
    /// The author, in their own words.
    pub by: String,
    #[serde(flatten)]
    pub deed: LedgerAction,
}

/// The recorded act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "deed", rename_all = "snake_case", rename_all_fields = "camelCase")]
#[schemars(rename = "Deed")]
pub enum LedgerAction {
    /// The held conversations must not be erased.
    HoldPlaced {
        hold: Uuid,
        on: HoldTarget,
        reason: String,
    },
    HoldLifted {
        hold: Uuid,
        reason: String,
    },
    /// The keys of these conversations are to be destroyed.
    EraseRequested {
        erasure: Uuid,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        person: Option<Person>,
        conversations: BTreeSet<Uuid>,
        extent: ErasureExtent,
        reason: String,
    },
    /// The keys are destroyed.
    EraseCompleted {
        erasure: Uuid,
        keys_destroyed: u64,
        /// Events stored in the clear, before payloads were encrypted: they can't be erased.
        clear_events: u64,
    },
}

impl LedgerAction {
    fn kind(&self) -> PrivacySubject {
        match self {
            Self::HoldPlaced { .. } => PrivacySubject::HoldPlaced,
            Self::HoldLifted { .. } => PrivacySubject::HoldLifted,
            Self::EraseRequested { .. } => PrivacySubject::EraseRequested,
            Self::EraseCompleted { .. } => PrivacySubject::EraseCompleted,
        }
    }
}

/// The target of a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Held")]
pub enum HoldTarget {
    Conversation(Uuid),
    Person(Person),
}

impl fmt::Display for HoldTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conversation(id) => write!(f, "conversation {id}"),
            Self::Person(person) => write!(f, "person {person}"),
        }
    }
}

/// The part of a conversation that is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Extent")]
pub enum ErasureExtent {
    All,
    /// Requests to tools and people during turns, and their results.
    Tools,
}

impl ErasureExtent {
    pub fn classes(self) -> impl Iterator<Item = KeyClass> {
        let classes = KeyClass::ALL.into_iter().map(|(class, _)| class);
        classes.filter(move |class| self == Self::All || *class == KeyClass::Tools)
    }
}

impl fmt::Display for ErasureExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Tools => "tools",
        })
    }
}

/// The reason why an entry was not added.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("a ledger entry is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A hold on a conversation that was to be erased.
    #[error("{conversation} is held ({hold}): {reason}")]
    Held { conversation: Uuid, hold: Uuid, reason: String },
}

/// The ledger of a region, as read so far.
pub struct Ledger {
    log: NatsLog,
    region: String,
    last_seq: u64,
    holds: BTreeMap<Uuid, (HoldTarget, LedgerEntry)>,
    open: BTreeMap<Uuid, LedgerEntry>,
}

impl Ledger {
    /// Reads the whole ledger.
    pub async fn read(log: NatsLog, region: &str) -> Result<Self, LedgerError> {
        let (holds, open) = (BTreeMap::new(), BTreeMap::new());
        let mut ledger = Self { log, region: region.to_string(), last_seq: 0, holds, open };
        ledger.catch_up().await?;
        Ok(ledger)
    }

    /// Returns the holds in force.
    pub fn holds(&self) -> impl Iterator<Item = (&Uuid, &HoldTarget, &LedgerEntry)> {
        self.holds.iter().map(|(hold, (held, entry))| (hold, held, entry))
    }

    /// Returns the erasures that were requested and not completed: their process died, or a part could not be erased.
    pub fn open(&self) -> Vec<LedgerEntry> {
        self.open.values().cloned().collect()
    }

    /// Appends an entry after all concurrent ones.
    ///
    /// An erasure is refused if one of its conversations is held; `people` names the people in them.
    pub async fn add(
        &mut self,
        entry: LedgerEntry,
        people: &BTreeMap<Uuid, BTreeSet<Person>>,
    ) -> Result<(), LedgerError> {
        let payload = serde_json::to_vec(&entry).expect("an entry is a map with string keys");
        let subject = subjects::audit_privacy(&self.region, entry.deed.kind());
        let all = subjects::audit_privacy_all(&self.region);
        loop {
            if let LedgerAction::EraseRequested { conversations, .. } = &entry.deed {
                self.refuse_held(conversations, people)?;
            }
            let expected = self.last_seq.to_string();
            let headers = [
                ("Nats-Expected-Last-Subject-Sequence", expected.as_str()),
                ("Nats-Expected-Last-Subject-Sequence-Subject", all.as_str()),
            ];
            let id = format!("privacy-{}", Uuid::new_v4().simple());
            match self.log.put(&subject, &id, &headers, payload.clone().into()).await {
                Ok(()) => return self.catch_up().await,
                Err(AppendError::Conflict) => self.catch_up().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Fails if one of these conversations is held.
    pub fn refuse_held(
        &self,
        conversations: &BTreeSet<Uuid>,
        people: &BTreeMap<Uuid, BTreeSet<Person>>,
    ) -> Result<(), LedgerError> {
        match conversations.iter().find_map(|id| Some((id, self.hold_on(*id, people.get(id))?))) {
            None => Ok(()),
            Some((conversation, (hold, reason))) => {
                Err(LedgerError::Held { conversation: *conversation, hold, reason: reason.to_string() })
            }
        }
    }

    /// Returns the hold on a conversation with these people, and its reason.
    pub fn hold_on(&self, conversation: Uuid, people: Option<&BTreeSet<Person>>) -> Option<(Uuid, &str)> {
        let (hold, (_, entry)) = self.holds.iter().find(|(_, (held, _))| match held {
            HoldTarget::Conversation(id) => *id == conversation,
            HoldTarget::Person(person) => people.is_some_and(|people| people.contains(person)),
        })?;
        match &entry.deed {
            LedgerAction::HoldPlaced { reason, .. } => Some((*hold, reason)),
            _ => None,
        }
    }

    async fn catch_up(&mut self) -> Result<(), LedgerError> {
        let (stream, all) = (subjects::stream_name(AUDIT, &self.region), subjects::audit_privacy_all(&self.region));
        loop {
            let (messages, more) = self.log.next_of(&stream, &all, self.last_seq + 1).await?;
            for message in &messages {
                self.last_seq = message.seq;
                match (serde_json::from_slice(&message.payload), subjects::parse_audit_privacy(&message.subject)) {
                    (Ok(entry), _) => self.take(entry),
                    // A malformed hold may cover anything, so erasing stops until an operator has inspected it.
                    (Err(error), Some(PrivacySubject::HoldPlaced)) => return Err(error.into()),
                    (Err(error), _) => {
                        tracing::error!(%error, seq = message.seq, "a ledger entry is malformed and void");
                    }
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn take(&mut self, entry: LedgerEntry) {
        match &entry.deed {
            LedgerAction::HoldPlaced { hold, on, .. } => drop(self.holds.insert(*hold, (on.clone(), entry))),
            LedgerAction::HoldLifted { hold, .. } => drop(self.holds.remove(hold)),
            LedgerAction::EraseRequested { erasure, .. } => drop(self.open.insert(*erasure, entry)),
            LedgerAction::EraseCompleted { erasure, .. } => drop(self.open.remove(erasure)),
        }
    }
}
