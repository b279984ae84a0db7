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

use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) use super::exit::{TurnExit, on_heap};
use super::{
    Worker,
    lease::WorkLease,
    model_step::Prefetch,
    profile::TurnProfile,
    title::TitleTask,
    wait_step::{OpenTask, open_tasks},
};
use crate::{
    domain::{
        Command, Conversation, Event, NextStep, Refusal, Turn,
        event::{FailureReason, ReplyTiming, TurnReleased, Usage},
        frame_trace::{FrameKind, FrameRecorder},
        next_step,
    },
    ids, limits,
    live::relay::FrameRelay,
    log::conversations::{EventAuthor, ExecuteError, Freshness},
    metrics::metrics,
    nats::{AppendError, backoff::put_off, work_queue::WorkItem},
    subjects::{self, ConversationKey},
    wire::{live::LiveKind, render},
};

/// A turn held by this worker.
pub(super) struct TurnRun<'a> {
    pub worker: &'a Arc<Worker>,
    pub key: ConversationKey,
    pub turn_id: Uuid,
    pub epoch: u64,
    pub state: Arc<Conversation>,
    pub relay: FrameRelay,
    pub profile: TurnProfile,
    /// The preamble that was shown, until it is recorded.
    pub preamble: Option<String>,
    /// The frame trace of the running model call, until it is recorded.
    pub recorder: FrameRecorder,
    /// The times of the running model call, until they are recorded.
    pub timing: Option<ReplyTiming>,
    /// The usage of side requests, until it is recorded.
    pub side_usage: Option<Usage>,
    /// Tasks of its calls that may go on at their servers.
    pub tasks: Vec<OpenTask>,
    item: u64,
    message: &'a WorkItem,
    stop: Arc<Notify>,
    hand_over: CancellationToken,
    progress: Interval,
    nonce: Uuid,
    decisions: u32,
    /// The time at which the log last showed the turn as this worker's.
    held_at: Instant,
}

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
    let Some((key, item)) = ConversationKey::parse_event(message.subject()).zip(message.seq()) else {
        metrics().work.handled("malformed");
        tracing::error!(subject = message.subject(), "a work item is not an event");
        return message.terminate().await;
    };
    let running = metrics().work.delivered(message.deliveries());
    let stop = worker.watch_stops(key.conversation);
    let exit = Box::pin(drive(&worker, &key, item, (&message, lease), stop.clone(), hand_over)).await;
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
            tracing::warn!(conversation = %key.conversation, item, ?later, "a turn can't be served now and is delayed");
            message.give_back(Some(later)).await;
        }
        TurnExit::HandOver => message.give_back(None).await,
        TurnExit::Fenced => tracing::info!(conversation = %key.conversation, item, "another worker took the turn over"),
        // The turn's failure could not be recorded here, so another worker could not record it either.
        TurnExit::TooLarge { max } => {
            tracing::error!(conversation = %key.conversation, item, max, "a turn's failure is too large to be stored");
        }
        TurnExit::Unavailable(cause) => {
            tracing::warn!(conversation = %key.conversation, item, cause, "the turn waits for its item's redelivery");
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

async fn drive(
    worker: &Arc<Worker>,
    key: &ConversationKey,
    item: u64,
    (message, mut lease): (&WorkItem, WorkLease),
    stop: Arc<Notify>,
    hand_over: CancellationToken,
) -> TurnExit {
    let load = Box::pin(worker.conversations.load(key, Freshness::AtLeast(item)));
    let state = match kept(message, &mut lease, load).await {
        Some(Ok(state)) => state,
        Some(Err(error)) if error.is_of_conversation() => return TurnExit::NotNow,
        Some(Err(error)) => return TurnExit::Unavailable(error.to_string()),
        None => return TurnExit::Fenced,
    };
    if state.read_only {
        return TurnExit::NotNow;
    }
    let Some(turn) = state.turn.as_ref().filter(|turn| turn.item == item) else { return TurnExit::Done };
    if turn.park.is_some() {
        return super::end_step::show_park_again(worker, key, turn).await;
    }
    let (turn_id, session, looked_at) = (turn.request.turn, turn.request.session, state.last_seq);
    let over = turn.epoch;
    let profile = match kept(message, &mut lease, Box::pin(TurnProfile::of(worker, key, turn))).await {
        Some(Ok(profile)) => profile,
        Some(Err(error)) => return TurnExit::Unavailable(error.to_string()),
        None => return TurnExit::Fenced,
    };
    let prefetch = match next_step(turn, profile.max_iterations()) {
        // Retrieval for the prompt may take seconds.
        // An agent that is another program is asked under the claim's epoch.
        NextStep::CallModel if !profile.is_missing && worker.settings.agent.is_none() => {
            let opens = Box::pin(Prefetch::start(worker, key, &profile, &state));
            match kept(message, &mut lease, opens).await {
                Some(prefetch) => prefetch,
                None => return TurnExit::Fenced,
            }
        }
        _ => Prefetch::none(),
    };
    // An item delivered too long ago belongs to another worker by now, claimed or not.
    if !lease.holds() {
        return TurnExit::Fenced;
    }
    let naming = TitleTask::begin(&profile, &state);
    let nonce = ids::new_random();
    let author = EventAuthor { source: worker.source(), event_id: ids::event_id(nonce, 0), not_after: None };
    let held_at = Instant::now();
    let claim = Command::Claim { item, worker: worker.id, over };
    let executed = match worker.conversations.execute(key, state, &claim, &author).await {
        Ok(executed) => executed,
        Err(ExecuteError::Refused(_)) => return lost(worker, key, item).await,
        Err(error) => return TurnExit::Unavailable(error.to_string()),
    };
    // Another worker may have claimed the turn and streamed since this one loaded it: then its request is outdated, and the
    // frames shown are void.
    let prefetch = if executed.previous == looked_at { prefetch } else { Prefetch::none() };
    let rerun = executed.previous != item;
    let epoch = executed.recorded.seq;
    let (replies, chunks) = executed.state.turn.as_ref().map_or((0, 0), |turn| (turn.model_calls(), turn.activity()));
    let subject = subjects::live(&key.region, key.conversation, session);
    let mut relay = FrameRelay::new(worker.client.clone(), subject, turn_id, epoch, chunks);
    // Until the next model call, events belong to the last reply.
    relay.begin_call(replies.saturating_sub(1));
    let every = Duration::from_millis(limits::PROGRESS_MS);
    let mut progress = interval_at(tokio::time::Instant::now() + every, every);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut run = TurnRun {
        worker,
        key: key.clone(),
        turn_id,
        epoch,
        state: executed.state,
        relay,
        profile,
        preamble: None,
        recorder: FrameRecorder::default(),
        timing: None,
        side_usage: None,
        tasks: vec![],
        item,
        message,
        stop,
        hand_over,
        progress,
        nonce,
        decisions: 1,
        held_at,
    };
    let exit = match Box::pin(run.steps(prefetch, rerun)).await {
        Err(TurnExit::TooLarge { max }) => run.end_too_large(max).await,
        Err(exit) => exit,
    };
    if matches!(exit, TurnExit::Done) {
        run.let_go().await;
        run.cancel_tasks().await;
    }
    naming.end(worker, key, &run.state, turn_id);
    exit
}

/// Waits for work before the claim, with progress acks meanwhile.
///
/// `None`: too much time has passed, and the item is another worker's.
async fn kept<T>(message: &WorkItem, lease: &mut WorkLease, work: impl Future<Output = T>) -> Option<T> {
    let every = Duration::from_millis(limits::PROGRESS_MS);
    let mut progress = interval_at(tokio::time::Instant::now() + every, every);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return lease.holds().then_some(done),
            _ = progress.tick() => {
                if !lease.holds() {
                    return None;
                }
                *lease = WorkLease::begin();
                message.progress().await;
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

    /// Returns the turn while it is the active one.
    pub fn turn(&self) -> Option<&Turn> {
        self.state.turn.as_ref().filter(|turn| turn.request.turn == self.turn_id)
    }

    /// Appends an event, if the turn is still this worker's.
    pub async fn record(&mut self, event: Event) -> Result<Event, TurnExit> {
        let author = self.author();
        let mut command = Command::Record { turn: self.turn_id, epoch: self.epoch, event };
        loop {
            let asked_at = Instant::now();
            match self.worker.conversations.execute(&self.key, self.state.clone(), &command, &author).await {
                Ok(executed) => {
                    self.held_at = asked_at;
                    self.state = executed.state;
                    if executed.recorded.event.shown().is_some() {
                        self.recorder = FrameRecorder::default();
                    }
                    return Ok(executed.recorded.event);
                }
                Err(ExecuteError::Refused(refusal)) => return Err(self.lost(refusal).await),
                Err(ExecuteError::Append(AppendError::TooLarge { max })) => {
                    // The event matters more than its frame trace.
                    let is_smaller = match &mut command {
                        Command::Record { event, .. } => event.empty_shown(),
                        _ => false,
                    };
                    if !is_smaller {
                        return Err(TurnExit::TooLarge { max });
                    }
                }
                // The conversation is erased: nothing is left to continue.
                Err(ExecuteError::Append(AppendError::Erased)) => return Err(TurnExit::Done),
                Err(error) => return Err(TurnExit::Unavailable(error.to_string())),
            }
        }
    }

    fn author(&mut self) -> EventAuthor {
        let (source, event_id) = (self.worker.source(), ids::event_id(self.nonce, self.decisions));
        let author = EventAuthor { source, event_id, not_after: None };
        self.decisions += 1;
        author
    }

    /// Appends an event and shows it to the client.
    pub async fn record_and_show(&mut self, turn: &Turn, event: Event) -> Result<(), TurnExit> {
        let event = self.record(event).await?;
        for (kind, frame) in render::render(&turn.request.request_id, turn.request.stream, &event, chrono::Utc::now()) {
            self.relay.publish(kind, frame, 0).await;
        }
        Ok(())
    }

    /// Shows a piece of a model call's text and records the frame, unless the client wants no stream.
    pub async fn say(&mut self, turn: &Turn, voice: FrameKind, text: &str) {
        if text.is_empty() || !turn.request.stream {
            return;
        }
        let (request_id, now) = (&turn.request.request_id, chrono::Utc::now());
        self.recorder.frame(voice, text, now);
        let (kind, frame, text_bytes) = match voice {
            FrameKind::Token => (LiveKind::Token, render::token(request_id, text, now), text.len()),
            FrameKind::Reasoning => (LiveKind::Reasoning, render::reasoning(request_id, text, now), 0),
            FrameKind::Preamble => (LiveKind::Preamble, render::preamble(request_id, text, now), 0),
        };
        self.relay.publish(kind, frame, text_bytes).await;
    }

    /// Publishes a `stream_*` frame, unless the client wants none.
    pub async fn stream(&mut self, turn: &Turn, kind: LiveKind, frame: bytes::Bytes, text_bytes: usize) {
        if turn.request.stream {
            self.relay.publish(kind, frame, text_bytes).await;
        }
    }

    /// Waits for external work, with progress acks and checks of the log meanwhile.
    pub async fn guarded<T>(&mut self, work: impl Future<Output = T>) -> Result<T, TurnExit> {
        let mut work = pin!(work);
        loop {
            let stop = self.stop.clone();
            tokio::select! {
                done = &mut work => return Ok(done),
                () = stop.notified() => self.look().await?,
                _ = self.progress.tick() => {
                    self.look().await?;
                    self.message.progress().await;
                }
                () = self.hand_over.cancelled() => {
                    return Err(self.release().await);
                }
            }
        }
    }

    /// Releases the turn.
    ///
    /// The log is written first: a nak for an item that another worker holds by now would remove it from that worker. A
    /// released claim does not count against the turn.
    async fn release(&mut self) -> TurnExit {
        let released = self.released();
        match self.record(Event::TurnReleased(released)).await {
            Ok(_) => TurnExit::HandOver,
            Err(exit) => exit,
        }
    }

    fn released(&self) -> TurnReleased {
        TurnReleased { turn: self.turn_id, epoch: self.epoch, shown: self.recorder.trace("") }
    }

    /// Records the frames that a client had been shown when its turn was cancelled.
    ///
    /// Nothing depends on this record, so it is tried once, after everything that other processes wait for.
    async fn let_go(&mut self) {
        let released = self.released();
        if released.shown.is_none() {
            return;
        }
        let (author, command) = (self.author(), Command::LetGo(released));
        if let Err(error) = self.worker.conversations.execute(&self.key, self.state.clone(), &command, &author).await {
            tracing::debug!(turn = %self.turn_id, %error, "the frame trace of a turn was not recorded");
        }
    }

    /// Checks in the log whether the turn is still this worker's.
    async fn look(&mut self) -> Result<(), TurnExit> {
        match self.read(Freshness::AtLeast(self.state.last_seq)).await {
            // An append decides; until then work goes on.
            Err(TurnExit::Unavailable(cause)) => {
                tracing::debug!(turn = %self.turn_id, cause, "the log can't be read");
                Ok(())
            }
            read => read,
        }
    }

    /// Confirms the turn's ownership before an action that can't be undone.
    ///
    /// An old read does not count: this worker may have been paused, and another worker may have claimed the turn, or its
    /// user stopped it.
    pub async fn confirm_lease(&mut self) -> Result<(), TurnExit> {
        match self.held_at.elapsed() > Duration::from_millis(limits::LEASE_MS) {
            true => self.read(Freshness::Leader).await,
            false => Ok(()),
        }
    }

    async fn read(&mut self, freshness: Freshness) -> Result<(), TurnExit> {
        let asked_at = Instant::now();
        let loaded = self.worker.conversations.load(&self.key, freshness).await;
        self.state = loaded.map_err(|error| TurnExit::Unavailable(error.to_string()))?;
        match self.turn() {
            Some(turn) if turn.epoch == Some(self.epoch) => {
                self.held_at = asked_at;
                Ok(())
            }
            _ => Err(self.lost(Refusal::Superseded).await),
        }
    }

    async fn lost(&mut self, refusal: Refusal) -> TurnExit {
        tracing::info!(turn = %self.turn_id, epoch = self.epoch, %refusal, "stopped driving a turn");
        lost(self.worker, &self.key, self.item).await
    }
}

/// Distinguishes an item that no longer drives a turn from one held by another worker.
async fn lost(worker: &Worker, key: &ConversationKey, item: u64) -> TurnExit {
    match worker.conversations.load(key, Freshness::Leader).await {
        Ok(state) if state.turn.as_ref().is_some_and(|turn| turn.item == item) => TurnExit::Fenced,
        Ok(_) => TurnExit::Done,
        Err(error) => TurnExit::Unavailable(error.to_string()),
    }
}
