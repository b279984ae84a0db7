//! Objects: content that is too large for an event, in a NATS object store.
//!
//! The stored form is the one of the NATS client libraries: chunks on a subject of their own, and an info message, the last
//! of its subject. An object's name is derived from its content, so equal content is stored once under any number of
//! concurrent writers. Objects are read by direct gets: no consumer is made.

use base64::{Engine, prelude::BASE64_URL_SAFE};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, TimeDelta, Utc};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::jetstream_log::NatsLog;
use crate::{
    domain::event::Object,
    encryption::ContentKey,
    limits,
    nats::{AppendError, ReadError, ReadFrom, jetstream::RawMessage},
    subjects,
};

/// The bucket of attachments.
pub const ATTACHMENTS: &str = "ATTACHMENTS";

/// The object store over a NATS connection.
#[derive(Clone)]
pub struct ObjectStore {
    log: NatsLog,
}

/// The reason why an object was not stored.
#[derive(Debug, thiserror::Error)]
pub enum ObjectPutError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// An object's info message, in the client libraries' form.
#[derive(Serialize, Deserialize)]
struct Info {
    name: String,
    bucket: String,
    nuid: Uuid,
    size: u64,
    chunks: usize,
    digest: String,
    mtime: DateTime<Utc>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    metadata: Metadata,
    options: Options,
}

#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(default, rename = "media-type")]
    media_type: String,
}

#[derive(Serialize, Deserialize)]
struct Options {
    max_chunk_size: usize,
}

impl ObjectStore {
    pub fn new(log: NatsLog) -> Self {
        Self { log }
    }

    /// Stores an attachment of a conversation, unless it is stored already.
    ///
    /// If payloads are encrypted, so is the content, with its own key.
    pub async fn put(
        &self,
        org: &str,
        conversation: Uuid,
        media_type: &str,
        mut content: Bytes,
    ) -> Result<Object, ObjectPutError> {
        let mut hash = digest(content.clone()).await;
        let key = self.log.content_key(conversation, &hash).await?;
        if let Some(key) = &key {
            let (key, clear) = (key.clone(), content);
            content = aside(move || key.encrypt(&clear)).await;
            hash = digest(content.clone()).await;
        }
        let hex = HEXLOWER.encode(&hash);
        let object = Object {
            bucket: ATTACHMENTS.into(),
            name: format!("{}/{hex}", subjects::encode_token(org)),
            size: content.len() as u64,
            digest: format!("SHA-256={}", BASE64_URL_SAFE.encode(hash)),
            media_type: media_type.into(),
            key: key.map(|key| key.text()),
        };
        let known = self.info(&object, ReadFrom::Replica).await?;
        let fresh = Utc::now() - TimeDelta::seconds(limits::OBJECT_FRESH_SECS);
        if known.as_ref().is_some_and(|(info, _)| info.is(&object) && info.mtime > fresh) {
            return Ok(object);
        }
        let expected = known.map_or(0, |(_, seq)| seq).to_string();
        self.write(&object, content, &expected).await?;
        Ok(object)
    }

    /// Writes the chunks, then the info message: of several concurrent writers one succeeds.
    async fn write(&self, object: &Object, content: Bytes, expected: &str) -> Result<(), ObjectPutError> {
        let nuid = self.nuid(object, expected).await?;
        let chunks_subject = subjects::object_chunks(&object.bucket, nuid);
        let mut chunks = 0;
        let mut rest = content;
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(limits::OBJECT_CHUNK_BYTES));
            self.log.put(&chunks_subject, &format!("{}-{chunks}", nuid.simple()), &[], chunk).await?;
            chunks += 1;
        }
        let info = Info {
            name: object.name.clone(),
            bucket: object.bucket.clone(),
            nuid,
            size: object.size,
            chunks,
            digest: object.digest.clone(),
            mtime: Utc::now(),
            deleted: false,
            metadata: Metadata { media_type: object.media_type.clone() },
            options: Options { max_chunk_size: limits::OBJECT_CHUNK_BYTES },
        };
        let payload = serde_json::to_vec(&info).expect("texts and numbers always serialise");
        let headers = [("Nats-Expected-Last-Subject-Sequence", expected)];
        let subject = subjects::object_info(&object.bucket, &object.name);
        match self.log.put(&subject, &nuid.simple().to_string(), &headers, payload.into()).await {
            Err(AppendError::Conflict) => self.give_way(object, nuid).await,
            written => Ok(written?),
        }
    }

    /// Returns the id under which an object's chunks are written.
    ///
    /// Concurrent writers of the same content share an id, and the server stores each chunk once. After an upload that was
    /// abandoned long ago, a new id starts afresh.
    async fn nuid(&self, object: &Object, expected: &str) -> Result<Uuid, ReadError> {
        let hash: [u8; 32] = Sha256::digest(format!("{}\n{expected}", object.name)).into();
        let shared =
            uuid::Builder::from_custom_bytes(hash[..16].try_into().expect("sixteen of thirty-two")).into_uuid();
        let query = json!({ "last_by_subj": subjects::object_chunks(&object.bucket, shared) });
        let last = self.log.get(&stream(&object.bucket), &query, ReadFrom::Leader).await?;
        let fresh = Utc::now() - TimeDelta::seconds(limits::OBJECT_UPLOAD_SECS);
        Ok(if last.is_none_or(|chunk| chunk.stored_at > fresh) { shared } else { Uuid::new_v4() })
    }

    /// Accepts the object that another writer, or an earlier try, has stored. This writer's chunks expire.
    async fn give_way(&self, object: &Object, nuid: Uuid) -> Result<(), ObjectPutError> {
        match self.info(object, ReadFrom::Leader).await? {
            Some((info, _)) if info.nuid == nuid || info.is(object) => Ok(()),
            Some(_) | None => Err(AppendError::Conflict.into()),
        }
    }

    /// Returns an object's content; `None` = it does not exist, or no longer.
    pub async fn get(&self, object: &Object) -> Result<Option<Bytes>, ReadError> {
        // A replica may lack the info or some of the chunks.
        for via in [ReadFrom::Replica, ReadFrom::Leader] {
            if let Some((info, _)) = self.info(object, via).await?
                && info.is(object)
                && let Some(content) = self.content(&info, via).await?
            {
                return Ok(match object.key.as_deref() {
                    None => Some(content),
                    Some(key) => match ContentKey::parse(key) {
                        Some(key) => aside(move || key.decrypt(&content)).await.ok(),
                        None => None,
                    },
                });
            }
        }
        Ok(None)
    }

    /// Returns the joined chunks, if they match the info's size and digest.
    async fn content(&self, info: &Info, via: ReadFrom) -> Result<Option<Bytes>, ReadError> {
        if info.size > limits::OBJECT_MAX_BYTES as u64 {
            return Ok(None);
        }
        let (stream, subject) = (stream(&info.bucket), subjects::object_chunks(&info.bucket, info.nuid));
        let mut content = BytesMut::with_capacity(info.size as usize);
        let mut next = 1;
        for _ in 0..info.chunks {
            let query = json!({ "seq": next, "next_by_subj": subject });
            let Some(chunk) = self.log.get(&stream, &query, via).await? else { return Ok(None) };
            next = chunk.seq + 1;
            content.extend_from_slice(&chunk.payload);
            if content.len() as u64 > info.size {
                return Ok(None);
            }
        }
        let content = content.freeze();
        let digest = format!("SHA-256={}", BASE64_URL_SAFE.encode(digest(content.clone()).await));
        Ok((content.len() as u64 == info.size && digest == info.digest).then_some(content))
    }

    /// Returns an object's info and the sequence of that message.
    async fn info(&self, object: &Object, via: ReadFrom) -> Result<Option<(Info, u64)>, ReadError> {
        let query = json!({ "last_by_subj": subjects::object_info(&object.bucket, &object.name) });
        let message: Option<RawMessage> = self.log.get(&stream(&object.bucket), &query, via).await?;
        Ok(message.and_then(|message| Some((serde_json::from_slice(&message.payload).ok()?, message.seq))))
    }
}

impl Info {
    /// Returns whether the info describes this object.
    fn is(&self, object: &Object) -> bool {
        !self.deleted && self.digest == object.digest && self.size == object.size
    }
}

/// Returns the SHA-256 of a content.
async fn digest(content: Bytes) -> [u8; 32] {
    aside(move || Sha256::digest(&content).into()).await
}

/// Runs work on a whole content off the async threads: megabytes would block their other tasks.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = tokio::task::spawn_blocking(work);
    work.await.expect("the work does not panic, and a runtime that stops polls nothing")
}

/// Returns the stream of a bucket.
fn stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}
