//! One client connection.
//!
//! Contract of [`serve`]: actions are served one after the other, in the order of the frames, while the frames of running
//! turns wait in a bounded queue; so an action's answer always precedes the frames that it causes. One task, one `select!`:
//! (1) take an action and answer it; or take the live frames that are there; or, while a turn is open, look after silent
//! ones; or stop; (2) write everything in one go; (3) close when the client does not keep up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::{
    Edge, actions,
    socket::{Close, Incoming, Socket},
    views::{Verdict, Views},
};
use crate::{
    domain::{Conversation, Turn},
    limits,
    live::{
        hub::{Listener, LiveFrame, Queue},
        replay,
    },
    log::load::Freshness,
    subjects::ConversationKey,
    wire::{
        actions::invalid,
        frames::{self, ErrorCode},
        live::Kind,
        render,
    },
};

/// A connection's state.
pub struct Connection {
    pub edge: Arc<Edge>,
    pub listener: Listener,
    pub views: Views,
    /// The session that this connection opened last.
    pub session: Option<Uuid>,
    /// Frames to be written next.
    pub out: Vec<Bytes>,
}

/// Serves a client until it leaves, stops reading, or the edge stops.
pub async fn serve(edge: Arc<Edge>, mut socket: Socket) {
    let (listener, mut live) = Listener::new();
    let shutdown = edge.shutdown.clone();
    let mut connection = Connection { edge, listener, views: Views::default(), session: None, out: Vec::new() };
    let mut check_at = Instant::now();
    let why = loop {
        tokio::select! {
            message = socket.read() => match message {
                Incoming::Text(text) => connection.act(&text).await,
                Incoming::Binary => connection.refuse_binary(),
                Incoming::End(why) => break why,
            },
            Some(frame) = live.recv() => connection.take_live(frame, &mut live).await,
            () = sleep_until(check_at), if !connection.views.is_idle() => {
                connection.look_after_silent_turns().await;
                check_at = Instant::now() + Duration::from_millis(limits::SILENCE_CHECK_MS / 4);
            }
            () = shutdown.cancelled() => break Some(Close::Restart),
        }
        if !connection.out.is_empty() && !socket.write(&mut connection.out).await {
            connection.leave();
            return;
        }
        if connection.listener.is_lagging() {
            break Some(Close::TooSlow);
        }
    };
    connection.leave();
    socket.close(why).await;
}

impl Connection {
    async fn act(&mut self, text: &str) {
        actions::dispatch(self, text).await;
    }

    fn refuse_binary(&mut self) {
        let bad = invalid("frames are JSON text");
        self.out.push(frames::error(None, bad.code, &bad.message, Utc::now()));
    }

    /// Stops watching everything.
    fn leave(&mut self) {
        for conversation in self.views.watched() {
            self.edge.hub.unwatch(conversation, &self.listener);
        }
    }

    /// Takes a live frame and those that are there already, up to one write.
    async fn take_live(&mut self, first: LiveFrame, live: &mut Queue) {
        let mut bytes = first.payload.len();
        self.show(first).await;
        while bytes < limits::WRITE_BATCH_BYTES
            && let Some(frame) = live.try_recv()
        {
            bytes += frame.payload.len();
            self.show(frame).await;
        }
    }

    async fn show(&mut self, frame: LiveFrame) {
        match self.views.judge(&frame) {
            Verdict::Drop => {}
            Verdict::Show => self.put(frame),
            Verdict::Gap => self.repair(frame).await,
        }
    }

    fn put(&mut self, frame: LiveFrame) {
        self.out.push(frame.payload);
        if let Some(view) = self.views.get_mut(frame.mark.turn) {
            view.sent_at = std::time::Instant::now();
        }
        if frame.mark.kind == Kind::Terminal {
            let key = self.views.key(frame.conversation).cloned();
            self.end(frame.mark.turn);
            self.refresh(key);
        }
    }

    /// Frames before this one were lost: takes them from the LIVE stream, else goes on without.
    async fn repair(&mut self, frame: LiveFrame) {
        if let Some(key) = self.views.key(frame.conversation).cloned() {
            tracing::debug!(turn = %frame.mark.turn, n = frame.mark.n, "frames are missing; reading the LIVE stream");
            self.replay(&key, frame.mark.turn).await;
        }
        if self.views.judge(&frame) == Verdict::Gap {
            self.views.skip_to(frame.mark);
        }
        if self.views.judge(&frame) == Verdict::Show {
            self.put(frame);
        }
    }

    /// Shows what the LIVE stream has of a turn and was not shown yet.
    pub async fn replay(&mut self, key: &ConversationKey, turn: Uuid) {
        for missed in replay::frames(&self.edge.client, key).await {
            if missed.mark.turn == turn && self.views.judge(&missed) == Verdict::Show {
                self.put(missed);
            }
        }
    }

    /// Closes a turn that was shown to its end.
    pub fn end(&mut self, turn: Uuid) {
        if let Some(conversation) = self.views.end(turn) {
            self.edge.hub.unwatch(conversation, &self.listener);
        }
    }

    /// Closes a turn that did not begin.
    pub fn close(&mut self, turn: Uuid) {
        if let Some(conversation) = self.views.close(turn) {
            self.edge.hub.unwatch(conversation, &self.listener);
        }
    }

    /// Reads the log of a conversation whose turn has ended, so that the next message need not wait for it.
    fn refresh(&self, key: Option<ConversationKey>) {
        if let Some(key) = key {
            let conversations = self.edge.conversations.clone();
            tokio::spawn(async move { conversations.load(&key, Freshness::AtLeast(0)).await.map(drop) });
        }
    }

    /// Subscribes to a conversation's frames; `all` = of every turn.
    pub async fn watch(&mut self, key: &ConversationKey, all: bool) -> Result<(), async_nats::SubscribeError> {
        if self.views.watch(key, all) {
            self.edge.hub.watch(key, &self.listener).await?;
        }
        Ok(())
    }

    /// Opens the active turn of a conversation and shows where it stands: its prompt, or what was streamed so far.
    pub async fn attach(&mut self, key: &ConversationKey, turn: &Turn) {
        let id = turn.request.turn;
        self.views.open(key, id, &turn.request.request_id, turn.epoch);
        match &turn.park {
            Some(_) => self.show_prompt(turn),
            None => self.replay(key, id).await,
        }
    }

    fn show_prompt(&mut self, turn: &Turn) {
        let Some(park) = &turn.park else { return };
        let Some(view) = self.views.get_mut(turn.request.turn) else { return };
        if view.prompted == turn.epoch {
            return;
        }
        view.prompted = turn.epoch;
        let frames = render::prompt(&turn.request.request_id, turn.request.stream, &park.prompt, Utc::now());
        self.out.extend(frames.into_iter().map(|(_, frame)| frame));
    }

    /// A live frame can be lost without a later one that shows the gap, so silent turns are checked against the log; and
    /// clients with a silent turn get a sign of life.
    async fn look_after_silent_turns(&mut self) {
        for turn in self.views.silent(Duration::from_millis(limits::SILENCE_CHECK_MS)) {
            let Some(view) = self.views.get_mut(turn) else { continue };
            view.heard_at = std::time::Instant::now();
            if view.sent_at.elapsed() >= Duration::from_millis(limits::KEEPALIVE_MS) && !view.request_id.is_empty() {
                view.sent_at = std::time::Instant::now();
                self.out.push(frames::keepalive(&view.request_id, Utc::now()));
            }
            let key = view.key.clone();
            match self.edge.conversations.load(&key, Freshness::AtLeast(0)).await {
                Ok(state) => match state.turn.as_ref().filter(|active| active.request.turn == turn) {
                    Some(active) => self.show_prompt(active),
                    None => self.show_end(&key, &state, turn).await,
                },
                Err(error) => tracing::debug!(%error, %turn, "a silent turn can't be checked now"),
            }
        }
    }

    /// Shows the end of a turn from the log. The turn must not be active.
    pub async fn show_end(&mut self, key: &ConversationKey, state: &Conversation, turn: Uuid) {
        let request_id = self.views.get_mut(turn).map(|view| view.request_id.clone()).unwrap_or_default();
        let frame = match state.finished_turn(turn) {
            Some(finished) => match self.edge.conversations.event_at(key, finished.terminal_seq).await {
                Ok(event) => {
                    let rendered = render::render(&request_id, false, &event.event, Utc::now());
                    rendered.into_iter().map(|(_, frame)| frame).next()
                }
                Err(error) => {
                    tracing::warn!(%error, %turn, "the end of a turn can't be read now");
                    return;
                }
            },
            // The request came too late to count; its client was told so, or will be now.
            None => {
                let message = "The message was not stored in time. Please send it again.";
                Some(frames::error(Some(&request_id), ErrorCode::StorageError, message, Utc::now()))
            }
        };
        self.out.extend(frame);
        self.end(turn);
    }
}
