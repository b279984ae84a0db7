//! A turn that this worker drives: its state, its events and frames, and the ways out.

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
use super::{Worker, lease::WorkLease, open_task::OpenTask, profile::TurnProfile};
use crate::{
    domain::{
        Command, Conversation, Event, Refusal, Turn,
        event::{ReplyTiming, TurnReleased, Usage},
        frame_trace::{FrameKind, FrameRecorder},
    },
    ids, limits,
    live::relay::FrameRelay,
    log::conversations::{EventAuthor, ExecuteError, Freshness},
    nats::{AppendError, work_queue::WorkItem},
    subjects::{self, ConversationKey},
    wire::{live::LiveKind, render},
};

/// A delivered work item, and the signals that end its turn early.
pub(super) struct DeliveredItem<'a> {
    pub seq: u64,
    pub message: &'a WorkItem,
    pub lease: WorkLease,
    pub stop: Arc<Notify>,
    pub hand_over: CancellationToken,
}

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
    item: DeliveredItem<'a>,
    progress: Interval,
    nonce: Uuid,
    decisions: u32,
    /// The time at which the log last showed the turn as this worker's.
    held_at: Instant,
}

impl<'a> TurnRun<'a> {
    /// Begins the run of a turn that was just claimed; `held_at` is a time before the claim, `nonce` the claim's own.
    pub fn begin(
        worker: &'a Arc<Worker>,
        key: &ConversationKey,
        claimed: (Arc<Conversation>, u64),
        profile: TurnProfile,
        item: DeliveredItem<'a>,
        (nonce, held_at): (Uuid, Instant),
    ) -> Option<Self> {
        let (state, epoch) = claimed;
        let turn = state.turn.as_ref()?;
        let subject = subjects::live(&key.region, key.conversation, turn.request.session);
        let mut relay = FrameRelay::new(worker.client.clone(), subject, turn.request.turn, epoch, turn.activity());
        // Until the next model call, events belong to the last reply.
        relay.begin_call(turn.model_calls().saturating_sub(1));
        Some(Self {
            worker,
            key: key.clone(),
            turn_id: turn.request.turn,
            epoch,
            relay,
            profile,
            preamble: None,
            recorder: FrameRecorder::default(),
            timing: None,
            side_usage: None,
            tasks: vec![],
            item,
            progress: progress_ticks(),
            nonce,
            decisions: 1,
            held_at,
            state,
        })
    }
}

impl TurnRun<'_> {
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
            let stop = self.item.stop.clone();
            tokio::select! {
                done = &mut work => return Ok(done),
                () = stop.notified() => self.look().await?,
                _ = self.progress.tick() => {
                    self.look().await?;
                    self.item.message.progress().await;
                }
                () = self.item.hand_over.cancelled() => {
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
    pub async fn let_go(&mut self) {
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
        lost(self.worker, &self.key, self.item.seq).await
    }
}

/// Distinguishes an item that no longer drives a turn from one held by another worker.
pub(super) async fn lost(worker: &Worker, key: &ConversationKey, item: u64) -> TurnExit {
    match worker.conversations.load(key, Freshness::Leader).await {
        Ok(state) if state.turn.as_ref().is_some_and(|turn| turn.item == item) => TurnExit::Fenced,
        Ok(_) => TurnExit::Done,
        Err(error) => TurnExit::Unavailable(error.to_string()),
    }
}

/// Returns the ticks of progress acks, the first one after a whole interval.
pub(super) fn progress_ticks() -> Interval {
    let every = Duration::from_millis(limits::PROGRESS_MS);
    let mut progress = interval_at(tokio::time::Instant::now() + every, every);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    progress
}
