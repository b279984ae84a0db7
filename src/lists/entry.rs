//! The entry of a conversation in the index, and its key.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::BUCKET;
use crate::{
    domain::Conversation,
    log::jetstream_log::NatsLog,
    nats::{AppendError, ReadError, jetstream::RawMessage},
    subjects::{self, ConversationKey},
};

/// A conversation in the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Entry")]
pub struct ListEntry {
    pub conversation: Uuid,
    /// Sequence of the conversation's last event that the entry covers: of two entries the one with the higher
    /// sequence counts.
    pub last_seq: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// E-mail address of the conversation's owner, as the fold has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    pub created_at: DateTime<Utc>,
    /// The time of the last message.
    pub updated_at: DateTime<Utc>,
    pub message_count: u64,
    /// Title and owner, encrypted, in base64; the fields themselves are then empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "sealed")]
    pub encrypted: Option<String>,
}

/// The encrypted part of an entry.
#[derive(Serialize, Deserialize)]
struct EntryNames {
    title: String,
    owner: Option<String>,
}

/// A position in a list, which goes from the newest conversation to the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPosition {
    /// Microseconds of the Unix clock.
    pub micros: i64,
    /// The tie-breaker for conversations of one moment.
    pub conversation: Uuid,
}

impl ListEntry {
    /// Returns the entry of a conversation; `None` for a conversation without a message.
    pub fn of(conversation: Uuid, state: &Conversation) -> Option<Self> {
        Some(Self {
            conversation,
            last_seq: state.last_seq,
            title: state.shown_title().to_string(),
            owner: state.owner.clone(),
            created_at: state.created_at.or(state.updated_at)?,
            updated_at: state.updated_at?,
            message_count: state.message_count,
            encrypted: None,
        })
    }

    /// Returns the stored form of the entry, with its names encrypted.
    pub(super) async fn encrypt(self, log: &NatsLog) -> Result<Self, AppendError> {
        let names = EntryNames { title: self.title.clone(), owner: self.owner.clone() };
        let clear = Bytes::from(serde_json::to_vec(&names).expect("names are a map with string keys"));
        let encrypted = log.encrypt(self.conversation, BUCKET, clear.clone()).await?;
        Ok(match encrypted == clear {
            true => self,
            false => {
                Self { title: String::new(), owner: None, encrypted: Some(BASE64_STANDARD.encode(encrypted)), ..self }
            }
        })
    }

    /// Decrypts the entry's names. Returns `None` if the conversation was erased.
    pub(super) async fn decrypt(self, log: &NatsLog) -> Result<Option<Self>, ReadError> {
        let Some(encrypted) = &self.encrypted else { return Ok(Some(self)) };
        let malformed = |cause: &dyn std::fmt::Display| ReadError::Encrypted(format!("an index entry: {cause}"));
        let Ok(encrypted) = BASE64_STANDARD.decode(encrypted) else {
            tracing::warn!(conversation = %self.conversation, "an index entry is malformed");
            return Ok(None);
        };
        let clear = match log.decrypt(BUCKET, encrypted.into()).await {
            Ok(Some(clear)) => clear,
            Ok(None) => return Ok(None),
            // An entry that this deployment has not encrypted is missing in the list, and hides no other.
            Err(error @ (ReadError::Encrypted(_) | ReadError::NoKey(_))) => {
                tracing::warn!(%error, conversation = %self.conversation, "an index entry can't be decrypted");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let EntryNames { title, owner } = serde_json::from_slice(&clear).map_err(|error| malformed(&error))?;
        Ok(Some(Self { title, owner, encrypted: None, ..self }))
    }

    /// Parses the entry in a message of the bucket; `None` if the entry was deleted or is malformed.
    pub fn read(message: &RawMessage) -> Option<Self> {
        if message.headers.contains_key("KV-Operation") || message.payload.is_empty() {
            return None;
        }
        serde_json::from_slice(&message.payload)
            .inspect_err(
                |error| tracing::warn!(%error, subject = message.subject, "an index entry is malformed and is skipped"),
            )
            .ok()
    }

    /// Returns the entry's subject.
    pub fn subject(&self, key: &ConversationKey) -> String {
        let key = subjects::index_key(&key.org, self.owner.as_deref(), self.day(), self.conversation);
        subjects::kv(BUCKET, &key)
    }

    pub fn place(&self) -> ListPosition {
        ListPosition { micros: self.updated_at.timestamp_micros(), conversation: self.conversation }
    }

    fn day(&self) -> NaiveDate {
        self.updated_at.date_naive()
    }
}

impl ListPosition {
    /// Returns the day of the position.
    pub fn day(&self) -> Option<NaiveDate> {
        DateTime::from_timestamp_micros(self.micros).map(|at| at.date_naive())
    }
}
