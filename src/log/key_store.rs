//! The conversations' encryption keys in the bucket KEYS, and encryption with them.
//!
//! Contract: a key is written once, before the first payload that it encrypts, and no publish replaces it. Destroying a key
//! leaves a marker, so that "destroyed" differs from "missing". A payload encrypted with a destroyed key is erased
//! (crypto-shredding): it reads as `None`, never as an error; a missing key is an error. Without master keys a log writes
//! clear payloads, and reads clear ones only.

mod erasures;

use std::{fmt::Display, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::ErasureState;
use crate::{
    domain::Event,
    encryption::{ContentKey, DataKey, EncryptedPayload, KeyClass, MasterKeys, WrappedKey},
    limits,
    nats::{
        AppendError, ReadError, ReadFrom,
        backoff::Backoff,
        connection::soon,
        jetstream::{JetStream, RawMessage},
    },
    subjects,
};

/// The stream behind the bucket.
pub const STREAM: &str = "KV_KEYS";

/// Content type of an encrypted payload.
pub(super) const ENCRYPTED_TYPE: &str = "application/vnd.turnstream.sealed";

/// The master keys of a process, and its cache of conversation keys.
#[derive(Clone)]
pub struct KeyStore {
    masters: Arc<MasterKeys>,
    cached: Cache<(Uuid, KeyClass), KeyLookup>,
}

/// A key with its class.
type EncryptionKey = (KeyClass, Arc<DataKey>);

#[derive(Clone)]
enum KeyLookup {
    Key(Arc<DataKey>),
    Destroyed,
    /// The bucket has no entry.
    Absent,
}

/// The result of decrypting an event's payload.
pub(super) enum DecryptedPayload {
    Clear(Bytes),
    /// The key was destroyed.
    Erased,
    /// The payload was encrypted for another subject, or with a key of another conversation.
    Foreign,
}

/// An entry of the bucket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyEntry {
    Key(WrappedKey),
    #[serde(rename_all = "camelCase")]
    Destroyed {
        destroyed_at: DateTime<Utc>,
    },
}

impl KeyStore {
    pub fn new(masters: MasterKeys) -> Self {
        let fresh = Duration::from_secs(limits::KEYS_FRESH_SECS);
        let known = Cache::builder().max_capacity(limits::KEYS_CACHED).time_to_live(fresh).build();
        Self { masters: Arc::new(masters), cached: known }
    }

    /// Unwraps the key in an entry of the bucket.
    fn read(&self, entry: &RawMessage, (conversation, class): (Uuid, KeyClass)) -> Result<KeyLookup, ReadError> {
        let unreadable = |cause: &dyn Display| ReadError::Encrypted(format!("the key of {conversation}: {cause}"));
        match serde_json::from_slice(&entry.payload).map_err(|error| unreadable(&error))? {
            KeyEntry::Destroyed { .. } => Ok(KeyLookup::Destroyed),
            KeyEntry::Key(wrapped) => {
                let key = self.masters.unwrap(&name(conversation, class), &wrapped);
                key.map(|key| KeyLookup::Key(Arc::new(key))).map_err(|error| unreadable(&error))
            }
        }
    }
}

/// Returns the class of an event's payload. `None`: it holds only ids and stays clear.
pub fn class_of(event: &Event) -> Option<KeyClass> {
    match event {
        Event::TurnStarted(_) | Event::Erased(_) | Event::Unreadable(_) => None,
        Event::TurnReleased(e) => e.shown.as_ref().map(|_| KeyClass::Said),
        Event::TurnModelReplied(_)
        | Event::TurnToolCalled(_)
        | Event::TurnToolReturned(_)
        | Event::TurnParked(_)
        | Event::TurnResumed(_) => Some(KeyClass::Tools),
        Event::SessionOpened(_)
        | Event::SessionIdentified(_)
        | Event::ConversationRenamed(_)
        | Event::TurnRequested(_)
        | Event::TurnCompleted(_)
        | Event::TurnFailed(_)
        | Event::TurnCancelled(_) => Some(KeyClass::Said),
    }
}

/// JetStream with the keys of conversations. Without master keys, payloads are clear.
#[derive(Clone)]
pub struct KeyedJetStream {
    pub(super) jetstream: JetStream,
    pub(super) keys: Option<KeyStore>,
}

impl Deref for KeyedJetStream {
    type Target = JetStream;

    fn deref(&self) -> &JetStream {
        &self.jetstream
    }
}

impl KeyedJetStream {
    /// Encrypts an event's payload for its subject (`place`). `None`: the payload is stored in the clear.
    ///
    /// `first`: the event is the conversation's first, so there is no key yet.
    pub(super) async fn encrypt_event(
        &self,
        conversation: Uuid,
        event: &Event,
        first: bool,
        place: &str,
        clear: &[u8],
    ) -> Result<Option<Bytes>, AppendError> {
        let Some((keys, class)) = self.keys.as_ref().zip(class_of(event)) else { return Ok(None) };
        let (class, key) = match first {
            true => self.make_key(keys, conversation, class).await?,
            false => self.encryption_key(keys, conversation, class).await?,
        };
        Ok(Some(key.encrypt(conversation, class, place, clear)))
    }

    /// Encrypts a payload of a conversation that is not an event, for its subject (`place`).
    pub async fn encrypt(&self, conversation: Uuid, place: &str, clear: Bytes) -> Result<Bytes, AppendError> {
        let Some(keys) = &self.keys else { return Ok(clear) };
        let (class, key) = self.encryption_key(keys, conversation, KeyClass::Said).await?;
        Ok(key.encrypt(conversation, class, place, &clear))
    }

    /// Decrypts the payload of an event.
    ///
    /// A payload that no process can have encrypted there ([`DecryptedPayload::Foreign`]) differs from one that can't be decrypted
    /// now (an error).
    pub(super) async fn decrypt_event(
        &self,
        place: &str,
        conversation: Uuid,
        payload: Bytes,
    ) -> Result<DecryptedPayload, ReadError> {
        let Some(encrypted) = EncryptedPayload::parse(&payload) else { return Ok(DecryptedPayload::Clear(payload)) };
        if encrypted.conversation != conversation {
            return Ok(DecryptedPayload::Foreign);
        }
        // Without a master key an encrypted payload is an error of this process, not of the payload.
        let Some(keys) = &self.keys else { return Err(no_master()) };
        match self.key_of(keys, &encrypted).await? {
            KeyLookup::Key(key) if key.is_of(&encrypted) => {
                Ok(key.decrypt(place, &encrypted).map_or(DecryptedPayload::Foreign, DecryptedPayload::Clear))
            }
            KeyLookup::Key(_) => Ok(DecryptedPayload::Foreign),
            KeyLookup::Destroyed => Ok(DecryptedPayload::Erased),
            KeyLookup::Absent => Err(absent(conversation)),
        }
    }

    /// Returns the erased classes of a conversation, by keys that are at most a moment old.
    pub(super) async fn erasure_state_of(&self, conversation: Uuid) -> Result<ErasureState, ReadError> {
        let Some(keys) = &self.keys else { return Ok(ErasureState::default()) };
        let is_destroyed = async |class| {
            let known = self.find_key(keys, (conversation, class)).await?;
            Ok::<_, ReadError>(matches!(known, KeyLookup::Destroyed))
        };
        let (said, tools) = tokio::join!(is_destroyed(KeyClass::Said), is_destroyed(KeyClass::Tools));
        Ok(ErasureState { said_erased: said?, tools_erased: tools? })
    }

    /// Decrypts a payload stored at a subject (`place`). `None`: it is erased.
    pub async fn decrypt(&self, place: &str, payload: Bytes) -> Result<Option<Bytes>, ReadError> {
        let Some(encrypted) = EncryptedPayload::parse(&payload) else { return Ok(Some(payload)) };
        let Some(keys) = &self.keys else {
            return Err(no_master());
        };
        match self.key_of(keys, &encrypted).await? {
            KeyLookup::Key(key) if key.is_of(&encrypted) => {
                key.decrypt(place, &encrypted).map(Some).map_err(|error| ReadError::Encrypted(error.to_string()))
            }
            KeyLookup::Destroyed => Ok(None),
            // The key is missing or another one: it is being destroyed at this moment, or the bucket was lost. Reading this
            // as erased would lose the content.
            KeyLookup::Key(_) | KeyLookup::Absent => Err(absent(encrypted.conversation)),
        }
    }

    /// Returns a message with its payload decrypted. `None`: it is erased.
    pub async fn decrypted(&self, message: RawMessage) -> Result<Option<RawMessage>, ReadError> {
        let payload = self.decrypt(&message.subject, message.payload.clone()).await?;
        Ok(payload.map(|payload| RawMessage { payload, ..message }))
    }

    /// Returns the key for an attachment's content, if contents are encrypted.
    pub(super) async fn content_key(
        &self,
        conversation: Uuid,
        sha256: &[u8; 32],
    ) -> Result<Option<ContentKey>, AppendError> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let (_, key) = self.encryption_key(keys, conversation, KeyClass::Said).await?;
        Ok(Some(key.of_content(sha256)))
    }

    /// Drops the destroyed keys of a conversation from the cache.
    fn forget_keys(&self, conversation: Uuid) {
        if let Some(keys) = &self.keys {
            KeyClass::ALL.iter().for_each(|(class, _)| keys.cached.invalidate(&(conversation, *class)));
        }
    }

    /// Fails if this process can unwrap none of the first conversation keys. A stray entry among them costs only itself.
    pub async fn check_keys(&self) -> Result<(), ReadError> {
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        let entries = loop {
            match self.next_of(STREAM, &subjects::keys_of(None), 1).await {
                Ok((entries, _)) => break entries,
                Err(_) if backoff.pause().await => {}
                Err(error) => return Err(error),
            }
        };
        let whole = entries.iter().filter(|entry| serde_json::from_slice::<KeyEntry>(&entry.payload).is_ok());
        let mut refused = None;
        for entry in whole {
            let Some((conversation, class)) = subjects::parse_key_of(&entry.subject) else { continue };
            let Some((class, _)) = KeyClass::ALL.iter().find(|(_, name)| *name == class) else { continue };
            let Some(keys) = &self.keys else { return Err(no_master()) };
            match keys.read(entry, (conversation, *class)) {
                Ok(_) => return Ok(()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Destroys a key: deletes its message, overwrites the bytes, and leaves a marker.
    ///
    /// False: it was destroyed before, or never existed.
    pub async fn destroy_key(&self, conversation: Uuid, class: KeyClass) -> Result<bool, AppendError> {
        let subject = subjects::key_of(conversation, class.name());
        let mut was_there = false;
        let mut backoff = Backoff::new(limits::APPEND_DEADLINE_MS);
        loop {
            let last =
                self.get(STREAM, &json!({ "last_by_subj": subject }), ReadFrom::Leader).await.map_err(unavailable)?;
            match last {
                Some(mark) if !is_there(&mark) => return Ok(was_there),
                Some(key) => {
                    self.overwrite(STREAM, key.seq).await?;
                    was_there = true;
                }
                None => {}
            }
            let mark = KeyEntry::Destroyed { destroyed_at: Utc::now() };
            let mark = serde_json::to_vec(&mark).expect("an entry is a map with string keys");
            let id = format!("key-{}", Uuid::new_v4().simple());
            match self.put_first(&subject, &id, mark.into()).await {
                Ok(()) => return Ok(was_there),
                // Another process made a new key at this very moment.
                Err(AppendError::Conflict) if backoff.pause().await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells every process to drop a conversation with destroyed keys.
    pub async fn tell_erased(&self, conversation: Uuid) -> Result<(), AppendError> {
        let unheard = AppendError::Unavailable;
        soon(self.client.publish(subjects::erased(conversation), "".into())).await.map_err(unheard)?;
        soon(self.client.flush()).await.map_err(unheard)
    }

    async fn encryption_key(
        &self,
        keys: &KeyStore,
        conversation: Uuid,
        class: KeyClass,
    ) -> Result<EncryptionKey, AppendError> {
        match self.find_key(keys, (conversation, class)).await.map_err(unavailable)? {
            KeyLookup::Key(key) => Ok((class, key)),
            KeyLookup::Destroyed => self.instead_of(keys, conversation, class).await,
            KeyLookup::Absent => self.make_key(keys, conversation, class).await,
        }
    }

    /// Returns the key for new tool content after earlier tool content was erased: the one of the messages, with their
    /// retention.
    async fn instead_of(
        &self,
        keys: &KeyStore,
        conversation: Uuid,
        class: KeyClass,
    ) -> Result<EncryptionKey, AppendError> {
        match class {
            KeyClass::Said => Err(AppendError::Erased),
            KeyClass::Tools => Box::pin(self.encryption_key(keys, conversation, KeyClass::Said)).await,
        }
    }

    /// Makes a key, or returns the one that another process made first.
    async fn make_key(
        &self,
        keys: &KeyStore,
        conversation: Uuid,
        class: KeyClass,
    ) -> Result<EncryptionKey, AppendError> {
        let key = Arc::new(DataKey::generate());
        let wrapped = KeyEntry::Key(keys.masters.wrap(&name(conversation, class), &key));
        let payload = serde_json::to_vec(&wrapped).expect("an entry is a map with string keys");
        let subject = subjects::key_of(conversation, class.name());
        let id = format!("key-{}", Uuid::new_v4().simple());
        match self.put_first(&subject, &id, payload.into()).await {
            Ok(()) => {
                keys.cached.insert((conversation, class), KeyLookup::Key(key.clone()));
                Ok((class, key))
            }
            Err(AppendError::Conflict) => {
                keys.cached.invalidate(&(conversation, class));
                match self.find_key(keys, (conversation, class)).await.map_err(unavailable)? {
                    KeyLookup::Key(key) => Ok((class, key)),
                    KeyLookup::Destroyed => self.instead_of(keys, conversation, class).await,
                    KeyLookup::Absent => {
                        Err(AppendError::Unavailable("a conversation's key is being destroyed".into()))
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the key of an encrypted payload. A mismatch or a missing key is confirmed by a second read.
    async fn key_of(&self, keys: &KeyStore, encrypted: &EncryptedPayload<'_>) -> Result<KeyLookup, ReadError> {
        let whose = (encrypted.conversation, encrypted.class);
        match self.find_key(keys, whose).await? {
            KeyLookup::Key(key) if !key.is_of(encrypted) => {}
            KeyLookup::Absent => {}
            known => return Ok(known),
        }
        keys.cached.invalidate(&whose);
        self.find_key(keys, whose).await
    }

    /// Returns a key from the short-lived cache, else from the bucket's leader: a lagging replica would bring back a
    /// destroyed one.
    async fn find_key(&self, keys: &KeyStore, whose: (Uuid, KeyClass)) -> Result<KeyLookup, ReadError> {
        if let Some(known) = keys.cached.get(&whose) {
            return Ok(known);
        }
        let (conversation, class) = whose;
        let query = json!({ "last_by_subj": subjects::key_of(conversation, class.name()) });
        let known = match self.get(STREAM, &query, ReadFrom::Leader).await? {
            Some(message) => keys.read(&message, whose)?,
            None => KeyLookup::Absent,
        };
        keys.cached.insert(whose, known.clone());
        Ok(known)
    }
}

/// Returns whether an entry of the bucket holds a key.
pub fn is_there(message: &RawMessage) -> bool {
    !matches!(serde_json::from_slice(&message.payload), Ok(KeyEntry::Destroyed { .. }))
}

fn absent(conversation: Uuid) -> ReadError {
    ReadError::NoKey(conversation)
}

fn no_master() -> ReadError {
    ReadError::Encrypted("set SMOOTH_AGENT_MASTER_KEY or SMOOTH_AGENT_MASTER_KEY_FILE".into())
}

/// Returns the name that a wrapped key is bound to.
fn name(conversation: Uuid, class: KeyClass) -> String {
    format!("{conversation}/{}", class.name())
}

fn unavailable(error: ReadError) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        event::TurnReleased,
        frame_trace::{FrameKind, FrameRecorder},
    };

    #[test]
    fn a_frame_trace_is_encrypted_as_conversation_text() {
        let mut showing = FrameRecorder::default();
        let released = |shown| Event::TurnReleased(TurnReleased { turn: Uuid::nil(), epoch: 1, shown });
        assert_eq!(class_of(&released(showing.trace(""))), None);
        showing.frame(FrameKind::Reasoning, "a secret", DateTime::default());
        assert_eq!(class_of(&released(showing.trace(""))), Some(KeyClass::Said));
    }
}
