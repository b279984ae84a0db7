//! Session records: looked up by id, kept in memory, never changed once written.

use std::sync::Arc;

use moka::sync::Cache;
use serde_json::json;
use uuid::Uuid;

use crate::{
    config::Regions,
    ids, limits,
    log::{
        AppendError, ReadError, Via,
        nats::{CHAT, NatsLog},
    },
    subjects,
    wire::stored::SessionRecord,
};

/// The sessions of the deployment, as this edge knows them.
pub struct Sessions {
    log: NatsLog,
    regions: Regions,
    known: Cache<Uuid, Arc<SessionRecord>>,
}

impl Sessions {
    pub fn new(log: NatsLog, regions: Regions) -> Self {
        Self { log, regions, known: Cache::new(limits::SESSIONS_CACHED) }
    }

    /// The session with this id, if it is the caller's.
    ///
    /// That it is not there is confirmed by the stream's leader before it is said. One that is not the caller's takes the same
    /// two requests, the rest of them for an id that nobody has, so that the time does not tell which of both it was.
    pub async fn find(
        &self,
        id: Uuid,
        is_theirs: impl Fn(&SessionRecord) -> bool,
    ) -> Result<Option<Arc<SessionRecord>>, ReadError> {
        let known = self.known.get(&id);
        if let Some(record) = known.as_ref().filter(|record| is_theirs(record)) {
            return Ok(Some(record.clone()));
        }
        let Some(number) = ids::region_number(id) else { return Ok(None) };
        let Some(region) = self.regions.name(number) else { return Ok(None) };
        let stream = subjects::stream_name(CHAT, region);
        let mut asked = if known.is_some() { ids::new_homed(number) } else { id };
        for via in [Via::Replica, Via::Leader] {
            let query = json!({ "last_by_subj": subjects::session(region, asked) });
            let Some(message) = self.log.get(&stream, &query, via).await? else { continue };
            let seq = message.seq;
            // What was erased is not there.
            let Some(message) = self.log.opened(message).await? else { return Ok(None) };
            let record: SessionRecord = serde_json::from_slice(&message.payload)
                .map_err(|cause| ReadError::Malformed { seq, cause: cause.into() })?;
            let record = Arc::new(record);
            self.known.insert(id, record.clone());
            if is_theirs(&record) {
                return Ok(Some(record));
            }
            asked = ids::new_homed(number);
        }
        Ok(None)
    }

    /// Forgets the sessions of a conversation that was erased.
    pub fn forget(&self, conversation: Uuid) {
        let of_it: Vec<Uuid> =
            self.known.iter().filter(|(_, known)| known.conversation == conversation).map(|(id, _)| *id).collect();
        of_it.iter().for_each(|session| self.known.invalidate(session));
    }

    /// Writes a new session's record, after its `session.opened` is in the log.
    pub async fn add(&self, region: &str, record: SessionRecord) -> Result<Arc<SessionRecord>, AppendError> {
        let payload = serde_json::to_vec(&record).expect("a session record is a map with string keys");
        let (id, subject) = (format!("session-{}", record.session), subjects::session(region, record.session));
        let payload = self.log.seal(record.conversation, &subject, payload.into()).await?;
        self.log.put(&subject, &id, &[], payload).await?;
        let record = Arc::new(record);
        self.known.insert(record.session, record.clone());
        Ok(record)
    }
}
