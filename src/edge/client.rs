//! One client: its identity, the sessions that it has reached, and the frames that it has been shown.

pub mod deadlines;
mod missed;
mod reached;

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

use super::{
    Edge,
    delivery::{
        push::PushRegistration,
        tracker::{DeliveryTracker, FrameVerdict},
    },
    ending,
    policy::quota::{ConnectionSlot, MessageRate},
};
use crate::{
    auth::{Principal, REFERENCE_ORG},
    domain::{Conversation, Turn, event::TurnRequested},
    limits,
    live::{
        hub::{FrameQueue, HubListener, LiveFrame},
        replay,
    },
    log::conversations::Freshness,
    metrics::metrics,
    nats::ReadError,
    subjects::{ConversationKey, PushTo},
    wire::{
        actions::invalid,
        frames::{self, ErrorCode},
        live::{LiveKind, ResumeCursor},
        render,
        stored::SessionRecord,
    },
};

pub struct Connection {
    pub edge: Arc<Edge>,
    pub listener: HubListener,
    /// The names under which hosts push events to this connection.
    pub registration: PushRegistration,
    pub delivery: DeliveryTracker,
    /// The client's proven identity.
    pub principal: Option<Principal>,
    /// The `Origin` of the handshake: the page that the client runs in.
    pub origin: Option<String>,
    /// Organisations for which a widget's policy let the client open sessions, the last one last.
    admitted: Vec<String>,
    /// The session that gave access to each conversation, the newest last.
    pub(super) reached: VecDeque<Arc<SessionRecord>>,
    /// The session that this connection opened last.
    pub session: Option<Uuid>,
    /// The client's address, as far as quotas count it.
    pub address: IpAddr,
    /// The counts of sent messages, and of written sessions and names.
    pub used: MessageRate,
    pub written: MessageRate,
    /// The seconds after which the last refused request may be retried.
    pub retry_after_secs: Option<u64>,
    /// Holds the connection's slot in the quota.
    _slot: ConnectionSlot,
    /// True once the client has named a session that it may reach; only then may it send frames with attachments.
    pub has_session: bool,
    /// Frames of the next write.
    pub out: Vec<Bytes>,
}

/// The client as its handshake describes it.
pub struct ClientIdentity {
    /// The client's proven identity.
    pub principal: Option<Principal>,
    pub origin: Option<String>,
    pub address: IpAddr,
    /// The client's connection slot in the quota.
    pub slot: ConnectionSlot,
    /// True if the client asked for the resume extension.
    pub resumes: bool,
}

/// The reason why a conversation is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("the connection follows as many conversations as it may")]
    TooMany,
    #[error("{0}")]
    Read(#[from] ReadError),
}

impl Drop for Connection {
    /// Unwatches all conversations, also when the connection's task has panicked.
    fn drop(&mut self) {
        for conversation in self.delivery.watched() {
            self.edge.hub.unwatch(conversation, &self.listener);
        }
    }
}

impl Connection {
    /// Makes a connection and its queue of hosts' events.
    pub fn new(edge: Arc<Edge>, listener: HubListener, caller: ClientIdentity) -> (Self, Receiver<Bytes>) {
        let ClientIdentity { principal, origin, address, slot: place, resumes } = caller;
        let (mut registration, pushes) = edge.pushes.register();
        registration.belongs_to(principal.as_ref().map_or(REFERENCE_ORG, |principal| &principal.org));
        if let Some(principal) = &principal {
            registration.called(PushTo::User, &principal.org, &principal.user);
        }
        let connection = Self {
            edge,
            listener,
            registration,
            delivery: DeliveryTracker::new(resumes),
            principal,
            origin,
            admitted: Vec::new(),
            reached: VecDeque::new(),
            session: None,
            address,
            used: MessageRate::default(),
            written: MessageRate::default(),
            retry_after_secs: None,
            _slot: place,
            has_session: false,
            out: Vec::new(),
        };
        (connection, pushes)
    }

    pub fn refuse_binary(&mut self) {
        let bad = invalid("frames are JSON text");
        metrics().connections.error(&bad.code.name());
        self.out.push(frames::error(None, bad.code, &bad.message, Utc::now()));
    }

    /// Takes the connection into an organisation that a widget's policy has named.
    pub fn belongs_to(&mut self, org: &str) {
        self.admitted.retain(|known| known != org);
        self.admitted.push(org.to_string());
    }

    /// Returns the organisation of sessions that the client opens now.
    pub fn org(&self) -> &str {
        self.orgs().next().unwrap_or(REFERENCE_ORG)
    }

    /// Returns the organisations in which the client may have conversations, the likeliest first.
    pub fn orgs(&self) -> impl Iterator<Item = &str> {
        let own = self.principal.as_ref().map_or(REFERENCE_ORG, |principal| &principal.org);
        self.admitted.iter().rev().map(String::as_str).chain([own])
    }

    /// Returns the client's proven identity in an organisation.
    ///
    /// A proof counts in its own organisation. In an organisation that a widget's policy has named, the client is a visitor like any
    /// other.
    pub fn principal_in(&self, org: &str) -> Option<&Principal> {
        let is_visitor =
            |principal: &&Principal| principal.org != org && self.admitted.iter().any(|known| known == org);
        self.principal.as_ref().filter(|principal| !is_visitor(principal))
    }

    /// Makes an opened session the connection's current one, and lets hosts reach the connection by it.
    pub fn opened(&mut self, record: &SessionRecord) {
        self.session = Some(record.session);
        self.registration.belongs_to(&record.org);
        self.registration.called(PushTo::Session, &record.org, &record.session.to_string());
        self.registration.called(PushTo::Agent, &record.org, &record.agent_id);
    }

    /// Takes a live frame and the frames queued behind it, up to one write.
    pub(super) async fn take_live(&mut self, first: LiveFrame, live: &mut FrameQueue) {
        let mut bytes = first.payload.len();
        self.show(first).await;
        while bytes < limits::WRITE_BATCH_BYTES
            && let Some(frame) = live.try_next()
        {
            bytes += frame.payload.len();
            self.show(frame).await;
        }
    }

    async fn show(&mut self, frame: LiveFrame) {
        // Frames of a turn that another client began are shown only after a check that this watcher still has access.
        let is_news = frame.mark.kind == LiveKind::Owner || self.delivery.is_strange(&frame);
        if is_news && (!self.look_again(frame.conversation).await || frame.mark.kind == LiveKind::Owner) {
            return;
        }
        if self.show_in_order(&frame).await == FrameVerdict::Gap {
            self.repair(frame).await;
        }
    }

    /// Shows a frame if it is the turn's next one.
    async fn show_in_order(&mut self, frame: &LiveFrame) -> FrameVerdict {
        let LiveFrame { mark, conversation, payload, .. } = frame;
        if self.delivery.owes_something(frame)
            && !self.say_missed(mark.turn, mark.calls_before(), mark.chunks_before()).await
            && mark.kind == LiveKind::Terminal
        {
            // Missed frames must precede the end; both are shown from the log when it can be read again.
            return FrameVerdict::Drop;
        }
        let verdict = self.delivery.judge(frame);
        if verdict == FrameVerdict::Show && mark.kind == LiveKind::Terminal {
            let key = self.delivery.key(*conversation).cloned();
            self.push_end(mark.turn, payload.clone());
            self.refresh(key);
        } else if verdict == FrameVerdict::Show {
            self.push(mark.turn, payload.clone());
        }
        verdict
    }

    /// Queues a frame of a turn, with its cursor if the client uses the resume extension.
    pub fn push(&mut self, turn: Uuid, frame: Bytes) {
        let resumes = self.delivery.resumes;
        let cursor = self.delivery.get_mut(turn).map(|view| {
            view.sent_at = std::time::Instant::now();
            view.cursor(turn)
        });
        self.out.push(match cursor {
            Some(cursor) if resumes => frames::with_seq(&frame, &cursor.to_string()),
            _ => frame,
        });
    }

    /// Queues the terminal frame of a turn and closes it.
    pub fn push_end(&mut self, turn: Uuid, frame: Bytes) {
        let ended = ResumeCursor::ended(turn).to_string();
        self.out.push(if self.delivery.resumes { frames::with_seq(&frame, &ended) } else { frame });
        if let Some(conversation) = self.delivery.end(turn) {
            self.edge.hub.unwatch(conversation, &self.listener);
        }
    }

    /// Fills the gap before a frame from the LIVE stream, else goes on without the lost frames.
    async fn repair(&mut self, frame: LiveFrame) {
        if let Some((key, session)) = self.delivery.key(frame.conversation).cloned().zip(frame.session) {
            tracing::debug!(turn = %frame.mark.turn, n = frame.mark.n, "frames are missing; reading the LIVE stream");
            self.replay(&key, frame.mark.turn, session).await;
        }
        let is_lost = self.show_in_order(&frame).await == FrameVerdict::Gap;
        metrics().connections.repaired(if is_lost { "log" } else { "stream" });
        if is_lost {
            self.delivery.skip_to(frame.mark);
            self.show_in_order(&frame).await;
        }
    }

    /// Shows the frames of a session's turn that the LIVE stream has and the client has not been shown.
    pub async fn replay(&mut self, key: &ConversationKey, turn: Uuid, session: Uuid) {
        for missed in replay::frames(&self.edge.log, key, session).await {
            if missed.mark.turn == turn {
                self.show_in_order(&missed).await;
            }
        }
    }

    /// Closes a turn that did not begin.
    pub fn close(&mut self, turn: Uuid) {
        if let Some(conversation) = self.delivery.close(turn) {
            self.edge.hub.unwatch(conversation, &self.listener);
        }
    }

    /// Loads a conversation after the end of its turn, so that the next message need not wait for the log.
    fn refresh(&self, key: Option<ConversationKey>) {
        if let Some(key) = key {
            let conversations = self.edge.conversations.clone();
            tokio::spawn(async move { conversations.load(&key, Freshness::AtLeast(0)).await.map(drop) });
        }
    }

    /// Subscribes to a conversation's frames; with `all`, to those of every turn.
    pub async fn watch(&mut self, key: &ConversationKey, all: bool) -> Result<(), WatchError> {
        if !self.delivery.may_watch(key.conversation) {
            return Err(WatchError::TooMany);
        }
        if self.delivery.key(key.conversation).is_none() {
            // Recorded only after success: the client's next message retries a failed subscription.
            self.edge.hub.watch(key, &self.listener).await?;
        }
        self.delivery.watch(key, all);
        Ok(())
    }

    /// Opens the active turn of a conversation and shows its state: its prompt, or the text streamed so far.
    pub async fn attach(&mut self, key: &ConversationKey, turn: &Turn) {
        let id = turn.request.turn;
        self.delivery.open(key, id, &turn.request.request_id, turn.epoch);
        if turn.park.is_none() || self.delivery.resumes {
            self.replay(key, id, turn.request.session).await;
        }
        self.show_prompt(turn).await;
    }

    /// Shows the prompt of a parked turn, after the text that precedes it, unless the prompt was shown.
    async fn show_prompt(&mut self, turn: &Turn) {
        let Some(park) = &turn.park else { return };
        let prompted = self.delivery.get_mut(turn.request.turn).map(|view| view.prompted);
        if prompted.is_none_or(|epoch| epoch == turn.epoch) {
            return;
        }
        let call = turn.activity_before_prompt();
        if self.delivery.resumes && !self.say_missed(turn.request.turn, u32::MAX, call).await {
            return;
        }
        let Some(view) = self.delivery.get_mut(turn.request.turn) else { return };
        view.prompted = turn.epoch;
        let TurnRequested { request_id, stream, .. } = &turn.request;
        for (kind, frame) in render::prompt(request_id, *stream, park.id, &park.prompt, Utc::now()) {
            if kind == LiveKind::Prompt
                || self.delivery.get_mut(turn.request.turn).is_some_and(|view| view.take_chunk(call))
            {
                self.push(turn.request.turn, frame);
            }
        }
    }

    /// Checks silent turns against the log, and sends a keepalive to their clients.
    ///
    /// A live frame can be lost without a later one that shows the gap.
    pub(super) async fn look_after_silent_turns(&mut self) {
        for turn in self.delivery.silent(Duration::from_millis(limits::SILENCE_CHECK_MS)) {
            let Some(view) = self.delivery.get_mut(turn) else { continue };
            view.heard_at = std::time::Instant::now();
            let key = view.key.clone();
            if view.sent_at.elapsed() >= Duration::from_millis(limits::KEEPALIVE_MS) && !view.request_id.is_empty() {
                let frame = frames::keepalive(&view.request_id, Utc::now());
                self.push(turn, frame);
            }
            let active = |state: &Conversation| state.turn.as_ref().is_some_and(|active| active.request.turn == turn);
            let mut loaded = self.edge.conversations.load(&key, Freshness::AtLeast(0)).await;
            // A stale replica may not know the turn; only the leader can say that there is none.
            if loaded.as_ref().is_ok_and(|state| !active(state) && state.finished_turn(turn).is_none()) {
                loaded = self.edge.conversations.load(&key, Freshness::Leader).await;
            }
            // The live frame of a new owner can be lost, too.
            if !self.look_again(key.conversation).await {
                continue;
            }
            match loaded {
                Ok(state) => match state.turn.as_ref().filter(|_| active(&state)) {
                    Some(active) => match ending::end_if_abandoned(&self.edge, &key, &state).await {
                        Ok(Some(frame)) => self.push_end(turn, frame),
                        Ok(None) => self.show_prompt(active).await,
                        Err(error) => tracing::warn!(%error, %turn, "a turn without a worker can't be ended now"),
                    },
                    None => self.show_end(&key, &state, turn).await,
                },
                Err(error) => tracing::debug!(%error, %turn, "a silent turn can't be checked now"),
            }
        }
    }

    /// Shows the end of a turn from the log. The turn must not be active.
    pub async fn show_end(&mut self, key: &ConversationKey, state: &Conversation, turn: Uuid) {
        let frame = match state.finished_turn(turn) {
            Some(finished) => {
                if self.delivery.resumes && !self.say_missed(turn, u32::MAX, u64::MAX).await {
                    return;
                }
                match self.edge.conversations.event_at(key, finished.terminal_seq).await {
                    Ok(event) => {
                        let frames = render::render(&finished.request_id, false, &event.event, Utc::now());
                        frames.into_iter().next_back().map(|(_, frame)| frame)
                    }
                    Err(error) => return tracing::warn!(%error, %turn, "the end of a turn can't be read now"),
                }
            }
            // The request came too late to count; its client was told so, or will be now.
            None => {
                let request_id = self.delivery.get_mut(turn).map(|view| view.request_id.clone());
                let message = "The message was not stored in time. Please send it again.";
                Some(frames::error(request_id.as_deref(), ErrorCode::StorageError, message, Utc::now()))
            }
        };
        if let Some(frame) = frame {
            self.push_end(turn, frame);
        }
    }
}
