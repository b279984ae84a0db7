//! Pulls from durable consumers: the work queues of processes.
//!
//! A restarted server has forgotten earlier pulls, and an unanswered pull ends only at its expiry. So a pull ends with the
//! connection that it was made on, and is renewed on the next one.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, Message,
        consumer::{PullConsumer, pull::Batch},
    },
};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::connection::soon;
use crate::limits;

/// A pull request and its messages.
pub struct PullRequest {
    batch: Batch,
    connected: watch::Receiver<u64>,
    stream: String,
}

/// Returns the durable consumer, and retries until the server answers.
pub async fn consumer(client: &Client, stream: &str, name: &str) -> PullConsumer {
    let context = jetstream::new(client.clone());
    loop {
        match soon(context.get_consumer_from_stream(name, stream)).await {
            Ok(consumer) => return consumer,
            Err(error) => {
                tracing::warn!(error, stream, consumer = name, "the consumer does not answer");
                tokio::time::sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
            }
        }
    }
}

impl PullRequest {
    /// Requests up to `messages` messages. `connected` changes with every new connection.
    pub async fn begin(
        consumer: &PullConsumer,
        messages: usize,
        mut connected: watch::Receiver<u64>,
    ) -> Result<Self, String> {
        connected.mark_unchanged();
        let stream = consumer.cached_info().stream_name.clone();
        let expires = Duration::from_millis(limits::PULL_EXPIRES_MS);
        let batch = soon(consumer.batch().max_messages(messages).expires(expires).messages()).await?;
        Ok(Self { batch, connected, stream })
    }

    /// Returns the next message; `None` when the pull is over or its connection is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Message, String>> {
        tokio::select! {
            biased;
            message = self.batch.next() => message.map(|message| message.map_err(|error| error.to_string())),
            _ = self.connected.changed() => {
                tracing::info!(stream = self.stream, "reconnected: pulling work again");
                None
            }
        }
    }

    /// Returns the next message if it has already arrived.
    pub fn next_now(&mut self) -> Option<Message> {
        self.batch.next().now_or_never().flatten()?.ok()
    }
}
