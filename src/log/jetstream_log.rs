//! The log over JetStream.
//!
//! An append is a publish with two headers: the expected last sequence over all subjects of the conversation, and the event
//! id.

use std::ops::Deref;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    AppendReceipt, ErasureState, EventLog, NewEvent, StoredEvent,
    key_store::{self, DecryptedPayload, KeyStore, KeyedJetStream},
};
use crate::{
    domain::{Event, RecordedEvent},
    limits,
    metrics::metrics,
    nats::{
        AppendError, ReadError, ReadFrom,
        backoff::Backoff,
        connection::NatsConnection,
        core::{self, Client},
        jetstream::{JetStream, PublishOutcome, RawMessage},
        streams::CHAT,
    },
    subjects::{self, ConversationKey},
    wire::stored::{self, DecodeError, EventEnvelope},
};

/// The event log over a NATS connection.
#[derive(Clone)]
pub struct NatsLog {
    stream: KeyedJetStream,
}

impl NatsLog {
    /// Returns a log with clear payloads.
    pub fn new(client: Client) -> Self {
        Self { stream: KeyedJetStream { jetstream: JetStream::new(client), keys: None } }
    }

    /// Returns a log with encrypted payloads.
    pub fn encrypting(client: Client, keys: KeyStore) -> Self {
        Self { stream: KeyedJetStream { jetstream: JetStream::new(client), keys: Some(keys) } }
    }

    /// Returns the log with the connection's clock and connection counter.
    pub fn over(self, nats: &NatsConnection) -> Self {
        Self { stream: KeyedJetStream { jetstream: self.stream.jetstream.over(nats), ..self.stream } }
    }

    /// Returns JetStream without the log: for all that is no event.
    pub fn jetstream(&self) -> JetStream {
        self.stream.jetstream.clone()
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

impl Deref for NatsLog {
    type Target = KeyedJetStream;

    /// The log is JetStream with keys: other messages than events are read and written as by [`JetStream`].
    fn deref(&self) -> &KeyedJetStream {
        &self.stream
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
        let (last, all) = (expected.to_string(), key.all_events());
        let expects = [
            ("Nats-Expected-Last-Subject-Sequence", last.as_str()),
            ("Nats-Expected-Last-Subject-Sequence-Subject", all.as_str()),
        ];
        let headers =
            core::headers(expects.into_iter().chain(pairs.iter().map(|(name, value)| (*name, value.as_str()))));
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
        self.stream.now()
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
