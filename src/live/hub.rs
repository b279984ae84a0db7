//! One NATS subscription per conversation, shared by the connections of this edge that watch it.
//!
//! Contract: after [`Hub::watch`] returns, frames published later through the same NATS connection are seen. A listener with a
//! full queue is marked as lagging and gets nothing more; its connection must then resynchronise or close. Frames are never
//! dropped silently.
//!
//! A queue fills because its client does not read, or because this process has not come to it yet, which is not the client's
//! fault. So a queue may always hold [`limits::CONNECTION_QUEUE_BYTES`], and far more while all queues of the process together
//! stay below [`limits::QUEUES_BYTES`]. A client that does not read is detected by its socket, which takes no more.
//!
//! A subscription has one task: (1) takes the next message, (2) reads its mark, (3) offers it to every listener. The task ends
//! with its last listener.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    limits,
    nats::{
        ReadError,
        connection::soon,
        core::{self, Client, Subscriber},
    },
    subjects::{self, ConversationKey},
    wire::live::{FrameMark, HEADER},
};

/// A frame on its way to a connection.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    pub conversation: Uuid,
    /// The session that requested the turn.
    pub session: Option<Uuid>,
    pub mark: FrameMark,
    pub payload: Bytes,
}

impl LiveFrame {
    /// Reads the frame in a message of a live subject, with the header of its mark; `None` if the message is no frame.
    pub fn of(conversation: Uuid, subject: &str, mark: Option<&str>, payload: Bytes) -> Option<Self> {
        let (mark, session) = (FrameMark::parse(mark?)?, subjects::parse_last_id(subject));
        Some(Self { conversation, session, mark, payload })
    }
}

/// A connection's end of the hub: the sender of its queue, and its lag.
#[derive(Clone)]
pub struct HubListener {
    id: Uuid,
    frames: mpsc::UnboundedSender<LiveFrame>,
    waiting: QueuedBytes,
    lagging: CancellationToken,
}

/// The frames that wait for a connection.
pub struct FrameQueue {
    frames: mpsc::UnboundedReceiver<LiveFrame>,
    waiting: QueuedBytes,
}

/// The bytes that wait in one queue, and in all queues of the process.
#[derive(Clone)]
struct QueuedBytes {
    own: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl QueuedBytes {
    /// Counts a waiting frame. Returns false if there is no room for it.
    fn take(&self, bytes: usize) -> bool {
        // Counted before the frame is sent, so that the reader never subtracts bytes that were not added yet.
        let own = self.own.fetch_add(bytes, Ordering::Relaxed);
        let all = self.all.fetch_add(bytes, Ordering::Relaxed);
        own < limits::CONNECTION_QUEUE_BYTES || (own < limits::CONNECTION_QUEUE_MAX_BYTES && all < limits::QUEUES_BYTES)
    }

    fn give_back(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Returns the bytes that a waiting frame counts for.
fn cost(frame: &LiveFrame) -> usize {
    frame.payload.len() + size_of::<LiveFrame>()
}

impl HubListener {
    /// Makes a listener and its queue, which is bounded but for its last frame; `all` counts the bytes that wait in the process.
    fn new(all: Arc<AtomicUsize>) -> (Self, FrameQueue) {
        let (sender, frames) = mpsc::unbounded_channel();
        let waiting = QueuedBytes { own: Arc::default(), all };
        let (id, lagging) = (Uuid::new_v4(), CancellationToken::new());
        let listener = Self { id, frames: sender, waiting: waiting.clone(), lagging };
        (listener, FrameQueue { frames, waiting })
    }

    /// Cancelled when a frame was withheld because the queue was full.
    pub fn lagging(&self) -> &CancellationToken {
        &self.lagging
    }

    fn offer(&self, frame: &LiveFrame) {
        if self.lagging.is_cancelled() {
            return;
        }
        if !self.waiting.take(cost(frame)) || self.frames.send(frame.clone()).is_err() {
            self.waiting.give_back(cost(frame));
            self.lagging.cancel();
        }
    }
}

impl FrameQueue {
    /// Returns the next frame. Cancel-safe. Never ends while the listener exists.
    pub async fn next(&mut self) -> Option<LiveFrame> {
        let frame = self.frames.recv().await;
        self.taken(frame)
    }

    /// Returns the next frame, if one waits.
    pub fn try_next(&mut self) -> Option<LiveFrame> {
        let frame = self.frames.try_recv().ok();
        self.taken(frame)
    }

    fn taken(&self, frame: Option<LiveFrame>) -> Option<LiveFrame> {
        if let Some(frame) = &frame {
            self.waiting.give_back(cost(frame));
        }
        frame
    }
}

impl Drop for FrameQueue {
    /// Frees the room of frames that no caller will fetch.
    fn drop(&mut self) {
        self.frames.close();
        while self.try_next().is_some() {}
    }
}

type Listeners = Arc<Mutex<Vec<HubListener>>>;

struct HubSubscription {
    listeners: Listeners,
    task: AbortHandle,
}

/// The live subscriptions of an edge.
#[derive(Clone)]
pub struct Hub {
    client: Client,
    watched: Arc<Mutex<HashMap<Uuid, HubSubscription>>>,
    /// The bytes that wait for connections of this process.
    waiting: Arc<AtomicUsize>,
}

impl Hub {
    pub fn new(client: Client) -> Self {
        Self { client, watched: Arc::default(), waiting: Arc::default() }
    }

    /// Makes a listener for a connection, and its queue.
    pub fn listener(&self) -> (HubListener, FrameQueue) {
        HubListener::new(self.waiting.clone())
    }

    /// Sends the conversation's frames to this listener, too.
    pub async fn watch(&self, key: &ConversationKey, listener: &HubListener) -> Result<(), ReadError> {
        let conversation = key.conversation;
        if join(&self.lock(), conversation, listener) {
            return Ok(());
        }
        let subscriber = soon(self.client.subscribe(subjects::live_all(&key.region, conversation))).await;
        let subscriber = subscriber.map_err(ReadError::Unavailable)?;
        // Another connection may have subscribed meanwhile; then this subscription is dropped again. Nothing may come between the
        // lookup and the insertion, or one of two subscriptions would have a task that is never ended.
        let mut watched = self.lock();
        if !join(&watched, conversation, listener) {
            let listeners: Listeners = Arc::new(Mutex::new(vec![listener.clone()]));
            let task = tokio::spawn(relay(conversation, subscriber, listeners.clone())).abort_handle();
            watched.insert(conversation, HubSubscription { listeners, task });
        }
        Ok(())
    }

    /// Stops sending the conversation's frames to this listener.
    pub fn unwatch(&self, conversation: Uuid, listener: &HubListener) {
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

    /// Returns the number of watched conversations.
    pub fn subscriptions(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, HubSubscription>> {
        self.watched.lock().expect("no panic happens under this lock")
    }
}

/// Adds a listener to an existing subscription. Returns false if there is none.
fn join(watched: &HashMap<Uuid, HubSubscription>, conversation: Uuid, listener: &HubListener) -> bool {
    let Some(entry) = watched.get(&conversation) else { return false };
    let mut listeners = entry.listeners.lock().expect("no panic happens under this lock");
    if listeners.iter().all(|other| other.id != listener.id) {
        listeners.push(listener.clone());
    }
    true
}

async fn relay(conversation: Uuid, mut subscriber: Subscriber, listeners: Listeners) {
    while let Some(message) = subscriber.next().await {
        let mark = core::header(&message, HEADER);
        if let Some(frame) = LiveFrame::of(conversation, &message.subject, mark, message.payload.clone()) {
            for listener in listeners.lock().expect("no panic happens under this lock").iter() {
                listener.offer(&frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::live::LiveKind;

    fn frame(bytes: usize) -> LiveFrame {
        let mark = FrameMark {
            turn: Uuid::nil(),
            epoch: 1,
            n: 0,
            kind: LiveKind::Chunk,
            call: 0,
            offset: 0,
            length: 0,
            chunks: 0,
        };
        LiveFrame { conversation: Uuid::nil(), session: None, mark, payload: vec![b'x'; bytes].into() }
    }

    /// Counts the frames of `bytes` that the listener takes before it lags.
    fn fits(listener: &HubListener, bytes: usize) -> usize {
        let offered = (0..).take_while(|_| {
            listener.offer(&frame(bytes));
            !listener.lagging().is_cancelled()
        });
        offered.count()
    }

    #[test]
    fn a_queue_is_bounded_but_for_its_last_frame() {
        for bytes in [1, limits::CONNECTION_QUEUE_BYTES / 4, limits::CONNECTION_QUEUE_MAX_BYTES * 2] {
            let each = cost(&frame(bytes));
            let all = Arc::new(AtomicUsize::new(0));
            let (listener, mut queue) = HubListener::new(all.clone());
            let most = limits::CONNECTION_QUEUE_MAX_BYTES.div_ceil(each);
            for _ in 0..most {
                listener.offer(&frame(bytes));
            }
            assert!(!listener.lagging().is_cancelled(), "{most} frames of {bytes} bytes");
            assert!(queue.try_next().is_some());
            assert_eq!(fits(&listener, bytes), 1, "fetched frames free their space");
            assert_eq!(all.load(Ordering::Relaxed), most * each);
            drop(queue);
            assert_eq!(all.load(Ordering::Relaxed), 0, "a dropped listener frees its queue");
            listener.offer(&frame(bytes));
            assert_eq!(all.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn full_queues_take_no_room_from_short_ones() {
        let all = Arc::new(AtomicUsize::new(0));
        let full: Vec<_> = std::iter::from_fn(|| {
            let is_full = all.load(Ordering::Relaxed) >= limits::QUEUES_BYTES;
            (!is_full).then(|| {
                let pair = HubListener::new(all.clone());
                fits(&pair.0, limits::CONNECTION_QUEUE_BYTES);
                pair
            })
        })
        .collect();
        assert!(full.len() >= limits::QUEUES_BYTES / limits::CONNECTION_QUEUE_MAX_BYTES);
        let (other, _queue) = HubListener::new(all.clone());
        assert_eq!(fits(&other, limits::CONNECTION_QUEUE_BYTES / 4), 4);
    }
}
