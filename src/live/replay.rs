//! Reads a conversation's frames from the LIVE stream.
//!
//! The stream is a memory buffer of some minutes; an empty answer is normal, and the log is then the only source.

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::json;
use uuid::Uuid;

use super::hub::LiveFrame;
use crate::{
    limits,
    nats::connection::{soon, within},
    subjects::{self, ConversationKey},
};

/// Base name of the stream that captures live frames.
pub const LIVE: &str = "LIVE";

/// Frames per batch.
const BATCH: usize = 1_000;

/// Returns the frames of the turns that a session requested, in the order of their publishing; frames that did not come in time
/// are missing.
///
/// The server looks at one subject: the frames of all sessions would cost it a walk over the whole stream.
pub async fn frames(client: &Client, key: &ConversationKey, session: Uuid) -> Vec<LiveFrame> {
    let mut found = Vec::new();
    let read = read(client, key, session, &mut found);
    match within(limits::REPAIR_MS, read).await {
        Ok(()) => {}
        Err(error) => tracing::debug!(conversation = %key.conversation, error, "the LIVE stream was read only in part"),
    }
    found
}

/// Reads batches until one is not full.
async fn read(client: &Client, key: &ConversationKey, session: Uuid, found: &mut Vec<LiveFrame>) -> Result<(), String> {
    let subject = subjects::direct_get(&subjects::stream_name(LIVE, &key.region));
    let filter = subjects::live(&key.region, key.conversation, session);
    let mut from = 1;
    loop {
        let inbox = client.new_inbox();
        let mut answers = soon(client.subscribe(inbox.clone())).await?;
        let query = json!({ "batch": BATCH, "seq": from, "next_by_subj": filter });
        soon(client.publish_with_reply(subject.clone(), inbox, query.to_string().into())).await?;
        let mut taken = 0;
        while let Some(message) = answers.next().await {
            if message.status.is_some() {
                break;
            }
            let seq = message
                .headers
                .as_ref()
                .and_then(|h| h.get("Nats-Sequence"))
                .and_then(|seq| seq.as_str().parse::<u64>().ok());
            from = seq.map_or(from, |seq| seq + 1);
            taken += 1;
            found.extend(LiveFrame::of(key.conversation, message));
        }
        if taken < BATCH {
            return Ok(());
        }
    }
}
