//! Keys of conversations, in the bucket KEYS, and what they seal and open.
//!
//! Contract: a key is written once, before anything that it seals, and no publish replaces it; destroying it leaves a mark, so
//! that "destroyed" is told from "not there". What was sealed with a destroyed key is erased: it reads as `None`, never as
//! an error; a key that is missing is one. Without master keys a log writes clear payloads, and reads clear ones only.

use std::{fmt::Display, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    AppendError, ReadError, Via,
    backoff::Backoff,
    nats::{NatsLog, RawMessage},
};
use crate::{
    domain::Event,
    limits,
    sealing::{Class, ContentKey, DataKey, MasterKeys, Sealed, Wrapped},
    subjects,
};

/// The stream behind the bucket.
pub const STREAM: &str = "KV_KEYS";

/// Content type of a sealed payload.
pub(super) const SEALED_TYPE: &str = "application/vnd.turnstream.sealed";

/// The master keys of a process, and the conversations' keys that it has read.
#[derive(Clone)]
pub struct Keys {
    masters: Arc<MasterKeys>,
    known: Cache<(Uuid, Class), Known>,
}

/// A key, and the class that it is of.
type Sealer = (Class, Arc<DataKey>);

#[derive(Clone)]
enum Known {
    Key(Arc<DataKey>),
    Destroyed,
}

/// An entry of the bucket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Kept {
    Key(Wrapped),
    #[serde(rename_all = "camelCase")]
    Destroyed {
        destroyed_at: DateTime<Utc>,
    },
}

impl Keys {
    pub fn new(masters: MasterKeys) -> Self {
        let fresh = Duration::from_secs(limits::KEYS_FRESH_SECS);
        let known = Cache::builder().max_capacity(limits::KEYS_CACHED).time_to_live(fresh).build();
        Self { masters: Arc::new(masters), known }
    }

    /// The key in an entry of the bucket.
    fn read(&self, entry: &RawMessage, (conversation, class): (Uuid, Class)) -> Result<Known, ReadError> {
        let unreadable = |cause: &dyn Display| ReadError::Sealed(format!("the key of {conversation}: {cause}"));
        match serde_json::from_slice(&entry.payload).map_err(|error| unreadable(&error))? {
            Kept::Destroyed { .. } => Ok(Known::Destroyed),
            Kept::Key(wrapped) => {
                let key = self.masters.unwrap(&name(conversation, class), &wrapped);
                key.map(|key| Known::Key(Arc::new(key))).map_err(|error| unreadable(&error))
            }
        }
    }
}

/// The class of an event's payload. `None`: it holds ids and nothing else, and stays clear.
pub fn class_of(event: &Event) -> Option<Class> {
    match event {
        Event::TurnStarted(_) | Event::Erased(_) => None,
        Event::TurnReleased(e) => e.shown.as_ref().map(|_| Class::Said),
        Event::TurnModelReplied(_)
        | Event::TurnToolCalled(_)
        | Event::TurnToolReturned(_)
        | Event::TurnParked(_)
        | Event::TurnResumed(_) => Some(Class::Tools),
        Event::SessionOpened(_)
        | Event::SessionIdentified(_)
        | Event::ConversationRenamed(_)
        | Event::TurnRequested(_)
        | Event::TurnCompleted(_)
        | Event::TurnFailed(_)
        | Event::TurnCancelled(_) => Some(Class::Said),
    }
}

impl NatsLog {
    /// An event's payload as it is stored at a place; `first`: it is the conversation's first, so there is no key yet. `None`: it
    /// is stored in the clear.
    pub(super) async fn seal_event(
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
            false => self.key_to_seal(keys, conversation, class).await?,
        };
        Ok(Some(key.seal(conversation, class, place, clear)))
    }

    /// A payload of a conversation that is no event, as it is stored at a place.
    pub async fn seal(&self, conversation: Uuid, place: &str, clear: Bytes) -> Result<Bytes, AppendError> {
        let Some(keys) = &self.keys else { return Ok(clear) };
        let (class, key) = self.key_to_seal(keys, conversation, Class::Said).await?;
        Ok(key.seal(conversation, class, place, &clear))
    }

    /// What was stored at a place, in the clear. `None`: it is erased.
    pub async fn open(&self, place: &str, payload: Bytes) -> Result<Option<Bytes>, ReadError> {
        let Some(sealed) = Sealed::parse(&payload) else { return Ok(Some(payload)) };
        let Some(keys) = &self.keys else {
            return Err(no_master());
        };
        let whose = (sealed.conversation, sealed.class);
        let mut known = self.find_key(keys, whose).await?;
        if matches!(&known, Some(Known::Key(key)) if !key.is_of(&sealed)) {
            keys.known.invalidate(&whose);
            known = self.find_key(keys, whose).await?;
        }
        match known {
            Some(Known::Key(key)) if key.is_of(&sealed) => {
                key.open(place, &sealed).map(Some).map_err(|error| ReadError::Sealed(error.to_string()))
            }
            Some(Known::Destroyed) => Ok(None),
            // Not there, or not the one that sealed it: it is being destroyed at this moment, or the bucket was lost. To take that
            // for erased would be to erase it.
            Some(Known::Key(_)) | None => Err(ReadError::NoKey(sealed.conversation)),
        }
    }

    /// A message with its payload in the clear. `None`: it is erased.
    pub async fn opened(&self, message: RawMessage) -> Result<Option<RawMessage>, ReadError> {
        let payload = self.open(&message.subject, message.payload.clone()).await?;
        Ok(payload.map(|payload| RawMessage { payload, ..message }))
    }

    /// The key for a content that is attached to a conversation, if contents are sealed.
    pub(super) async fn content_key(
        &self,
        conversation: Uuid,
        sha256: &[u8; 32],
    ) -> Result<Option<ContentKey>, AppendError> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let (_, key) = self.key_to_seal(keys, conversation, Class::Said).await?;
        Ok(Some(key.of_content(sha256)))
    }

    /// Forgets the keys of a conversation, which somebody has destroyed.
    fn forget_keys(&self, conversation: Uuid) {
        if let Some(keys) = &self.keys {
            Class::ALL.iter().for_each(|(class, _)| keys.known.invalidate(&(conversation, *class)));
        }
    }

    /// Forgets the keys of what is erased while the process runs; `forget` forgets what else it knows of a conversation. A word
    /// that does not arrive costs time: a key that was read long ago is read again.
    pub async fn forget_erased(&self, forget: impl Fn(Uuid)) {
        loop {
            match self.client.subscribe(subjects::ERASED_ALL).await {
                Ok(mut erased) => {
                    while let Some(message) = erased.next().await {
                        let Some(conversation) = subjects::parse_last_id(&message.subject) else { continue };
                        self.forget_keys(conversation);
                        forget(conversation);
                    }
                }
                Err(error) => tracing::warn!(%error, "what is erased is not heard of"),
            }
            tokio::time::sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
        }
    }

    /// Fails when there are sealed conversations and this process can open none of those that are looked at. A stray or forged
    /// entry costs its own conversation an error, never a start.
    pub async fn check_keys(&self) -> Result<(), ReadError> {
        let (entries, _) = self.next_of(STREAM, &subjects::keys_of(None), 1).await?;
        let mut unreadable = Ok(());
        for entry in &entries {
            let Some((conversation, class)) = subjects::parse_key_of(&entry.subject) else { continue };
            let Some((class, _)) = Class::ALL.iter().find(|(_, name)| *name == class) else { continue };
            // One that says nothing which this program has written says nothing of its master key.
            let Ok(Kept::Key(_)) = serde_json::from_slice(&entry.payload) else { continue };
            match self.keys.as_ref().map(|keys| keys.read(entry, (conversation, *class))) {
                Some(Ok(_)) => return Ok(()),
                Some(Err(error)) => unreadable = Err(error),
                None => unreadable = Err(no_master()),
            }
        }
        unreadable
    }

    /// Destroys a key: deletes its message with the bytes overwritten, and leaves a mark. False: it was destroyed before, or was
    /// never there.
    pub async fn destroy_key(&self, conversation: Uuid, class: Class) -> Result<bool, AppendError> {
        let subject = subjects::key_of(conversation, class.name());
        let mut was_there = false;
        let mut backoff = Backoff::new(limits::APPEND_DEADLINE_MS);
        loop {
            let last = self.get(STREAM, &json!({ "last_by_subj": subject }), Via::Leader).await.map_err(unavailable)?;
            match last {
                Some(mark) if !is_there(&mark) => return Ok(was_there),
                Some(key) => {
                    self.overwrite(STREAM, key.seq).await?;
                    was_there = true;
                }
                None => {}
            }
            let mark = Kept::Destroyed { destroyed_at: Utc::now() };
            let mark = serde_json::to_vec(&mark).expect("an entry is a map with string keys");
            let id = format!("key-{}", Uuid::new_v4().simple());
            match self.put_first(&subject, &id, mark.into()).await {
                Ok(()) => return Ok(was_there),
                // Somebody made a new one at this very moment.
                Err(AppendError::Conflict) if backoff.pause().await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has every process forget a conversation whose keys are destroyed.
    pub async fn tell_erased(&self, conversation: Uuid) -> Result<(), AppendError> {
        let unheard = |error: String| AppendError::Unavailable(error);
        let told = self.client.publish(subjects::erased(conversation), "".into()).await;
        told.map_err(|error| unheard(error.to_string()))?;
        self.client.flush().await.map_err(|error| unheard(error.to_string()))
    }

    async fn key_to_seal(&self, keys: &Keys, conversation: Uuid, class: Class) -> Result<Sealer, AppendError> {
        match self.find_key(keys, (conversation, class)).await.map_err(unavailable)? {
            Some(Known::Key(key)) => Ok((class, key)),
            Some(Known::Destroyed) => self.instead_of(keys, conversation, class).await,
            None => self.make_key(keys, conversation, class).await,
        }
    }

    /// What is asked of tools after what had been asked earlier was erased is kept as long as what is said.
    async fn instead_of(&self, keys: &Keys, conversation: Uuid, class: Class) -> Result<Sealer, AppendError> {
        match class {
            Class::Said => Err(AppendError::Erased),
            Class::Tools => Box::pin(self.key_to_seal(keys, conversation, Class::Said)).await,
        }
    }

    /// Makes a key, unless somebody else does: then it is theirs.
    async fn make_key(&self, keys: &Keys, conversation: Uuid, class: Class) -> Result<Sealer, AppendError> {
        let key = Arc::new(DataKey::generate());
        let wrapped = Kept::Key(keys.masters.wrap(&name(conversation, class), &key));
        let payload = serde_json::to_vec(&wrapped).expect("an entry is a map with string keys");
        let subject = subjects::key_of(conversation, class.name());
        let id = format!("key-{}", Uuid::new_v4().simple());
        match self.put_first(&subject, &id, payload.into()).await {
            Ok(()) => {
                keys.known.insert((conversation, class), Known::Key(key.clone()));
                Ok((class, key))
            }
            Err(AppendError::Conflict) => {
                match self.find_key(keys, (conversation, class)).await.map_err(unavailable)? {
                    Some(Known::Key(key)) => Ok((class, key)),
                    Some(Known::Destroyed) => self.instead_of(keys, conversation, class).await,
                    None => Err(AppendError::Unavailable("a conversation's key is being destroyed".into())),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// A key as this process knows it, else as the bucket has it, whose leader has the last word.
    async fn find_key(&self, keys: &Keys, whose: (Uuid, Class)) -> Result<Option<Known>, ReadError> {
        if let Some(known) = keys.known.get(&whose) {
            return Ok(Some(known));
        }
        let (conversation, class) = whose;
        let query = json!({ "last_by_subj": subjects::key_of(conversation, class.name()) });
        for via in [Via::Replica, Via::Leader] {
            let Some(message) = self.get(STREAM, &query, via).await? else { continue };
            let known = keys.read(&message, whose)?;
            keys.known.insert(whose, known.clone());
            return Ok(Some(known));
        }
        Ok(None)
    }
}

/// Whether an entry of the bucket holds a key.
pub fn is_there(message: &RawMessage) -> bool {
    !matches!(serde_json::from_slice(&message.payload), Ok(Kept::Destroyed { .. }))
}

fn no_master() -> ReadError {
    ReadError::Sealed("set SMOOTH_AGENT_MASTER_KEY or SMOOTH_AGENT_MASTER_KEY_FILE".into())
}

/// What a wrapped key is bound to.
fn name(conversation: Uuid, class: Class) -> String {
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
        shown::{Showing, Voice},
    };

    #[test]
    fn what_was_shown_of_a_turn_is_sealed_with_what_was_said() {
        let mut showing = Showing::default();
        let released = |shown| Event::TurnReleased(TurnReleased { turn: Uuid::nil(), epoch: 1, shown });
        assert_eq!(class_of(&released(showing.shown(""))), None);
        showing.frame(Voice::Reasoning, "a secret", DateTime::default());
        assert_eq!(class_of(&released(showing.shown(""))), Some(Class::Said));
    }
}
