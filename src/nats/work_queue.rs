//! The work queues of processes: pulls from durable consumers, and acks.
//!
//! A restarted server has forgotten earlier pulls, and an unanswered pull ends only at its expiry. So a pull ends with the
//! connection that it was made on, and is renewed on the next one.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, AckKind, Message,
        consumer::{PullConsumer, pull::Batch},
    },
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::connection::soon;
use crate::limits;

/// A durable consumer.
pub struct WorkQueue {
    consumer: PullConsumer,
}

/// A pull request and its messages.
pub struct PullRequest {
    batch: Batch,
    connected: watch::Receiver<u64>,
    stream: String,
}

/// A delivered message that waits for its ack.
///
/// An ack that can't be sent has the message delivered again, which every reader of a queue expects.
pub struct WorkItem {
    message: Message,
}

impl WorkQueue {
    /// Finds the durable consumer, and retries until the server answers.
    pub async fn find(client: &Client, stream: &str, name: &str) -> Self {
        let context = jetstream::new(client.clone());
        loop {
            match soon(context.get_consumer_from_stream(name, stream)).await {
                Ok(consumer) => return Self { consumer },
                Err(error) => {
                    tracing::warn!(error, stream, consumer = name, "the consumer does not answer");
                    tokio::time::sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
                }
            }
        }
    }

    /// Requests up to `messages` messages. `connected` changes with every new connection.
    pub async fn pull(&self, messages: usize, mut connected: watch::Receiver<u64>) -> Result<PullRequest, String> {
        connected.mark_unchanged();
        let stream = self.consumer.cached_info().stream_name.clone();
        let expires = Duration::from_millis(limits::PULL_EXPIRES_MS);
        let batch = soon(self.consumer.batch().max_messages(messages).expires(expires).messages()).await?;
        Ok(PullRequest { batch, connected, stream })
    }
}

impl PullRequest {
    /// Returns the next message; `None` when the pull is over or its connection is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<WorkItem, String>> {
        tokio::select! {
            biased;
            message = self.batch.next() => message.map(|message| match message {
                Ok(message) => Ok(WorkItem { message }),
                Err(error) => Err(error.to_string()),
            }),
            _ = self.connected.changed() => {
                tracing::info!(stream = self.stream, "reconnected: pulling work again");
                None
            }
        }
    }

    /// Returns the next message if it has already arrived.
    pub fn next_now(&mut self) -> Option<WorkItem> {
        let message = self.batch.next().now_or_never().flatten()?.ok()?;
        Some(WorkItem { message })
    }
}

impl WorkItem {
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// Returns the message's sequence in its stream; `None` = it was not delivered by a consumer.
    pub fn seq(&self) -> Option<u64> {
        self.message.info().ok().map(|info| info.stream_sequence)
    }

    /// Returns the number of deliveries so far, this one included.
    pub fn deliveries(&self) -> i64 {
        self.message.info().map_or(1, |info| info.delivered)
    }

    /// Acks: the message is served.
    pub async fn ack(&self) {
        self.answer(AckKind::Ack).await;
    }

    /// Begins the consumer's `ack_wait` anew: the message is being served.
    pub async fn progress(&self) {
        self.answer(AckKind::Progress).await;
    }

    /// Ends the message's delivery: no process can serve it.
    pub async fn terminate(&self) {
        self.answer(AckKind::Term).await;
    }

    /// Gives the message back, for a delivery at once or after a delay.
    pub async fn give_back(&self, delay: Option<Duration>) {
        self.answer(AckKind::Nak(delay)).await;
    }

    async fn answer(&self, kind: AckKind) {
        if let Err(error) = soon(self.message.ack_with(kind)).await {
            tracing::debug!(error, subject = self.subject(), "an ack was not sent; the message is redelivered");
        }
    }
}
