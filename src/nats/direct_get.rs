//! Batched direct gets: many messages of a stream in one request, without a consumer.

use std::{collections::VecDeque, time::Duration};

use async_nats::Message;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    ReadError, ReadFrom,
    connection::soon,
    jetstream::{JetStream, RawMessage, direct_answer},
};
use crate::{limits, subjects};

/// The last messages of some subjects.
pub enum LastMessages {
    All(Vec<RawMessage>),
    /// More messages than one request returns.
    TooMany,
}

/// The bounds of one request.
#[derive(Clone, Copy)]
pub struct BatchBounds {
    pub messages: usize,
    pub bytes: Option<usize>,
}

/// The messages of a request.
struct Batch {
    messages: Vec<RawMessage>,
    end: BatchEnd,
}

/// The end of a request's messages.
enum BatchEnd {
    /// The server has no more of them.
    Last,
    More,
    /// The server refused the number of subjects.
    TooManySubjects,
}

impl Batch {
    fn last_messages(self) -> LastMessages {
        match self.end {
            BatchEnd::Last => LastMessages::All(self.messages),
            BatchEnd::More | BatchEnd::TooManySubjects => LastMessages::TooMany,
        }
    }
}

impl JetStream {
    /// Returns the last message of every subject that matches one of the filters.
    pub async fn last_of(&self, stream: &str, subjects: &[String]) -> Result<LastMessages, ReadError> {
        let query = json!({ "multi_last": subjects, "batch": limits::READ_BATCH });
        Ok(self.batch(stream, &query).await?.last_messages())
    }

    /// Like [`JetStream::last_of`], for large messages: bounded in bytes, so that a process can hold them.
    async fn last_of_large(&self, stream: &str, subjects: &[String]) -> Result<LastMessages, ReadError> {
        let query =
            json!({ "multi_last": subjects, "batch": limits::READ_BATCH, "max_bytes": limits::READ_BATCH_BYTES });
        Ok(self.batch(stream, &query).await?.last_messages())
    }

    /// Calls `each` with the last messages of many subjects.
    ///
    /// Filters are asked for `at_once` at a time, and fewer where the messages are too large. A filter that matches too
    /// much by itself gives only its very last message.
    pub async fn last_of_many(
        &self,
        stream: &str,
        filters: &[String],
        at_once: usize,
        mut each: impl FnMut(RawMessage),
    ) -> Result<(), ReadError> {
        let mut parts: Vec<&[String]> = filters.chunks(at_once).collect();
        while let Some(part) = parts.pop() {
            match self.last_of_large(stream, part).await? {
                LastMessages::All(messages) => messages.into_iter().for_each(&mut each),
                LastMessages::TooMany if part.len() > 1 => {
                    parts.extend([&part[..part.len() / 2], &part[part.len() / 2..]]);
                }
                LastMessages::TooMany => {
                    let last = self.get(stream, &json!({ "last_by_subj": part[0] }), ReadFrom::Replica).await?;
                    last.into_iter().for_each(&mut each);
                }
            }
        }
        Ok(())
    }

    /// Returns messages from a sequence on, in stream order, and whether there are more.
    pub async fn next_of(&self, stream: &str, subject: &str, from: u64) -> Result<(Vec<RawMessage>, bool), ReadError> {
        let query = json!({ "next_by_subj": subject, "seq": from, "batch": limits::READ_BATCH, "max_bytes": limits::READ_BATCH_BYTES });
        let batch = self.batch(stream, &query).await?;
        Ok((batch.messages, matches!(batch.end, BatchEnd::More)))
    }

    /// Returns the first message stored at this time or later.
    pub async fn first_since(
        &self,
        stream: &str,
        subject: &str,
        time: DateTime<Utc>,
    ) -> Result<Option<RawMessage>, ReadError> {
        let query = json!({ "next_by_subj": subject, "start_time": time, "batch": 1 });
        Ok(self.batch(stream, &query).await?.messages.into_iter().next())
    }

    /// Returns the newest messages, oldest first: reads all and keeps at most `keep`.
    pub async fn newest_of(&self, stream: &str, subject: &str, keep: usize) -> Result<VecDeque<RawMessage>, ReadError> {
        let (mut found, mut from, mut more) = (VecDeque::new(), 1, true);
        while more {
            let messages;
            (messages, more) = self.next_of(stream, subject, from).await?;
            from = messages.last().map_or(from, |last| last.seq + 1);
            more &= !messages.is_empty();
            found.extend(messages);
            found.drain(..found.len().saturating_sub(keep));
        }
        Ok(found)
    }

    /// Passes the next messages after a sequence to `each`, as they arrive; returns whether there are more.
    ///
    /// Messages that came before a failure were passed on.
    pub async fn each_next(
        &self,
        stream: &str,
        (subject, from): (&str, u64),
        bounds: BatchBounds,
        each: impl FnMut(RawMessage),
    ) -> Result<bool, ReadError> {
        let mut query = json!({ "next_by_subj": subject, "seq": from, "batch": bounds.messages });
        if let Some(bytes) = bounds.bytes {
            query["max_bytes"] = bytes.into();
        }
        Ok(matches!(self.batch_each(stream, &query, each).await?, BatchEnd::More))
    }

    async fn batch(&self, stream: &str, query: &Value) -> Result<Batch, ReadError> {
        let mut messages = Vec::new();
        let end = self.batch_each(stream, query, |message| messages.push(message)).await?;
        Ok(Batch { messages, end })
    }

    async fn batch_each(
        &self,
        stream: &str,
        query: &Value,
        mut each: impl FnMut(RawMessage),
    ) -> Result<BatchEnd, ReadError> {
        let unavailable = |cause: &dyn std::fmt::Display| ReadError::Unavailable(cause.to_string());
        let inbox = self.client.new_inbox();
        let mut answers = soon(self.client.subscribe(inbox.clone())).await.map_err(|error| unavailable(&error))?;
        let (subject, query) = (subjects::direct_get(stream), query.to_string());
        let asked = soon(self.client.publish_with_reply(subject, inbox, query.into())).await;
        asked.map_err(|error| unavailable(&error))?;
        // A server that dies takes its answers with it, so each answer has its own short timeout.
        let wait = Duration::from_millis(limits::READ_TRY_MS);
        while let Some(answer) = timeout(wait, answers.next()).await.map_err(|_| unavailable(&"no answer in time"))? {
            match answer.status.map(|status| status.as_u16()) {
                Some(204) if pending(&answer) > 0 => return Ok(BatchEnd::More),
                Some(204 | 404) => return Ok(BatchEnd::Last),
                Some(413) => return Ok(BatchEnd::TooManySubjects),
                _ => direct_answer(answer).map_err(|cause| unavailable(&cause))?.into_iter().for_each(&mut each),
            }
        }
        Err(unavailable(&"the connection ended"))
    }
}

fn pending(end: &Message) -> u64 {
    let pending = end.headers.as_ref().and_then(|headers| headers.get("Nats-Num-Pending"));
    pending.and_then(|pending| pending.as_str().parse().ok()).unwrap_or_default()
}
