//! Session records: looked up by id, kept in memory, never changed once written.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use serde_json::json;
use uuid::Uuid;

use crate::{
    config::Regions,
    ids, limits,
    log::{EventLog, jetstream_log::NatsLog},
    nats::{AppendError, ReadError, ReadFrom, streams::CHAT},
    subjects::{self, ConversationKey},
    wire::stored::SessionRecord,
};

/// The session records of the deployment, cached on this edge.
pub struct SessionDirectory {
    log: NatsLog,
    regions: Regions,
    known: Cache<Uuid, Arc<SessionRecord>>,
    /// The cached sessions of a conversation, so that it is forgotten without a look at the others.
    of_conversation: Cache<Uuid, Vec<Uuid>>,
}

impl SessionDirectory {
    pub fn new(log: NatsLog, regions: Regions) -> Self {
        let fresh = Duration::from_secs(limits::CLEAR_TEXT_SECS);
        let known = Cache::builder().max_capacity(limits::SESSIONS_CACHED).time_to_live(fresh).build();
        Self { log, regions, known, of_conversation: Cache::new(limits::SESSIONS_CACHED) }
    }

    /// Returns the session with this id, if it is the caller's.
    ///
    /// The stream's leader must confirm that a session is missing. Another user's session takes the same two requests, the
    /// rest of them for an unused id, so that the time does not tell the two cases apart.
    pub async fn find(
        &self,
        id: Uuid,
        is_theirs: impl Fn(&SessionRecord) -> bool,
    ) -> Result<Option<Arc<SessionRecord>>, ReadError> {
        let known = self.known.get(&id);
        let Some(number) = ids::region_number(id) else { return Ok(None) };
        let Some(region) = self.regions.name(number) else { return Ok(None) };
        if let Some(record) = known.as_ref().filter(|record| is_theirs(record)) {
            let (region, org) = (region.to_string(), record.org.clone());
            let key = ConversationKey { region, org, conversation: record.conversation };
            if !self.log.erasure_state(&key).await?.said_erased {
                return Ok(Some(record.clone()));
            }
            self.forget(record.conversation);
        }
        let stream = subjects::stream_name(CHAT, region);
        let mut asked = if known.is_some() { ids::new_homed(number) } else { id };
        for via in [ReadFrom::Replica, ReadFrom::Leader] {
            let query = json!({ "last_by_subj": subjects::session(region, asked) });
            let Some(message) = self.log.get(&stream, &query, via).await? else { continue };
            // An erased session counts as missing.
            let Some(message) = self.log.decrypted(message).await? else { return Ok(None) };
            let record: SessionRecord = match serde_json::from_slice(&message.payload) {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(%error, session = %id, seq = message.seq, "a session record is malformed");
                    return Ok(None);
                }
            };
            let record = Arc::new(record);
            self.keep(id, record.clone());
            if is_theirs(&record) {
                return Ok(Some(record));
            }
            asked = ids::new_homed(number);
        }
        Ok(None)
    }

    /// Forgets the sessions of an erased conversation.
    pub fn forget(&self, conversation: Uuid) {
        let of_it = self.of_conversation.remove(&conversation).unwrap_or_default();
        of_it.iter().for_each(|session| self.known.invalidate(session));
    }

    fn keep(&self, id: Uuid, record: Arc<SessionRecord>) {
        self.of_conversation.entry(record.conversation).and_upsert_with(|entry| {
            let mut sessions = entry.map(|entry| entry.into_value()).unwrap_or_default();
            sessions.retain(|known| *known != id && self.known.contains_key(known));
            sessions.push(id);
            sessions
        });
        self.known.insert(id, record);
    }

    /// Writes a new session's record, after its `session.opened` is in the log.
    pub async fn add(&self, region: &str, record: SessionRecord) -> Result<Arc<SessionRecord>, AppendError> {
        let payload = serde_json::to_vec(&record).expect("a session record is a map with string keys");
        let (id, subject) = (format!("session-{}", record.session), subjects::session(region, record.session));
        let payload = self.log.encrypt(record.conversation, &subject, payload.into()).await?;
        self.log.put(&subject, &id, &[], payload).await?;
        let record = Arc::new(record);
        self.keep(record.session, record.clone());
        Ok(record)
    }
}
