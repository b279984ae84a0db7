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

    /// The session with this id. "Not found" is confirmed by the stream's leader before it is said.
    pub async fn find(&self, id: Uuid) -> Result<Option<Arc<SessionRecord>>, ReadError> {
        if let Some(record) = self.known.get(&id) {
            return Ok(Some(record));
        }
        let Some(region) = ids::region_number(id).and_then(|number| self.regions.name(number)) else { return Ok(None) };
        let stream = subjects::stream_name(CHAT, region);
        let query = json!({ "last_by_subj": subjects::session(region, id) });
        for via in [Via::Replica, Via::Leader] {
            if let Some(message) = self.log.get(&stream, &query, via).await? {
                let record: SessionRecord = serde_json::from_slice(&message.payload)
                    .map_err(|cause| ReadError::Malformed { seq: message.seq, cause: cause.into() })?;
                let record = Arc::new(record);
                self.known.insert(id, record.clone());
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Writes a new session's record, after its `session.opened` is in the log.
    pub async fn add(&self, region: &str, record: SessionRecord) -> Result<Arc<SessionRecord>, AppendError> {
        let payload = serde_json::to_vec(&record).expect("a session record is a map with string keys");
        let id = format!("session-{}", record.session);
        self.log.put(&subjects::session(region, record.session), &id, &[], payload.into()).await?;
        let record = Arc::new(record);
        self.known.insert(record.session, record.clone());
        Ok(record)
    }
}
