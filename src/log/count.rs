//! How many messages a stream holds on some subjects, from its index: no message is read.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{ReadError, backoff::Backoff, nats::NatsLog};
use crate::{limits, subjects};

#[derive(Deserialize)]
struct Info {
    state: State,
}

#[derive(Deserialize)]
struct State {
    /// Absent when there is nothing on the subjects.
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

impl NatsLog {
    /// The messages on the subjects that fit. A filter that thousands of subjects fit is counted in part.
    pub async fn count_of(&self, stream: &str, filter: &str) -> Result<u64, ReadError> {
        let query = json!({ "subjects_filter": filter }).to_string();
        let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
        loop {
            let asked = self.client.request(subjects::stream_api("INFO", stream), query.clone().into());
            let cause = match timeout(Duration::from_millis(limits::READ_TRY_MS), asked).await {
                Ok(Ok(reply)) => match serde_json::from_slice::<Info>(&reply.payload) {
                    Ok(info) => return Ok(info.state.subjects.values().sum()),
                    Err(error) => error.to_string(),
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".into(),
            };
            if !backoff.pause().await {
                return Err(ReadError::Unavailable(cause));
            }
        }
    }
}
