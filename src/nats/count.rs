//! Counts from a stream's subject index and a consumer's state: no message is read.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;

use super::{
    ReadError,
    backoff::Backoff,
    connection::{soon, within},
    jetstream::JetStream,
};
use crate::{limits, subjects};

#[derive(Deserialize)]
struct Info {
    /// Number of matching subjects; one answer lists at most 100,000 of them.
    #[serde(default)]
    total: usize,
    state: State,
}

#[derive(Deserialize)]
struct State {
    /// Absent if the subjects hold no messages.
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    ack_floor: Position,
    num_ack_pending: u64,
    num_pending: u64,
}

#[derive(Deserialize)]
struct Position {
    stream_seq: u64,
}

/// A consumer's unacknowledged messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerBacklog {
    /// Sequence of the first unacknowledged message.
    pub from: u64,
    pub messages: u64,
}

impl JetStream {
    /// Returns a consumer's unacknowledged messages. `None`: no such messages, or no such consumer.
    pub async fn unserved(&self, stream: &str, consumer: &str) -> Result<Option<ConsumerBacklog>, ReadError> {
        let reply = soon(self.client.request(subjects::consumer_info(stream, consumer), "".into())).await;
        let reply = reply.map_err(ReadError::Unavailable)?;
        // An error answer lacks these fields: the consumer does not exist.
        let info = serde_json::from_slice::<ConsumerInfo>(&reply.payload).ok();
        let unserved = info.map(|info| ConsumerBacklog {
            from: info.ack_floor.stream_seq + 1,
            messages: info.num_ack_pending + info.num_pending,
        });
        Ok(unserved.filter(|unserved| unserved.messages > 0))
    }

    /// Counts the messages on the matching subjects. A filter with thousands of matching subjects is counted in part.
    pub async fn count_of(&self, stream: &str, filter: &str) -> Result<u64, ReadError> {
        Ok(self.info(stream, filter, 0).await?.state.subjects.values().sum())
    }

    /// Returns all matching subjects.
    pub async fn subjects_of(&self, stream: &str, filter: &str) -> Result<Vec<String>, ReadError> {
        let mut found = Vec::new();
        loop {
            let info = self.info(stream, filter, found.len()).await?;
            let before = found.len();
            found.extend(info.state.subjects.into_keys());
            if found.len() >= info.total || found.len() == before {
                return Ok(found);
            }
        }
    }

    /// Returns a stream's subject information, starting at an offset in the list.
    async fn info(&self, stream: &str, filter: &str, offset: usize) -> Result<Info, ReadError> {
        let query = json!({ "subjects_filter": filter, "offset": offset }).to_string();
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        loop {
            let subject = subjects::stream_api("INFO", stream);
            let cause = match within(limits::READ_TRY_MS, self.client.request(subject, query.clone().into())).await {
                Ok(reply) => match serde_json::from_slice::<Info>(&reply.payload) {
                    Ok(info) => return Ok(info),
                    Err(error) => error.to_string(),
                },
                Err(cause) => cause,
            };
            if !backoff.pause().await {
                return Err(ReadError::Unavailable(cause));
            }
        }
    }
}
