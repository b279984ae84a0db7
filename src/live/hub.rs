//! One NATS subscription a conversation, shared by the connections of this edge that watch it.
//!
//! Contract: after [`Hub::watch`] returns, frames published later through the same NATS connection are seen. A listener
//! whose queue is full is marked as lagging and gets nothing more; its connection must then resynchronise or close. Frames
//! are never dropped silently.
//!
//! A subscription has one task: (1) take the next message, (2) read its mark, (3) offer it to every listener. The task ends
//! with its last listener.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    limits,
    log::{ReadError, bus::soon},
    subjects::{self, ConversationKey},
    wire::live::{HEADER, Mark},
};

/// A frame on its way to a connection.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    pub conversation: Uuid,
    /// The session that asked for the turn.
    pub session: Option<Uuid>,
    pub mark: Mark,
    pub payload: Bytes,
}

impl LiveFrame {
    /// The frame in a message of a live subject, if it is one.
    pub fn of(conversation: Uuid, message: Message) -> Option<Self> {
        let mark = Mark::parse(message.headers.as_ref()?.get(HEADER)?.as_str())?;
        let session = subjects::parse_last_id(&message.subject);
        Some(Self { conversation, session, mark, payload: message.payload })
    }
}

/// A connection's end of the hub: where its frames go, and whether it has fallen behind.
#[derive(Clone)]
pub struct Listener {
    id: Uuid,
    frames: mpsc::Sender<LiveFrame>,
    waiting_bytes: Arc<AtomicUsize>,
    lagging: CancellationToken,
}

/// The frames that wait for a connection.
pub struct Queue {
    frames: mpsc::Receiver<LiveFrame>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Listener {
    /// A listener and the queue that it fills: bounded in frames, and in bytes but for its last frame.
    pub fn new() -> (Self, Queue) {
        let (sender, frames) = mpsc::channel(limits::CONNECTION_QUEUE_FRAMES);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let listener = Self {
            id: Uuid::new_v4(),
            frames: sender,
            waiting_bytes: waiting_bytes.clone(),
            lagging: CancellationToken::new(),
        };
        (listener, Queue { frames, waiting_bytes })
    }

    /// Cancelled when a frame was withheld because the queue was full.
    pub fn lagging(&self) -> &CancellationToken {
        &self.lagging
    }

    fn offer(&self, frame: &LiveFrame) {
        if self.lagging.is_cancelled() {
            return;
        }
        // Counted before it is sent, so that the reader never takes away what was not added yet.
        let before = self.waiting_bytes.fetch_add(frame.payload.len(), Ordering::Relaxed);
        if before >= limits::CONNECTION_QUEUE_BYTES || self.frames.try_send(frame.clone()).is_err() {
            self.lagging.cancel();
        }
    }
}

impl Queue {
    /// The next frame. Cancel-safe. Never ends while the listener is there.
    pub async fn next(&mut self) -> Option<LiveFrame> {
        let frame = self.frames.recv().await;
        self.taken(frame)
    }

    /// The next frame, if one waits.
    pub fn try_next(&mut self) -> Option<LiveFrame> {
        let frame = self.frames.try_recv().ok();
        self.taken(frame)
    }

    fn taken(&self, frame: Option<LiveFrame>) -> Option<LiveFrame> {
        if let Some(frame) = &frame {
            self.waiting_bytes.fetch_sub(frame.payload.len(), Ordering::Relaxed);
        }
        frame
    }
}

type Listeners = Arc<Mutex<Vec<Listener>>>;

struct Watched {
    listeners: Listeners,
    task: AbortHandle,
}

/// The live subscriptions of an edge.
#[derive(Clone)]
pub struct Hub {
    client: Client,
    watched: Arc<Mutex<HashMap<Uuid, Watched>>>,
}

impl Hub {
    pub fn new(client: Client) -> Self {
        Self { client, watched: Arc::default() }
    }

    /// Sends the conversation's frames to this listener too.
    pub async fn watch(&self, key: &ConversationKey, listener: &Listener) -> Result<(), ReadError> {
        let conversation = key.conversation;
        if join(&self.lock(), conversation, listener) {
            return Ok(());
        }
        let subscriber = soon(self.client.subscribe(subjects::live_all(&key.region, conversation))).await;
        let subscriber = subscriber.map_err(ReadError::Unavailable)?;
        // Another connection may have subscribed meanwhile; then this subscription is dropped again. Nothing may come between
        // the look and the entry, or one of two subscriptions would have a task that nobody ends.
        let mut watched = self.lock();
        if !join(&watched, conversation, listener) {
            let listeners: Listeners = Arc::new(Mutex::new(vec![listener.clone()]));
            let task = tokio::spawn(relay(conversation, subscriber, listeners.clone())).abort_handle();
            watched.insert(conversation, Watched { listeners, task });
        }
        Ok(())
    }

    /// Stops sending the conversation's frames to this listener.
    pub fn unwatch(&self, conversation: Uuid, listener: &Listener) {
        let mut watched = self.lock();
        let Some(entry) = watched.get(&conversation) else { return };
        let mut listeners = entry.listeners.lock().expect("no panic happens under this lock");
        listeners.retain(|other| other.id != listener.id);
        let empty = listeners.is_empty();
        drop(listeners);
        if empty && let Some(entry) = watched.remove(&conversation) {
            entry.task.abort();
        }
    }

    /// Conversations that are being watched.
    pub fn subscriptions(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Watched>> {
        self.watched.lock().expect("no panic happens under this lock")
    }
}

/// Adds a listener to a subscription that is there.
fn join(watched: &HashMap<Uuid, Watched>, conversation: Uuid, listener: &Listener) -> bool {
    let Some(entry) = watched.get(&conversation) else { return false };
    let mut listeners = entry.listeners.lock().expect("no panic happens under this lock");
    if listeners.iter().all(|other| other.id != listener.id) {
        listeners.push(listener.clone());
    }
    true
}

async fn relay(conversation: Uuid, mut subscriber: Subscriber, listeners: Listeners) {
    while let Some(message) = subscriber.next().await {
        if let Some(frame) = LiveFrame::of(conversation, message) {
            for listener in listeners.lock().expect("no panic happens under this lock").iter() {
                listener.offer(&frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::live::Kind;

    fn frame(bytes: usize) -> LiveFrame {
        let mark =
            Mark { turn: Uuid::nil(), epoch: 1, n: 0, kind: Kind::Chunk, call: 0, offset: 0, length: 0, chunks: 0 };
        LiveFrame { conversation: Uuid::nil(), session: None, mark, payload: vec![b'x'; bytes].into() }
    }

    #[test]
    fn a_queue_is_bounded_in_frames_and_in_bytes() {
        for (bytes, fits) in [
            (1, limits::CONNECTION_QUEUE_FRAMES),
            (limits::CONNECTION_QUEUE_BYTES / 4, 4),
            (limits::CONNECTION_QUEUE_BYTES * 2, 1),
        ] {
            let (listener, mut queue) = Listener::new();
            for _ in 0..fits {
                listener.offer(&frame(bytes));
            }
            assert!(!listener.lagging().is_cancelled(), "{fits} frames of {bytes} bytes");
            assert!(queue.try_next().is_some());
            listener.offer(&frame(bytes));
            assert!(!listener.lagging().is_cancelled(), "what was taken makes room");
            listener.offer(&frame(bytes));
            assert!(listener.lagging().is_cancelled());
        }
    }
}
