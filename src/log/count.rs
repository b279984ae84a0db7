//! Counts from a stream's index of subjects and from a consumer's state: no message is read.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;

use super::{
    ReadError,
    backoff::Backoff,
    bus::{soon, within},
    nats::NatsLog,
};
use crate::{limits, subjects};

#[derive(Deserialize)]
struct Info {
    /// Of the subjects that fit; an answer names 100,000 of them at most.
    #[serde(default)]
    total: usize,
    state: State,
}

#[derive(Deserialize)]
struct State {
    /// Absent when there is nothing on the subjects.
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
pub struct Unserved {
    /// The sequence of the first of it.
    pub from: u64,
    pub messages: u64,
}

impl NatsLog {
    /// A consumer's unacknowledged messages. `None`: there are none, or no such consumer.
    pub async fn unserved(&self, stream: &str, consumer: &str) -> Result<Option<Unserved>, ReadError> {
        let reply = soon(self.client.request(subjects::consumer_info(stream, consumer), "".into())).await;
        let reply = reply.map_err(ReadError::Unavailable)?;
        // An answer without these is that of an error: the consumer is not there.
        let info = serde_json::from_slice::<ConsumerInfo>(&reply.payload).ok();
        let unserved = info.map(|info| Unserved {
            from: info.ack_floor.stream_seq + 1,
            messages: info.num_ack_pending + info.num_pending,
        });
        Ok(unserved.filter(|unserved| unserved.messages > 0))
    }

    /// The messages on the subjects that fit. A filter that thousands of subjects fit is counted in part.
    pub async fn count_of(&self, stream: &str, filter: &str) -> Result<u64, ReadError> {
        Ok(self.info(stream, filter, 0).await?.state.subjects.values().sum())
    }

    /// The subjects that fit, however many they are.
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

    /// A stream's information on its subjects, from an offset in their order on.
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
