//! One work item, from claim to exit.
//!
//! Contract of [`handle`]: (1) load the log up to the item; (2) ack an item that no longer drives a turn; (3) claim the
//! turn, with the model request already under way if that is the next step; (4) take step after step; (5) ack only when the
//! log shows the turn terminal or driven by a later item, or when the turn is parked and this worker has set the deadline.
//! A fenced worker sends neither ack nor nak, for either would remove the item from its new owner.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    Worker,
    lease::WorkLease,
    model_step::Prefetch,
    open_task::open_tasks,
    profile::TurnProfile,
    title::TitleTask,
    turn_run::{DeliveredItem, TurnExit, TurnRun, lost, on_heap, progress_ticks},
};
use crate::{
    domain::{Command, NextStep, event::FailureReason, next_step},
    ids, limits,
    log::conversations::{EventAuthor, ExecuteError, Freshness},
    metrics::metrics,
    nats::{backoff::put_off, work_queue::WorkItem},
    subjects::ConversationKey,
};

/// Handles one delivered work item.
///
/// `pulled` began when the item was requested. The immediate progress ack gives the load the whole `ack_wait`.
pub(super) async fn handle(worker: Arc<Worker>, message: WorkItem, pulled: WorkLease, hand_over: CancellationToken) {
    if !pulled.holds() {
        metrics().work.handled("too_late");
        return tracing::warn!(
            subject = message.subject(),
            "a work item was delivered too late; it is left to its redelivery"
        );
    }
    let lease = WorkLease::begin();
    message.progress().await;
    let Some((key, seq)) = ConversationKey::parse_event(message.subject()).zip(message.seq()) else {
        metrics().work.handled("malformed");
        tracing::error!(subject = message.subject(), "a work item is not an event");
        return message.terminate().await;
    };
    let running = metrics().work.delivered(message.deliveries());
    let stop = worker.watch_stops(key.conversation);
    let item = DeliveredItem { seq, message: &message, lease, stop: stop.clone(), hand_over };
    let exit = Box::pin(drive(&worker, &key, item)).await;
    worker.unwatch_stops(key.conversation, &stop);
    drop(running);
    metrics().work.handled(exit.name());
    match exit {
        TurnExit::Done => {
            message.ack().await;
            drop_note(&worker, &key).await;
        }
        TurnExit::NotNow => {
            // A short delay: another worker may be able to serve the conversation.
            let most = Duration::from_millis(limits::TURN_PUT_OFF_MAX_MS);
            let later = put_off(message.deliveries()).min(most);
            tracing::warn!(conversation = %key.conversation, item = seq, ?later, "a turn can't be served now and is delayed");
            message.give_back(Some(later)).await;
        }
        TurnExit::HandOver => message.give_back(None).await,
        TurnExit::Fenced => {
            tracing::info!(conversation = %key.conversation, item = seq, "another worker took the turn over")
        }
        // The turn's failure could not be recorded here, so another worker could not record it either.
        TurnExit::TooLarge { max } => {
            tracing::error!(conversation = %key.conversation, item = seq, max, "a turn's failure is too large to be stored");
        }
        TurnExit::Unavailable(cause) => {
            tracing::warn!(conversation = %key.conversation, item = seq, cause, "the turn waits for its item's redelivery");
        }
    }
    worker.conversations.save_snapshot(&key).await;
}

/// Removes the note of an ended turn, which no longer counts.
async fn drop_note(worker: &Worker, key: &ConversationKey) {
    if !worker.settings.counts_turns {
        return;
    }
    let Some(state) = worker.conversations.cached(key).filter(|state| state.turn.is_none()) else { return };
    let Some(turn) = state.finished.back() else { return };
    if let Err(error) = worker.log.drop_note(&key.org, key.conversation, turn.id).await {
        tracing::debug!(%error, "the note of an ended turn was not removed; it is removed when its slot is needed");
    }
}

/// Claims the item's turn and drives it to an exit.
async fn drive(worker: &Arc<Worker>, key: &ConversationKey, item: DeliveredItem<'_>) -> TurnExit {
    let ClaimedTurn { mut run, prefetch, rerun, naming } = match claim(worker, key, item).await {
        Ok(claimed) => claimed,
        Err(exit) => return exit,
    };
    let exit = match Box::pin(run.steps(prefetch, rerun)).await {
        Err(TurnExit::TooLarge { max }) => run.end_too_large(max).await,
        Err(exit) => exit,
    };
    if matches!(exit, TurnExit::Done) {
        run.let_go().await;
        run.cancel_tasks().await;
    }
    naming.end(worker, key, &run.state, run.turn_id);
    exit
}

/// A claimed turn, and the work that was begun before the claim.
struct ClaimedTurn<'a> {
    run: TurnRun<'a>,
    prefetch: Prefetch,
    /// Another worker has shown parts of the turn.
    rerun: bool,
    naming: TitleTask,
}

/// Loads the log up to the item and claims its turn, with the model request already under way if that is the next step.
async fn claim<'a>(
    worker: &'a Arc<Worker>,
    key: &ConversationKey,
    mut item: DeliveredItem<'a>,
) -> Result<ClaimedTurn<'a>, TurnExit> {
    let load = Box::pin(worker.conversations.load(key, Freshness::AtLeast(item.seq)));
    let state = match kept(&mut item, load).await {
        Some(Ok(state)) => state,
        Some(Err(error)) if error.is_of_conversation() => return Err(TurnExit::NotNow),
        Some(Err(error)) => return Err(TurnExit::Unavailable(error.to_string())),
        None => return Err(TurnExit::Fenced),
    };
    if state.read_only {
        return Err(TurnExit::NotNow);
    }
    let Some(turn) = state.turn.as_ref().filter(|turn| turn.item == item.seq) else { return Err(TurnExit::Done) };
    if turn.park.is_some() {
        return Err(super::end_step::show_park_again(worker, key, turn).await);
    }
    let (over, looked_at) = (turn.epoch, state.last_seq);
    let profile = match kept(&mut item, Box::pin(TurnProfile::of(worker, key, turn))).await {
        Some(Ok(profile)) => profile,
        Some(Err(error)) => return Err(TurnExit::Unavailable(error.to_string())),
        None => return Err(TurnExit::Fenced),
    };
    let mut prefetch = Prefetch::none();
    // An agent that is another program is asked under the claim's epoch, so not before the claim.
    let is_asked = !profile.is_missing && worker.settings.agent.is_none();
    if is_asked && next_step(turn, profile.max_iterations()) == NextStep::CallModel {
        let opens = Box::pin(Prefetch::start(worker, key, &profile, &state));
        prefetch = kept(&mut item, opens).await.ok_or(TurnExit::Fenced)?;
    }
    // An item delivered too long ago belongs to another worker by now, claimed or not.
    if !item.lease.holds() {
        return Err(TurnExit::Fenced);
    }
    let naming = TitleTask::begin(&profile, &state);
    let (nonce, held_at) = (ids::new_random(), Instant::now());
    let author = EventAuthor { source: worker.source(), event_id: ids::event_id(nonce, 0), not_after: None };
    let claim = Command::Claim { item: item.seq, worker: worker.id, over };
    let executed = match worker.conversations.execute(key, state, &claim, &author).await {
        Ok(executed) => executed,
        Err(ExecuteError::Refused(_)) => return Err(lost(worker, key, item.seq).await),
        Err(error) => return Err(TurnExit::Unavailable(error.to_string())),
    };
    // Another worker may have claimed the turn and streamed since this one loaded it: then its request is outdated, and the
    // frames shown are void.
    let prefetch = if executed.previous == looked_at { prefetch } else { Prefetch::none() };
    let rerun = executed.previous != item.seq;
    let claimed = (executed.state, executed.recorded.seq);
    let run = TurnRun::begin(worker, key, claimed, profile, item, (nonce, held_at)).ok_or(TurnExit::Done)?;
    Ok(ClaimedTurn { run, prefetch, rerun, naming })
}

/// Waits for work before the claim, with progress acks meanwhile.
///
/// `None`: too much time has passed, and the item is another worker's.
async fn kept<T>(item: &mut DeliveredItem<'_>, work: impl Future<Output = T>) -> Option<T> {
    let mut progress = progress_ticks();
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return item.lease.holds().then_some(done),
            _ = progress.tick() => {
                if !item.lease.holds() {
                    return None;
                }
                item.lease = WorkLease::begin();
                item.message.progress().await;
            }
        }
    }
}

impl TurnRun<'_> {
    /// Takes step after step; the way out is a [`TurnExit`].
    async fn steps(&mut self, mut prefetch: Prefetch, mut rerun: bool) -> Result<std::convert::Infallible, TurnExit> {
        loop {
            let turn = self.turn().ok_or(TurnExit::Done)?.clone();
            self.tasks = open_tasks(&turn);
            self.end_if_too_old(&turn).await?;
            if self.profile.is_missing {
                let detail = "the agent's configuration that the turn names is not there";
                self.fail(&turn, FailureReason::NoConfiguration, detail).await?;
            }
            match next_step(&turn, self.profile.max_iterations()) {
                NextStep::CallModel => {
                    let prefetch = std::mem::take(&mut prefetch);
                    on_heap(|| self.call_model(&turn, prefetch, rerun)).await?;
                }
                NextStep::CallTools(calls) => on_heap(|| self.call_tools(&turn, calls)).await?,
                NextStep::StateRefused(call, resolution) => {
                    on_heap(|| self.state_refused(&turn, call, resolution)).await?
                }
                NextStep::StateAnswer(call, resolution, values) => {
                    on_heap(|| self.state_answer(&turn, call, resolution, values)).await?;
                }
                NextStep::StateCut(call, ending) => on_heap(|| self.state_cut(&turn, call, ending)).await?,
                NextStep::StateUnknown(call) => on_heap(|| self.state_unknown(&turn, call)).await?,
                NextStep::Park(call) => on_heap(|| self.park(&turn, call)).await?,
                NextStep::Elicit(call, question) => on_heap(|| self.elicit(&turn, call, question, vec![])).await?,
                NextStep::Wait => return Err(TurnExit::Done),
                NextStep::EndAtCap => on_heap(|| self.end_at_cap(&turn)).await?,
                NextStep::GiveUp => on_heap(|| self.give_up(&turn)).await?,
            }
            rerun = false;
        }
    }
}
