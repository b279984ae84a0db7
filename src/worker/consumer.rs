//! Finds work: through the pool's durable consumer of work items, and the consumer of due deadlines.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Worker,
    deadline::{AbandonedTask, DeadlineMessage, SCHED, schedule},
    lease::WorkLease,
    open_task::OpenTask,
    run, wait_step,
};
use crate::{
    domain::{Command, Conversation, Refusal},
    ids, limits,
    log::conversations::{EventAuthor, ExecuteError, Freshness},
    metrics::metrics,
    nats::{
        AppendError, backoff,
        streams::CHAT,
        work_queue::{WorkItem, WorkQueue},
    },
    subjects::{self, ConversationKey},
};

const DUE_CONSUMER: &str = "due";

/// Pulls work items and runs each in a task of its own, until `shutdown`.
///
/// (1) Wait until a turn can be started, (2) pull as many items as can be started, (3) start them as they arrive. No more
/// items are pulled: one that waited here would be delivered to another worker meanwhile.
pub async fn pull_items(
    worker: Arc<Worker>,
    shutdown: CancellationToken,
    turns: &TaskTracker,
    hand_over: &CancellationToken,
) {
    let turns_max = worker.settings.turns_max as usize;
    let free = Arc::new(Semaphore::new(turns_max));
    metrics().work.permits(turns_max);
    let stream = subjects::stream_name(CHAT, &worker.settings.region);
    while !shutdown.is_cancelled() {
        let queue = WorkQueue::find(&worker.client, &stream, &worker.settings.pool);
        let Some(queue) = shutdown.run_until_cancelled(queue).await else { return };
        while !shutdown.is_cancelled() {
            let Ok(first) = free.clone().acquire_owned().await else { return };
            let wanted = limits::PULL_BATCH.min(free.available_permits() + 1);
            let pulled = WorkLease::begin();
            let asked = queue.pull(wanted, worker.log.connected());
            let Some(asked) = shutdown.run_until_cancelled(asked).await else { return };
            let Ok(mut asked) = asked else { break };
            worker.set_pulling(true);
            let mut permit = Some(first);
            loop {
                let message = match shutdown.run_until_cancelled(asked.next()).await {
                    Some(Some(Ok(message))) => message,
                    Some(Some(Err(error))) => {
                        tracing::warn!(error, "pulling work items failed");
                        worker.set_pulling(false);
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
    worker.set_pulling(false);
}

/// Turns due deadlines into events, in parallel: a slow one delays no other.
pub async fn pull_deadlines(worker: Arc<Worker>) {
    let stream = subjects::stream_name(SCHED, &worker.settings.region);
    loop {
        let queue = WorkQueue::find(&worker.client, &stream, DUE_CONSUMER).await;
        while let Ok(due) = queue.pull(limits::PULL_BATCH, worker.log.connected()).await {
            let due = stream::unfold(due, async |mut due| Some((due.next().await?.ok()?, due)));
            let serve = |message| serve_deadline(&worker, message);
            due.for_each_concurrent(limits::DEADLINES_PARALLEL, serve).await;
        }
    }
}

/// Serves a due deadline: records it, or puts it off and acks it.
///
/// An unacknowledged message would occupy one of the consumer's `max_ack_pending` for all deadlines.
async fn serve_deadline(worker: &Worker, message: WorkItem) {
    let done = match serde_json::from_slice::<DeadlineMessage>(message.payload()) {
        Ok(deadline) => match expire(worker, &deadline).await {
            Ok(()) => true,
            Err(error) if is_of_conversation(&error) => put_off(worker, deadline, &error).await,
            Err(error) => {
                tracing::warn!(%error, conversation = %deadline.conversation, "a deadline can't be served; it is redelivered");
                false
            }
        },
        Err(error) => {
            tracing::error!(%error, subject = message.subject(), "a deadline is malformed");
            true
        }
    };
    if done {
        message.ack().await;
    }
}

/// Returns whether the cause lies in the conversation, perhaps for long: other conversations can be served.
fn is_of_conversation(error: &ExecuteError) -> bool {
    match error {
        ExecuteError::Refused(refusal) => *refusal == Refusal::ReadOnly,
        ExecuteError::Read(error) => error.is_of_conversation(),
        ExecuteError::Append(_) | ExecuteError::Contended | ExecuteError::TooLate => false,
    }
}

/// Records that a wait is over, unless the wait has ended already.
async fn expire(worker: &Worker, deadline: &DeadlineMessage) -> Result<(), ExecuteError> {
    let author =
        EventAuthor { source: worker.source(), event_id: ids::event_id(ids::new_random(), 0), not_after: None };
    let (key, command) = (deadline.key(&worker.settings.region), Command::Expire { park: deadline.park });
    let state = worker.conversations.load(&key, Freshness::AtLeast(0)).await?;
    match worker.conversations.execute(&key, state, &command, &author).await {
        Ok(_) => Ok(()),
        Err(ExecuteError::Refused(Refusal::NotPending)) => {
            leave_task(worker, &key, deadline).await;
            Ok(())
        }
        // No decision is possible there any more.
        Err(ExecuteError::Append(AppendError::Erased)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Cancels the task of a turn that was ended while it was parked for it.
async fn leave_task(worker: &Worker, key: &ConversationKey, deadline: &DeadlineMessage) {
    let Some(AbandonedTask { turn, tool, id }) = &deadline.task else { return };
    let is_over = |state: Arc<Conversation>| state.active(*turn).is_none();
    if worker.conversations.cached(key).is_some_and(is_over) {
        wait_step::cancel(worker, key, &OpenTask { tool: tool.clone(), id: id.clone() }).await;
    }
}

/// Schedules a deadline again that can't be recorded now, each time for later. False: it is not scheduled, and must be
/// delivered again.
async fn put_off(worker: &Worker, deadline: DeadlineMessage, cause: &ExecuteError) -> bool {
    let next = DeadlineMessage { put_off: deadline.put_off.saturating_add(1), ..deadline };
    let later = backoff::put_off(next.put_off.into());
    tracing::warn!(%cause, conversation = %next.conversation, ?later, "a deadline is delayed");
    let at = worker.log.now() + later;
    match schedule(worker, &next, at).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, conversation = %next.conversation, "a deadline can't be delayed; it is redelivered");
            false
        }
    }
}
