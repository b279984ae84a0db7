//! Keys of conversations, in the bucket KEYS, and what they seal and open.
//!
//! Contract: a key is written once, before anything that it seals, and no publish replaces it; destroying it leaves a mark, so
//! that "destroyed" is told from "not there". What was sealed with a destroyed key is erased: it reads as `None`, never as
//! an error; a key that is missing is one. Without master keys a log writes clear payloads, and reads clear ones only.

use std::{collections::HashMap, fmt::Display, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    AppendError, ReadError, Standing, Via,
    backoff::Backoff,
    bus::soon,
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
    /// There is none.
    Absent,
}

/// What the payload of an event is.
pub(super) enum Opened {
    Clear(Bytes),
    /// Its key was destroyed.
    Erased,
    /// It was sealed for another place, or with a key that is none of its conversation's.
    Foreign,
}

/// What an entry of the ledger says of an erasure: that it was requested names the conversations, that it is completed does not.
#[derive(Deserialize)]
struct Erasure {
    erasure: Uuid,
    conversations: Option<Vec<Uuid>>,
}

/// Base name of the stream of the ledger.
const AUDIT: &str = "AUDIT";

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
        Event::TurnStarted(_) | Event::Erased(_) | Event::Unreadable(_) => None,
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

    /// The payload of an event of a conversation. What nobody could have sealed there is told from what can't be opened now.
    pub(super) async fn open_event(
        &self,
        place: &str,
        conversation: Uuid,
        payload: Bytes,
    ) -> Result<Opened, ReadError> {
        let Some(sealed) = Sealed::parse(&payload) else { return Ok(Opened::Clear(payload)) };
        if sealed.conversation != conversation {
            return Ok(Opened::Foreign);
        }
        // Without a master key a sealed payload is an error of this process, not of the payload.
        let Some(keys) = &self.keys else { return Err(no_master()) };
        match self.key_of(keys, &sealed).await? {
            Known::Key(key) if key.is_of(&sealed) => {
                Ok(key.open(place, &sealed).map_or(Opened::Foreign, Opened::Clear))
            }
            Known::Key(_) => Ok(Opened::Foreign),
            Known::Destroyed => Ok(Opened::Erased),
            Known::Absent => Err(absent(conversation)),
        }
    }

    /// What of a conversation was erased, by keys that were looked at a moment ago at the latest.
    pub(super) async fn standing_of(&self, conversation: Uuid) -> Result<Standing, ReadError> {
        let Some(keys) = &self.keys else { return Ok(Standing::default()) };
        let is_destroyed = async |class| {
            let known = self.find_key(keys, (conversation, class)).await?;
            Ok::<_, ReadError>(matches!(known, Known::Destroyed))
        };
        let (said, tools) = tokio::join!(is_destroyed(Class::Said), is_destroyed(Class::Tools));
        Ok(Standing { said_erased: said?, tools_erased: tools? })
    }

    /// What was stored at a place, in the clear. `None`: it is erased.
    pub async fn open(&self, place: &str, payload: Bytes) -> Result<Option<Bytes>, ReadError> {
        let Some(sealed) = Sealed::parse(&payload) else { return Ok(Some(payload)) };
        let Some(keys) = &self.keys else {
            return Err(no_master());
        };
        match self.key_of(keys, &sealed).await? {
            Known::Key(key) if key.is_of(&sealed) => {
                key.open(place, &sealed).map(Some).map_err(|error| ReadError::Sealed(error.to_string()))
            }
            Known::Destroyed => Ok(None),
            // Not there, or not the one that sealed it: it is being destroyed at this moment, or the bucket was lost. To take that
            // for erased would be to erase it.
            Known::Key(_) | Known::Absent => Err(absent(sealed.conversation)),
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

    /// Forgets the keys of what is erased while the process runs; `forget` forgets what else it knows of a conversation.
    ///
    /// The word on core NATS is fast and can be missed; the ledger of erasures, read from where it was read last, can't.
    pub async fn forget_erased(&self, region: &str, forget: impl Fn(Uuid)) {
        let forget = |conversation| {
            self.forget_keys(conversation);
            forget(conversation);
        };
        let word = async {
            loop {
                match soon(self.client.subscribe(subjects::ERASED_ALL)).await {
                    Ok(mut erased) => {
                        while let Some(message) = erased.next().await {
                            subjects::parse_last_id(&message.subject).into_iter().for_each(&forget);
                        }
                    }
                    Err(error) => tracing::warn!(error, "what is erased is not heard of at once"),
                }
                tokio::time::sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
            }
        };
        tokio::join!(word, self.follow_ledger(region, &forget));
    }

    async fn follow_ledger(&self, region: &str, forget: &impl Fn(Uuid)) {
        // What is not sealed can't be erased.
        if self.keys.is_none() {
            return;
        }
        let (stream, subject) = (subjects::stream_name(AUDIT, region), subjects::audit_privacy_all(region));
        let (mut from, mut open) = (None, HashMap::new());
        loop {
            match self.next_erasures(&stream, &subject, from, &mut open).await {
                Ok((next, conversations)) => {
                    from = Some(next);
                    conversations.into_iter().for_each(forget);
                }
                Err(error) => tracing::debug!(%error, "the ledger of erasures can't be read now"),
            }
            tokio::time::sleep(Duration::from_millis(limits::ERASURES_EVERY_MS)).await;
        }
    }

    /// The conversations of erasures that were begun or completed from a place in the ledger on, and the next place. Without a
    /// place: from its end on, since a process that begins knows nothing yet.
    async fn next_erasures(
        &self,
        stream: &str,
        subject: &str,
        from: Option<u64>,
        open: &mut HashMap<Uuid, Vec<Uuid>>,
    ) -> Result<(u64, Vec<Uuid>), ReadError> {
        let Some(mut from) = from else {
            let last = self.get(stream, &json!({ "last_by_subj": subject }), Via::Leader).await?;
            return Ok((last.map_or(1, |last| last.seq + 1), Vec::new()));
        };
        let (mut conversations, mut more) = (Vec::new(), true);
        while more {
            let messages;
            (messages, more) = self.next_of(stream, subject, from).await?;
            more &= !messages.is_empty();
            for message in messages {
                from = message.seq + 1;
                // Entries of other kinds, and such as can't be read, name no erasure.
                let Ok(Erasure { erasure, conversations: named }) = serde_json::from_slice(&message.payload) else {
                    continue;
                };
                conversations.extend(match named {
                    Some(named) => open.entry(erasure).or_insert(named).clone(),
                    None => open.remove(&erasure).unwrap_or_default(),
                });
            }
        }
        Ok((from, conversations))
    }

    /// Fails when there are sealed conversations that this process can't open: none of the first keys can be unwrapped. A stray
    /// entry among them costs only itself.
    pub async fn check_keys(&self) -> Result<(), ReadError> {
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        let entries = loop {
            match self.next_of(STREAM, &subjects::keys_of(None), 1).await {
                Ok((entries, _)) => break entries,
                Err(_) if backoff.pause().await => {}
                Err(error) => return Err(error),
            }
        };
        let whole = entries.iter().filter(|entry| serde_json::from_slice::<Kept>(&entry.payload).is_ok());
        let mut refused = None;
        for entry in whole {
            let Some((conversation, class)) = subjects::parse_key_of(&entry.subject) else { continue };
            let Some((class, _)) = Class::ALL.iter().find(|(_, name)| *name == class) else { continue };
            let Some(keys) = &self.keys else { return Err(no_master()) };
            match keys.read(entry, (conversation, *class)) {
                Ok(_) => return Ok(()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), Err)
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
        let unheard = AppendError::Unavailable;
        soon(self.client.publish(subjects::erased(conversation), "".into())).await.map_err(unheard)?;
        soon(self.client.flush()).await.map_err(unheard)
    }

    async fn key_to_seal(&self, keys: &Keys, conversation: Uuid, class: Class) -> Result<Sealer, AppendError> {
        match self.find_key(keys, (conversation, class)).await.map_err(unavailable)? {
            Known::Key(key) => Ok((class, key)),
            Known::Destroyed => self.instead_of(keys, conversation, class).await,
            Known::Absent => self.make_key(keys, conversation, class).await,
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
                keys.known.invalidate(&(conversation, class));
                match self.find_key(keys, (conversation, class)).await.map_err(unavailable)? {
                    Known::Key(key) => Ok((class, key)),
                    Known::Destroyed => self.instead_of(keys, conversation, class).await,
                    Known::Absent => Err(AppendError::Unavailable("a conversation's key is being destroyed".into())),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The key that something was sealed with. That another one is there, or none, is asked again before it is believed.
    async fn key_of(&self, keys: &Keys, sealed: &Sealed<'_>) -> Result<Known, ReadError> {
        let whose = (sealed.conversation, sealed.class);
        match self.find_key(keys, whose).await? {
            Known::Key(key) if !key.is_of(sealed) => {}
            Known::Absent => {}
            known => return Ok(known),
        }
        keys.known.invalidate(&whose);
        self.find_key(keys, whose).await
    }

    /// A key as this process has seen it a moment ago, else as the bucket's leader has it: a replica that lags behind would
    /// bring back one that was destroyed.
    async fn find_key(&self, keys: &Keys, whose: (Uuid, Class)) -> Result<Known, ReadError> {
        if let Some(known) = keys.known.get(&whose) {
            return Ok(known);
        }
        let (conversation, class) = whose;
        let query = json!({ "last_by_subj": subjects::key_of(conversation, class.name()) });
        let known = match self.get(STREAM, &query, Via::Leader).await? {
            Some(message) => keys.read(&message, whose)?,
            None => Known::Absent,
        };
        keys.known.insert(whose, known.clone());
        Ok(known)
    }
}

/// Whether an entry of the bucket holds a key.
pub fn is_there(message: &RawMessage) -> bool {
    !matches!(serde_json::from_slice(&message.payload), Ok(Kept::Destroyed { .. }))
}

fn absent(conversation: Uuid) -> ReadError {
    ReadError::NoKey(conversation)
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
