//! JetStream over one connection: publishes with their outcome, reads of single messages, purges.
//!
//! The raw API replaces the client library's typed one, because answers must be told apart by the server's error codes, of
//! which the library names only some.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{Client, HeaderMap, Message, Request, header};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    AppendError, ReadError, ReadFrom,
    backoff::Backoff,
    clock::Clock,
    connection::{NatsConnection, soon, within},
};
use crate::{limits, metrics::metrics, subjects};

/// Error code of "stream not found".
const NO_STREAM: u64 = 10059;
/// Error codes of "wrong last sequence": the plain one, and the one of a replicated stream under races.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// JetStream over a NATS connection, with the server's clock.
#[derive(Clone)]
pub struct JetStream {
    pub(crate) client: Client,
    clock: Clock,
    connections: Arc<watch::Sender<u64>>,
}

/// The outcome of one try of a publish.
pub(crate) enum PublishOutcome {
    /// Stored; `counter` is the new value if the subject is a counter.
    Stored {
        seq: u64,
        counter: Option<i64>,
    },
    Duplicate,
    Conflict,
    Again(String),
}

/// The server's answer to a publish or to a change of a stream.
#[derive(Deserialize)]
pub(crate) struct Ack {
    #[serde(default)]
    pub seq: u64,
    #[serde(default)]
    duplicate: bool,
    val: Option<String>,
    pub error: Option<ApiError>,
}

/// A refusal by JetStream.
#[derive(Deserialize)]
pub(crate) struct ApiError {
    /// The status, as in HTTP.
    #[serde(default)]
    pub code: u64,
    /// The server's own error code.
    #[serde(default)]
    pub err_code: u64,
    #[serde(default)]
    pub description: String,
}

impl Ack {
    pub fn parse(answer: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(answer).map_err(|error| error.to_string())
    }
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

impl JetStream {
    /// Returns JetStream over a client, with this process's own clock.
    pub fn new(client: Client) -> Self {
        Self { client, clock: Clock::default(), connections: Arc::default() }
    }

    /// Returns the same with the connection's clock and connection counter.
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

    /// Sends a request to the JetStream API or to a stream; returns the answer's bytes.
    pub(crate) async fn ask(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        wait_ms: u64,
    ) -> Result<Bytes, String> {
        let request = Request::new().headers(headers).payload(payload).timeout(Some(Duration::from_millis(wait_ms)));
        // The request may wait for room in the client's queue.
        let bound_ms = wait_ms + limits::NATS_CALL_MS / 2;
        let reply = within(bound_ms, self.client.send_request(subject, request)).await?;
        Ok(reply.payload)
    }

    /// Publishes to a stream once.
    pub(crate) async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> PublishOutcome {
        let answer = self.ask(subject.to_string(), headers, payload, limits::APPEND_TRY_MS).await;
        match answer.and_then(|answer| Ack::parse(&answer)) {
            Ok(Ack { error: Some(error), .. }) if WRONG_LAST_SEQUENCE.contains(&error.err_code) => {
                PublishOutcome::Conflict
            }
            Ok(Ack { error: Some(error), .. }) => PublishOutcome::Again(error.description),
            Ok(ack) if ack.duplicate => PublishOutcome::Duplicate,
            Ok(ack) => PublishOutcome::Stored { seq: ack.seq, counter: ack.val.and_then(|value| value.parse().ok()) },
            Err(error) => PublishOutcome::Again(error),
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
            headers.insert(header::NATS_MESSAGE_ID, id);
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
        headers.insert(header::NATS_MESSAGE_ID, id);
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
        let failed = self.manage("PURGE", stream, json!({ "filter": subject })).await?;
        let failed = failed.filter(|error| error.err_code != NO_STREAM);
        failed.map_or(Ok(()), |error| Err(AppendError::Unavailable(error.description)))
    }

    /// Deletes a message and overwrites its bytes.
    pub(crate) async fn overwrite(&self, stream: &str, seq: u64) -> Result<(), AppendError> {
        let failed = self.manage("MSG.DELETE", stream, json!({ "seq": seq, "no_erase": false })).await?;
        failed.map_or(Ok(()), |error| Err(AppendError::Unavailable(error.description)))
    }

    /// Calls the API of a stream; returns the server's refusal.
    async fn manage(&self, verb: &str, stream: &str, query: Value) -> Result<Option<ApiError>, AppendError> {
        let subject = subjects::stream_api(verb, stream);
        let answer = self.ask(subject, HeaderMap::new(), query.to_string().into(), limits::APPEND_DEADLINE_MS).await;
        Ok(answer.and_then(|answer| Ack::parse(&answer)).map_err(AppendError::Unavailable)?.error)
    }

    /// Reads one message of a stream, and retries while the server does not answer.
    pub async fn get(&self, stream: &str, query: &Value, via: ReadFrom) -> Result<Option<RawMessage>, ReadError> {
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
