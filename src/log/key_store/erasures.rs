//! Drops the keys of erased conversations while a process runs.

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::KeyedJetStream;
use crate::{
    limits,
    nats::{ReadError, ReadFrom, connection::soon},
    subjects,
};

/// An entry of the erasure ledger: "requested" names the conversations, "completed" does not.
#[derive(Deserialize)]
struct Erasure {
    erasure: Uuid,
    conversations: Option<Vec<Uuid>>,
}

/// Base name of the ledger's stream.
const AUDIT: &str = "AUDIT";

impl KeyedJetStream {
    /// Drops the keys of erased conversations while the process runs; `forget` drops its other state of a conversation.
    ///
    /// The notice on core NATS is fast and can be missed; the ledger of erasures, read on from the last position, can't.
    pub async fn forget_erased(&self, region: &str, forget: impl Fn(Uuid)) {
        let forget = |conversation| {
            self.forget_keys(conversation);
            forget(conversation);
        };
        let word = async {
            loop {
                match soon(self.client.subscribe(subjects::ERASED_ALL)).await {
                    Ok(mut erased) => {
                        while let Some(message) = erased.next().await {
                            subjects::parse_last_id(&message.subject).into_iter().for_each(&forget);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(error, "erasures are not received at once; the ledger tells of them later")
                    }
                }
                tokio::time::sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
            }
        };
        tokio::join!(word, self.follow_ledger(region, &forget));
    }

    async fn follow_ledger(&self, region: &str, forget: &impl Fn(Uuid)) {
        // Clear payloads can't be erased.
        if self.keys.is_none() {
            return;
        }
        let (stream, subject) = (subjects::stream_name(AUDIT, region), subjects::audit_privacy_all(region));
        let (mut from, mut open) = (None, HashMap::new());
        loop {
            match self.next_erasures(&stream, &subject, from, &mut open).await {
                Ok((next, conversations)) => {
                    from = Some(next);
                    conversations.into_iter().for_each(forget);
                }
                Err(error) => tracing::debug!(%error, "the ledger of erasures can't be read; trying again"),
            }
            tokio::time::sleep(Duration::from_millis(limits::ERASURES_EVERY_MS)).await;
        }
    }

    /// Returns the conversations of erasures begun or completed from a ledger position on, and the next position.
    ///
    /// Without a position it starts at the ledger's end, since a new process has nothing cached.
    async fn next_erasures(
        &self,
        stream: &str,
        subject: &str,
        from: Option<u64>,
        open: &mut HashMap<Uuid, Vec<Uuid>>,
    ) -> Result<(u64, Vec<Uuid>), ReadError> {
        let Some(mut from) = from else {
            let last = self.get(stream, &json!({ "last_by_subj": subject }), ReadFrom::Leader).await?;
            return Ok((last.map_or(1, |last| last.seq + 1), Vec::new()));
        };
        let (mut conversations, mut more) = (Vec::new(), true);
        while more {
            let messages;
            (messages, more) = self.next_of(stream, subject, from).await?;
            more &= !messages.is_empty();
            for message in messages {
                from = message.seq + 1;
                // Entries of other kinds, and unreadable ones, name no erasure.
                let Ok(Erasure { erasure, conversations: named }) = serde_json::from_slice(&message.payload) else {
                    continue;
                };
                conversations.extend(match named {
                    Some(named) => open.entry(erasure).or_insert(named).clone(),
                    None => open.remove(&erasure).unwrap_or_default(),
                });
            }
        }
        Ok((from, conversations))
    }
}
