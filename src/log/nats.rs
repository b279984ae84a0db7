//! The log over JetStream.
//!
//! An append is a publish with two headers: the expected last sequence over all subjects of the conversation, and the event
//! id. The raw API replaces the client library's typed one, because answers must be told apart by the server's error codes,
//! of which the library names only some.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{Client, HeaderMap, Message, Request, header};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::{
    AppendError, AppendReceipt, ErasureState, EventLog, NewEvent, ReadError, ReadFrom, StoredEvent,
    backoff::Backoff,
    clock::Clock,
    connection::{self, NatsConnection, soon},
    key_store::{self, DecryptedPayload, KeyStore},
};
use crate::{
    domain::{Event, RecordedEvent},
    limits,
    metrics::metrics,
    subjects::{self, ConversationKey},
    wire::stored::{self, DecodeError, EventEnvelope},
};

/// Base name of the stream of conversations.
pub const CHAT: &str = "CHAT";

/// Error code of "stream not found".
const NO_STREAM: u64 = 10059;
/// Error codes of "wrong last sequence": the plain one, and the one of a replicated stream under races.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// The event log over a NATS connection.
#[derive(Clone)]
pub struct NatsLog {
    pub(super) client: Client,
    pub(super) keys: Option<KeyStore>,
    clock: Clock,
    connections: Arc<watch::Sender<u64>>,
}

/// The outcome of one try of a publish.
pub(super) enum PublishOutcome {
    /// Stored; `counter` is the new value if the subject is a counter.
    Stored {
        seq: u64,
        counter: Option<i64>,
    },
    Duplicate,
    Conflict,
    Again(String),
}

#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    val: Option<String>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// A message as stored in a stream.
#[derive(Clone)]
pub struct RawMessage {
    pub subject: String,
    pub seq: u64,
    pub stored_at: DateTime<Utc>,
    pub headers: HashMap<String, String>,
    pub payload: Bytes,
}

impl NatsLog {
    /// Returns a log with clear payloads.
    pub fn new(client: Client) -> Self {
        Self { client, keys: None, clock: Clock::default(), connections: Arc::default() }
    }

    /// Returns a log with encrypted payloads.
    pub fn encrypting(client: Client, keys: KeyStore) -> Self {
        Self { keys: Some(keys), ..Self::new(client) }
    }

    /// Returns the log with the connection's clock and connection counter.
    pub fn over(self, nats: &NatsConnection) -> Self {
        Self { clock: nats.clock.clone(), connections: nats.connections.clone(), ..self }
    }

    /// Returns a receiver that changes with every new connection to a server.
    ///
    /// Requests made on an earlier connection are no longer answered.
    pub fn connected(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// Returns the time of the log's server, which decides whether an event came too late.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Returns the NATS client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Publishes to a stream once, and parses the server's ack.
    pub(super) async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> PublishOutcome {
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(Duration::from_millis(limits::APPEND_TRY_MS)));
        let reply = match soon(self.client.send_request(subject.to_string(), request)).await {
            Ok(reply) => reply,
            Err(error) => return PublishOutcome::Again(error),
        };
        match serde_json::from_slice::<PubAck>(&reply.payload) {
            Ok(PubAck { error: Some(error), .. }) if WRONG_LAST_SEQUENCE.contains(&error.err_code) => {
                PublishOutcome::Conflict
            }
            Ok(PubAck { error: Some(error), .. }) => PublishOutcome::Again(error.description),
            Ok(ack) if ack.duplicate => PublishOutcome::Duplicate,
            Ok(ack) => PublishOutcome::Stored { seq: ack.seq, counter: ack.val.and_then(|value| value.parse().ok()) },
            Err(error) => PublishOutcome::Again(error.to_string()),
        }
    }

    /// Publishes to a stream until the server decides or the deadline passes.
    ///
    /// `id` makes the tries idempotent. For messages that need no order: session records, schedules, dead letters.
    pub async fn put(
        &self,
        subject: &str,
        id: &str,
        extra: &[(&str, &str)],
        payload: Bytes,
    ) -> Result<(), AppendError> {
        let mut backoff = Backoff::new(limits::APPEND_DEADLINE_MS);
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(stored::MSG_ID, id);
            for (name, value) in extra {
                headers.insert(*name, *value);
            }
            match self.publish(subject, headers, payload.clone()).await {
                PublishOutcome::Stored { .. } | PublishOutcome::Duplicate => return Ok(()),
                PublishOutcome::Conflict => return Err(AppendError::Conflict),
                PublishOutcome::Again(_) if backoff.pause().await => {}
                PublishOutcome::Again(cause) => return Err(AppendError::Unavailable(cause)),
            }
        }
    }

    /// Publishes to one subject of a stream if its last sequence is still `expected`; returns the new sequence.
    pub async fn put_at(&self, subject: &str, id: &str, expected: &str, payload: Bytes) -> Result<u64, AppendError> {
        let mut headers = HeaderMap::new();
        headers.insert(stored::MSG_ID, id);
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected);
        match self.publish(subject, headers, payload).await {
            PublishOutcome::Stored { seq, .. } => Ok(seq),
            PublishOutcome::Duplicate | PublishOutcome::Conflict => Err(AppendError::Conflict),
            PublishOutcome::Again(cause) => Err(AppendError::Unavailable(cause)),
        }
    }

    /// Publishes the first message of a subject, until the server decides.
    ///
    /// `id` is the idempotency key that tells this message from other publishers' ones.
    pub async fn put_first(&self, subject: &str, id: &str, payload: Bytes) -> Result<(), AppendError> {
        self.put(subject, id, &[("Nats-Expected-Last-Subject-Sequence", "0")], payload).await
    }

    /// Purges all messages of a subject from a stream; a missing stream is no error.
    pub async fn purge(&self, stream: &str, subject: &str) -> Result<(), AppendError> {
        let query = json!({ "filter": subject }).to_string();
        let request =
            Request::new().payload(query.into()).timeout(Some(Duration::from_millis(limits::APPEND_DEADLINE_MS)));
        let unavailable = |cause: String| AppendError::Unavailable(cause);
        let reply = within_append(self.client.send_request(subjects::stream_api("PURGE", stream), request)).await;
        let reply = reply.map_err(unavailable)?;
        let answer: PubAck = serde_json::from_slice(&reply.payload).map_err(|error| unavailable(error.to_string()))?;
        let failed = answer.error.filter(|error| error.err_code != NO_STREAM);
        failed.map_or(Ok(()), |error| Err(unavailable(error.description)))
    }

    /// Deletes a message and overwrites its bytes.
    pub(super) async fn overwrite(&self, stream: &str, seq: u64) -> Result<(), AppendError> {
        let unavailable = |cause: String| AppendError::Unavailable(cause);
        let query = json!({ "seq": seq, "no_erase": false }).to_string();
        let request =
            Request::new().payload(query.into()).timeout(Some(Duration::from_millis(limits::APPEND_DEADLINE_MS)));
        let reply = within_append(self.client.send_request(subjects::stream_api("MSG.DELETE", stream), request)).await;
        let reply = reply.map_err(unavailable)?;
        let answer: PubAck = serde_json::from_slice(&reply.payload).map_err(|error| unavailable(error.to_string()))?;
        answer.error.map_or(Ok(()), |error| Err(unavailable(error.description)))
    }

    /// Reads one message of a stream, and retries while the server does not answer.
    pub async fn get(
        &self,
        stream: &str,
        query: &serde_json::Value,
        via: ReadFrom,
    ) -> Result<Option<RawMessage>, ReadError> {
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        let subject = match via {
            ReadFrom::Replica => subjects::direct_get(stream),
            ReadFrom::Leader => subjects::leader_get(stream),
        };
        let payload = Bytes::from(query.to_string());
        loop {
            let request =
                Request::new().payload(payload.clone()).timeout(Some(Duration::from_millis(limits::READ_TRY_MS)));
            let answer = match soon(self.client.send_request(subject.clone(), request)).await {
                Ok(reply) if via == ReadFrom::Replica => direct_answer(reply),
                Ok(reply) => leader_answer(&reply.payload),
                Err(error) => Err(error),
            };
            match answer {
                Ok(message) => return Ok(message),
                Err(_) if backoff.pause().await => {}
                Err(cause) => {
                    metrics().storage.failed("read");
                    return Err(ReadError::Unavailable(cause));
                }
            }
        }
    }

    /// Returns this very event, appended after `expected`, if it is in the log despite a conflict.
    ///
    /// The id alone is no proof: a request that a client repeats, on any edge, has the id of its first copy. A fold that
    /// took such a copy for its own next event would skip the events in between.
    async fn find_own(
        &self,
        key: &ConversationKey,
        expected: u64,
        own: &NewEvent,
    ) -> Result<Option<AppendReceipt>, ReadError> {
        let time = own.time.timestamp_micros();
        let mut event = self.last(key, ReadFrom::Leader).await?;
        while let Some(found) = event.filter(|stored| stored.recorded.seq > expected) {
            let envelope = &found.envelope;
            if envelope.id == own.id && envelope.prev == expected && envelope.time.timestamp_micros() == time {
                return Ok(Some(AppendReceipt { seq: found.recorded.seq, digest: found.recorded.digest }));
            }
            event = if found.envelope.prev > expected {
                self.at(key, found.envelope.prev, ReadFrom::Leader).await?
            } else {
                None
            };
        }
        Ok(None)
    }
}

impl EventLog for NatsLog {
    async fn append(
        &self,
        key: &ConversationKey,
        expected: u64,
        event: &NewEvent,
    ) -> Result<AppendReceipt, AppendError> {
        let subject = event.subject(key);
        let (mut pairs, clear) = stored::encode(&event.envelope(key, expected), &event.event);
        if clear.len() > limits::EVENT_MAX_BYTES {
            return Err(AppendError::TooLarge { max: limits::EVENT_MAX_BYTES });
        }
        let encrypted = self.encrypt_event(key.conversation, &event.event, expected == 0, &subject, &clear).await?;
        if encrypted.is_some() {
            pairs.retain(|(name, _)| *name != stored::CONTENT_TYPE);
            pairs.push((stored::CONTENT_TYPE, key_store::ENCRYPTED_TYPE.into()));
        }
        let payload = encrypted.unwrap_or(clear);
        let digest = stored::digest(&subject, stored::header_of(&pairs), &payload);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", key.all_events());
        for (name, value) in pairs {
            headers.insert(name, value);
        }
        let mut backoff = Backoff::new(limits::APPEND_DEADLINE_MS);
        let mut tried_before = false;
        loop {
            match self.publish(&subject, headers.clone(), payload.clone()).await {
                PublishOutcome::Stored { seq, .. } => return Ok(AppendReceipt { seq, digest }),
                PublishOutcome::Conflict if !tried_before => return Err(AppendError::Conflict),
                // An earlier try may have been stored although its ack was lost.
                verdict @ (PublishOutcome::Conflict | PublishOutcome::Duplicate) => {
                    return match self.find_own(key, expected, event).await {
                        Ok(Some(appended)) if tried_before => Ok(appended),
                        Ok(_) if matches!(verdict, PublishOutcome::Duplicate) => Err(AppendError::Duplicate),
                        Ok(_) => Err(AppendError::Conflict),
                        Err(error) => Err(AppendError::Unavailable(error.to_string())),
                    };
                }
                PublishOutcome::Again(_) if backoff.pause().await => {
                    metrics().storage.retried();
                    tried_before = true;
                }
                PublishOutcome::Again(cause) => return Err(AppendError::Unavailable(cause)),
            }
        }
    }

    async fn last(&self, key: &ConversationKey, via: ReadFrom) -> Result<Option<StoredEvent>, ReadError> {
        let stream = subjects::stream_name(CHAT, &key.region);
        let message = self.get(&stream, &json!({ "last_by_subj": key.all_events() }), via).await?;
        self.decode_if_there(message).await
    }

    async fn at(&self, key: &ConversationKey, seq: u64, via: ReadFrom) -> Result<Option<StoredEvent>, ReadError> {
        let stream = subjects::stream_name(CHAT, &key.region);
        let message = self.get(&stream, &json!({ "seq": seq }), via).await?;
        // The stream's sequences are shared with other conversations and with the session records.
        let own = message.filter(|m| ConversationKey::parse_event(&m.subject).as_ref() == Some(key));
        self.decode_if_there(own).await
    }

    async fn after(&self, key: &ConversationKey, seq: u64) -> Result<(Vec<StoredEvent>, bool), ReadError> {
        let stream = subjects::stream_name(CHAT, &key.region);
        let (messages, more) = self.next_of(&stream, &key.all_events(), seq + 1).await?;
        let more = more && !messages.is_empty();
        let mut found = Vec::with_capacity(messages.len());
        for message in messages {
            found.push(self.decode(message).await?);
        }
        Ok((found, more))
    }

    async fn erasure_state(&self, key: &ConversationKey) -> Result<ErasureState, ReadError> {
        self.erasure_state_of(key.conversation).await
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

impl NatsLog {
    async fn decode_if_there(&self, message: Option<RawMessage>) -> Result<Option<StoredEvent>, ReadError> {
        match message {
            Some(message) => self.decode(message).await.map(Some),
            None => Ok(None),
        }
    }

    /// Decodes the event in a stored message of any content.
    ///
    /// An undecodable message becomes an [`Event::Unreadable`]. Fails only if the keys can't be read.
    pub async fn decode(&self, message: RawMessage) -> Result<StoredEvent, ReadError> {
        let RawMessage { subject, seq, stored_at, headers, payload } = message;
        let header = |name: &str| headers.get(name).map(String::as_str);
        let (key, bytes) = (ConversationKey::parse_event(&subject), payload.len());
        let digest = stored::digest(&subject, header, &payload);
        // A link that does not point backwards would be followed for ever.
        let link = stored::link(header).filter(|(prev, _)| *prev < seq);
        let (envelope, event) = match envelope_at(key.as_ref(), &subject, header) {
            Ok((mut envelope, kind)) => {
                envelope.prev = link.map_or(0, |(prev, _)| prev);
                let event = match self.decrypt_event(&subject, envelope.conversation, payload).await? {
                    DecryptedPayload::Clear(clear) => stored::decode_payload(kind, &clear),
                    DecryptedPayload::Erased => stored::erased(kind),
                    DecryptedPayload::Foreign => Err(DecodeError::Place),
                };
                (envelope, event)
            }
            Err(error) => {
                let (prev, prev_digest) = link.unwrap_or_default();
                let conversation = key.map_or_else(uuid::Uuid::nil, |key| key.conversation);
                let text = |name| header(name).unwrap_or_default().to_string();
                let (id, source) = (text(stored::CE_ID), text(stored::CE_SOURCE));
                (EventEnvelope { id, source, time: stored_at, conversation, prev, prev_digest }, Err(error))
            }
        };
        let event = event.unwrap_or_else(|error| {
            tracing::debug!(seq, subject, %error, "an event can't be decoded and is skipped");
            Event::Unreadable(stored::unreadable(header, &error))
        });
        let recorded = RecordedEvent { seq, time: envelope.time, stored_at, digest, event };
        Ok(StoredEvent { envelope, is_linked: link.is_some(), bytes, recorded })
    }
}

/// Bounds a call with the timeout of an append, queueing in the client included.
async fn within_append<T>(
    call: impl Future<Output = Result<T, async_nats::client::RequestError>>,
) -> Result<T, String> {
    connection::within(limits::APPEND_DEADLINE_MS + limits::NATS_CALL_MS, call).await
}

/// Returns the envelope and event name of a message, if they agree with its subject.
fn envelope_at<'a>(
    key: Option<&ConversationKey>,
    subject: &str,
    header: impl Fn(&str) -> Option<&'a str>,
) -> Result<(EventEnvelope, &'a str), DecodeError> {
    let (envelope, kind) = stored::decode_headers(header)?;
    // A work item's pool follows its event's name.
    let after = key.and_then(|key| subject.strip_prefix(key.event(kind).as_str()));
    let is_own = after.is_some_and(|pool| pool.is_empty() || pool.starts_with('.'));
    match key {
        Some(key) if is_own && key.conversation == envelope.conversation => Ok((envelope, kind)),
        _ => Err(DecodeError::Place),
    }
}

impl RawMessage {
    /// Builds a message delivered by a consumer; the server gives sequence and time beside it.
    pub fn delivered(message: &Message, seq: u64, stored_at: DateTime<Utc>) -> Self {
        Self {
            subject: message.subject.to_string(),
            seq,
            stored_at,
            headers: header_pairs(message.headers.as_ref()),
            payload: message.payload.clone(),
        }
    }
}

fn header_pairs(headers: Option<&HeaderMap>) -> HashMap<String, String> {
    headers
        .into_iter()
        .flat_map(|map| map.iter())
        .filter_map(|(name, values)| Some((name.to_string(), values.last()?.to_string())))
        .collect()
}

/// Parses the answer of a direct get: the message itself, with its metadata in headers.
pub(super) fn direct_answer(reply: Message) -> Result<Option<RawMessage>, String> {
    if let Some(status) = reply.status {
        return if status.as_u16() == 404 { Ok(None) } else { Err(format!("status {status}")) };
    }
    let headers = header_pairs(reply.headers.as_ref());
    let seq = headers.get("Nats-Sequence").and_then(|seq| seq.parse().ok()).ok_or("no sequence in the answer")?;
    let stored_at = headers.get("Nats-Time-Stamp").and_then(|time| time.parse().ok()).ok_or("no time in the answer")?;
    let subject = headers.get("Nats-Subject").cloned().ok_or("no subject in the answer")?;
    Ok(Some(RawMessage { subject, seq, stored_at, headers, payload: reply.payload }))
}

/// Parses the leader's answer: JSON with the message in base64.
fn leader_answer(payload: &[u8]) -> Result<Option<RawMessage>, String> {
    #[derive(Deserialize)]
    struct Answer {
        message: Option<StoredMessage>,
        error: Option<ApiError>,
    }
    #[derive(Deserialize)]
    struct StoredMessage {
        subject: String,
        seq: u64,
        time: DateTime<Utc>,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
    }
    const NO_MESSAGE: u64 = 10037;
    let answer: Answer = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
    match (answer.message, answer.error) {
        (Some(held), _) => {
            let headers = header_lines(&base64(&held.hdrs)?);
            let StoredMessage { subject, seq, time: stored_at, data, .. } = held;
            Ok(Some(RawMessage { subject, seq, stored_at, headers, payload: base64(&data)?.into() }))
        }
        (None, Some(error)) if error.err_code == NO_MESSAGE => Ok(None),
        (None, Some(error)) => Err(error.description),
        (None, None) => Err("neither a message nor an error in the answer".into()),
    }
}

fn base64(text: &str) -> Result<Vec<u8>, String> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.decode(text).map_err(|e| e.to_string())
}

/// Parses a `NATS/1.0` header block.
fn header_lines(block: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(block);
    let lines = text.split("\r\n").skip(1);
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_string(), value.trim().to_string()))
        .collect()
}
