//! Reads a conversation's frames from the LIVE stream.
//!
//! The stream is a memory buffer of some minutes; an empty answer is normal, and the log is then the only source.

use uuid::Uuid;

use super::hub::LiveFrame;
use crate::{
    limits,
    nats::{
        ReadError,
        connection::within,
        direct_get::BatchBounds,
        jetstream::{JetStream, RawMessage},
    },
    subjects::{self, ConversationKey},
    wire::live::HEADER,
};

/// Base name of the stream that captures live frames.
pub const LIVE: &str = "LIVE";

/// Frames per batch.
const BOUNDS: BatchBounds = BatchBounds { messages: 1_000, bytes: None };

/// Returns the frames of the turns that a session requested, in the order of their publishing; frames that did not come in time
/// are missing.
///
/// The server looks at one subject: the frames of all sessions would cost it a walk over the whole stream.
pub async fn frames(jetstream: &JetStream, key: &ConversationKey, session: Uuid) -> Vec<LiveFrame> {
    let mut found = Vec::new();
    let read = read(jetstream, key, session, &mut found);
    match within(limits::REPAIR_MS, read).await {
        Ok(()) => {}
        Err(error) => tracing::debug!(conversation = %key.conversation, error, "the LIVE stream was read only in part"),
    }
    found
}

/// Reads batches until the last one.
async fn read(
    jetstream: &JetStream,
    key: &ConversationKey,
    session: Uuid,
    found: &mut Vec<LiveFrame>,
) -> Result<(), ReadError> {
    let (stream, filter) =
        (subjects::stream_name(LIVE, &key.region), subjects::live(&key.region, key.conversation, session));
    let (mut from, mut more) = (1, true);
    while more {
        let first = from;
        let take = |message: RawMessage| {
            from = message.seq + 1;
            let mark = message.headers.get(HEADER).map(String::as_str);
            found.extend(LiveFrame::of(key.conversation, &message.subject, mark, message.payload));
        };
        more = jetstream.each_next(&stream, (&filter, first), BOUNDS, take).await?;
        more &= from > first;
    }
    Ok(())
}
