//! Publishes the frames of one turn under one epoch.
//!
//! Contract: frames are numbered without gaps from 0; publishing never waits for the LIVE stream. A failed publish is a
//! gap, which edges notice and repair.

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    metrics::metrics,
    nats::{
        connection::soon,
        core::{self, Client},
    },
    subjects::{self, ConversationKey},
    wire::live::{FrameMark, HEADER, LiveKind},
};

/// The publisher of a turn's frames.
pub struct FrameRelay {
    client: Client,
    subject: String,
    mark: FrameMark,
}

impl FrameRelay {
    /// Makes a relay for a turn that was claimed with `epoch` and has had `chunks` frames of tool activity.
    pub fn new(client: Client, subject: String, turn: Uuid, epoch: u64, chunks: u64) -> Self {
        let mark = FrameMark { turn, epoch, n: 0, kind: LiveKind::Chunk, call: 0, offset: 0, length: 0, chunks };
        Self { client, subject, mark }
    }

    /// Starts the model call with this index.
    pub fn begin_call(&mut self, call: u32) {
        self.mark.call = call;
        self.mark.offset = 0;
    }

    /// Publishes a frame; `text_bytes` is the length of the model call's text in it.
    pub async fn publish(&mut self, kind: LiveKind, payload: Bytes, text_bytes: usize) {
        let mark = FrameMark { kind, length: text_bytes as u64, ..self.mark };
        self.mark.n += 1;
        self.mark.offset += text_bytes as u64;
        self.mark.chunks += u64::from(matches!(kind, LiveKind::Chunk | LiveKind::Notice));
        metrics().turns.frames.inc();
        publish(&self.client, &self.subject, mark, payload).await;
    }
}

/// Publishes the terminal frame of a turn from outside its worker: by the edge that cancelled the turn.
pub async fn publish_terminal(client: &Client, key: &ConversationKey, session: Uuid, turn: Uuid, payload: Bytes) {
    let subject = subjects::live(&key.region, key.conversation, session);
    let mark =
        FrameMark { turn, epoch: u64::MAX, n: 0, kind: LiveKind::Terminal, call: 0, offset: 0, length: 0, chunks: 0 };
    publish(client, &subject, mark, payload).await;
}

/// Tells a conversation's watchers that it has gained an owner: not every one of them may go on.
pub async fn publish_owner(client: &Client, key: &ConversationKey) {
    let subject = subjects::live(&key.region, key.conversation, Uuid::nil());
    let turn = Uuid::nil();
    let mark =
        FrameMark { turn, epoch: u64::MAX, n: 0, kind: LiveKind::Owner, call: 0, offset: 0, length: 0, chunks: 0 };
    publish(client, &subject, mark, Bytes::new()).await;
}

async fn publish(client: &Client, subject: &str, mark: FrameMark, payload: Bytes) {
    let headers = core::headers([(HEADER, mark.to_string().as_str())]);
    if let Err(error) = soon(client.publish_with_headers(subject.to_string(), headers, payload)).await {
        tracing::warn!(error, %mark, "a frame was not published");
    }
}
