//! Finds work: the pool's durable consumer of work items, and the consumer of due deadlines.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::jetstream::{self, consumer::PullConsumer};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{Worker, lease::Lease, run};
use crate::{
    domain::{Command, Refusal},
    ids, limits,
    log::{
        AppendError,
        bus::soon,
        load::{Decider, ExecuteError, Freshness},
        nats::CHAT,
    },
    subjects::{self, ConversationKey},
};

/// Base name of the stream of deadlines, and its consumer.
pub const SCHED: &str = "SCHED";
const DUE_CONSUMER: &str = "due";

/// Payload of a deadline's message.
#[derive(Serialize, Deserialize)]
pub struct Deadline {
    pub org: String,
    pub conversation: Uuid,
    pub park: Uuid,
}

/// Pulls work items and runs each in a task of its own, until `shutdown`.
///
/// (1) Wait until a turn may be started, (2) pull as many items as may be, (3) start them as they come. Never more are
/// pulled than can be started at once: an item that waits here would be delivered to another worker meanwhile.
pub async fn pull_items(
    worker: Arc<Worker>,
    shutdown: CancellationToken,
    turns: &TaskTracker,
    hand_over: &CancellationToken,
) {
    let free = Arc::new(Semaphore::new(limits::WORKER_TURNS));
    let stream = subjects::stream_name(CHAT, &worker.settings.region);
    while !shutdown.is_cancelled() {
        let Some(consumer) = shutdown.run_until_cancelled(consumer(&worker, &stream, &worker.settings.pool)).await
        else {
            return;
        };
        while !shutdown.is_cancelled() {
            let Ok(first) = free.clone().acquire_owned().await else { return };
            let wanted = limits::PULL_BATCH.min(free.available_permits() + 1);
            let (pulled, mut connected) = (Lease::begin(), worker.log.connected());
            let Some(asked) = shutdown.run_until_cancelled(batch(&consumer, wanted)).await else { return };
            let Ok(mut batch) = asked else { break };
            worker.pulling.store(true, Ordering::Relaxed);
            let mut permit = Some(first);
            loop {
                // A server that was away knows nothing of what it was asked for before.
                let next = async {
                    tokio::select! {
                        biased;
                        message = batch.next() => message,
                        _ = connected.changed() => None,
                    }
                };
                let message = match shutdown.run_until_cancelled(next).await {
                    Some(Some(Ok(message))) => message,
                    Some(Some(Err(error))) => {
                        tracing::warn!(%error, "pulling work items failed");
                        worker.pulling.store(false, Ordering::Relaxed);
                        break;
                    }
                    Some(None) | None => break,
                };
                let permit = match permit.take() {
                    Some(permit) => permit,
                    None => free.clone().acquire_owned().await.expect("the semaphore is never closed"),
                };
                let (worker, hand_over) = (worker.clone(), hand_over.clone());
                turns.spawn(async move {
                    run::handle(worker, message, pulled, hand_over).await;
                    drop(permit);
                });
            }
            if !worker.is_pulling() {
                break;
            }
        }
    }
    worker.pulling.store(false, Ordering::Relaxed);
}

/// Turns due deadlines into events.
pub async fn pull_deadlines(worker: Arc<Worker>) {
    let stream = subjects::stream_name(SCHED, &worker.settings.region);
    loop {
        let consumer = consumer(&worker, &stream, DUE_CONSUMER).await;
        loop {
            let mut connected = worker.log.connected();
            let Ok(mut batch) = batch(&consumer, limits::PULL_BATCH).await else { break };
            while let Some(Ok(message)) = tokio::select! {
                biased;
                message = batch.next() => message,
                _ = connected.changed() => None,
            } {
                let done = match serde_json::from_slice::<Deadline>(&message.payload) {
                    Ok(deadline) => expire(&worker, &deadline).await,
                    Err(error) => {
                        tracing::error!(%error, subject = %message.subject, "a deadline is malformed");
                        true
                    }
                };
                if done && let Err(error) = soon(message.ack()).await {
                    tracing::debug!(error, "a deadline's ack was not sent; it comes again");
                }
            }
        }
    }
}

/// Whether the deadline is dealt with; if not, it is delivered again.
async fn expire(worker: &Worker, deadline: &Deadline) -> bool {
    let key = ConversationKey {
        region: worker.settings.region.clone(),
        org: deadline.org.clone(),
        conversation: deadline.conversation,
    };
    let decider = Decider { source: worker.source(), event_id: ids::event_id(ids::new_random(), 0), not_after: None };
    let command = Command::Expire { park: deadline.park };
    let result = match worker.conversations.load(&key, Freshness::AtLeast(0)).await {
        Ok(state) => worker.conversations.execute(&key, state, &command, &decider).await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(_) | Err(ExecuteError::Refused(Refusal::NotPending)) => true,
        // Nobody can decide there any more.
        Err(ExecuteError::Append(AppendError::Erased)) => true,
        Err(error) => {
            tracing::warn!(%error, conversation = %deadline.conversation, "a deadline could not be recorded yet");
            false
        }
    }
}

/// The durable consumer, as soon as it answers.
async fn consumer(worker: &Worker, stream: &str, name: &str) -> PullConsumer {
    let context = jetstream::new(worker.client.clone());
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

async fn batch(consumer: &PullConsumer, messages: usize) -> Result<jetstream::consumer::pull::Batch, String> {
    let expires = Duration::from_millis(limits::PULL_EXPIRES_MS);
    soon(consumer.batch().max_messages(messages).expires(expires).messages()).await
}
