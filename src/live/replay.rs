//! What the LIVE stream still has of a conversation's frames.
//!
//! The stream is a memory buffer of some minutes; an empty answer is normal, and the log is then the only source.

use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::hub::LiveFrame;
use crate::{
    limits,
    subjects::{self, ConversationKey},
};

/// Base name of the stream that captures live frames.
pub const LIVE: &str = "LIVE";

/// Frames asked for at once.
const BATCH: usize = 1_000;

/// The frames of a conversation in the order of their publishing; what did not come in time is missing. With the session that
/// asked for them the server looks at one subject, without it at all that the stream has.
pub async fn frames(client: &Client, key: &ConversationKey, session: Option<Uuid>) -> Vec<LiveFrame> {
    let mut found = Vec::new();
    let read = read(client, key, session, &mut found);
    if timeout(Duration::from_millis(limits::REPAIR_MS), read).await.is_err() {
        tracing::debug!(conversation = %key.conversation, "the LIVE stream did not answer in time");
    }
    found
}

/// Reads batches until one is not full.
async fn read(client: &Client, key: &ConversationKey, session: Option<Uuid>, found: &mut Vec<LiveFrame>) {
    let subject = subjects::direct_get(&subjects::stream_name(LIVE, &key.region));
    let filter = match session {
        Some(session) => subjects::live(&key.region, key.conversation, session),
        None => subjects::live_all(&key.region, key.conversation),
    };
    let mut from = 1;
    loop {
        let inbox = client.new_inbox();
        let Ok(mut answers) = client.subscribe(inbox.clone()).await else { return };
        let query = json!({ "batch": BATCH, "seq": from, "next_by_subj": filter });
        if client.publish_with_reply(subject.clone(), inbox, query.to_string().into()).await.is_err() {
            return;
        }
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
            return;
        }
    }
}
