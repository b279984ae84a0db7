//! Snapshots: conversation folds cached in memory, and in the bucket CONVERSATIONS.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Conversations, FOLD_VERSION};
use crate::{
    domain::Conversation,
    limits,
    log::{ErasureState, EventLog, StoredEvent, jetstream_log::NatsLog},
    nats::{AppendError, ReadFrom},
    subjects::{self, ConversationKey},
};

const BUCKET: &str = "CONVERSATIONS";

/// A snapshot: a fold with its origin.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub state: Arc<Conversation>,
    /// The erased classes when the fold was made.
    pub erasure: ErasureState,
    /// Revision of the snapshot in the bucket, and the number of events folded since.
    pub revision: u64,
    pub newer_events: u64,
    /// Time at which the clear text in the fold was read.
    pub since: Instant,
}

impl Snapshot {
    /// Returns an empty snapshot, for a bucket entry of this revision.
    pub fn nothing(revision: u64) -> Self {
        let (state, standing) = (Arc::default(), ErasureState::default());
        Self { state, erasure: standing, revision, newer_events: 0, since: Instant::now() }
    }

    /// Returns whether a stored event is the fold's last event.
    ///
    /// The sequence alone is no proof: a log restored without its tail gives the same sequences to other events.
    pub fn ends_with(&self, stored: &StoredEvent) -> bool {
        stored.recorded.seq == self.state.last_seq && stored.recorded.digest == self.state.last_digest
    }
}

#[derive(Serialize, Deserialize)]
struct SnapshotForm<T> {
    version: u32,
    #[serde(default)]
    standing: ErasureState,
    state: T,
}

impl<L: EventLog> Conversations<L> {
    pub(super) async fn read_snapshot(&self, key: &ConversationKey) -> Snapshot {
        let Some(bucket) = &self.bucket else { return Snapshot::nothing(0) };
        let subject = subjects::kv(BUCKET, &subjects::fold_key(key));
        // An unreadable snapshot costs time, not correctness.
        match bucket.get(&format!("KV_{BUCKET}"), &json!({ "last_by_subj": subject }), ReadFrom::Replica).await {
            Ok(Some(message)) => {
                let revision = message.seq;
                let opened = bucket.decrypted(message).await.ok().flatten();
                match opened.and_then(|message| unpacked(&message.payload)) {
                    Some(SnapshotForm { version: FOLD_VERSION, standing, state }) => {
                        Snapshot { state: Arc::new(state), erasure: standing, ..Snapshot::nothing(revision) }
                    }
                    _ => Snapshot::nothing(revision),
                }
            }
            Ok(None) | Err(_) => Snapshot::nothing(0),
        }
    }

    /// Writes the snapshot to the bucket once it has grown by some events.
    ///
    /// A lost race means that another process wrote a newer one.
    pub async fn save_snapshot(&self, key: &ConversationKey) {
        let Some(bucket) = &self.bucket else { return };
        let Some(cached) = self.snapshot(key).filter(|c| c.newer_events >= limits::FOLD_CACHE_EVERY_EVENTS) else {
            return;
        };
        let form = SnapshotForm { version: FOLD_VERSION, standing: cached.erasure, state: &*cached.state };
        let Some(payload) = packed(&form).filter(|payload| payload.len() <= limits::FOLD_CACHED_MAX_BYTES) else {
            // A running turn has large tool results, which leave the fold when it ends. The next attempt is made when its
            // worker next releases the turn.
            tracing::info!(conversation = %key.conversation, "the snapshot is too large for its bucket; loads start from the previous one");
            return;
        };
        let subject = subjects::kv(BUCKET, &subjects::fold_key(key));
        let id = format!("fold-{}-{}", key.conversation, cached.state.last_seq);
        let expected = cached.revision.to_string();
        let Ok(payload) = bucket.encrypt(key.conversation, &subject, payload.into()).await else { return };
        let revision = match bucket.put_at(&subject, &id, &expected, payload).await {
            Ok(revision) => revision,
            // Another process wrote the snapshot: take its revision from the bucket.
            Err(AppendError::Conflict) => self.read_snapshot(key).await.revision,
            Err(error) => return tracing::debug!(%error, "the snapshot was not stored"),
        };
        self.snapshots.entry(key.conversation).and_compute_with(|entry| {
            match entry.map(|entry| entry.into_value()).filter(|(of, _)| of == key) {
                Some((of, known)) => moka::ops::compute::Op::Put((of, Snapshot { revision, newer_events: 0, ..known })),
                None => moka::ops::compute::Op::Nop,
            }
        });
    }
}

impl NatsLog {
    /// Deletes the snapshot of a conversation with erased content.
    pub async fn forget_snapshot(&self, key: &ConversationKey) -> Result<(), AppendError> {
        let subject = subjects::kv(BUCKET, &subjects::fold_key(key));
        let there = self.get(&format!("KV_{BUCKET}"), &json!({ "last_by_subj": subject }), ReadFrom::Leader).await;
        match there.map_err(|error| AppendError::Unavailable(error.to_string()))? {
            Some(fold) if !fold.payload.is_empty() => {
                let id = format!("fold-gone-{}", Uuid::new_v4().simple());
                self.put(&subject, &id, &[("KV-Operation", "DEL")], "".into()).await
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Magic number of zstd; JSON never begins with it.
const COMPRESSED: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Serialises a snapshot. A large one is mostly text, which compresses to a third or less.
fn packed(form: &impl Serialize) -> Option<Vec<u8>> {
    let plain = serde_json::to_vec(form).ok()?;
    match plain.len() > limits::FOLD_PLAIN_MAX_BYTES {
        true => zstd::bulk::compress(&plain, zstd::DEFAULT_COMPRESSION_LEVEL).ok(),
        false => Some(plain),
    }
}

fn unpacked(payload: &[u8]) -> Option<SnapshotForm<Conversation>> {
    if payload.starts_with(&COMPRESSED) {
        let plain = zstd::bulk::decompress(payload, limits::FOLD_READ_MAX_BYTES).ok()?;
        return serde_json::from_slice(&plain).ok();
    }
    serde_json::from_slice(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_is_stored_and_read_unchanged() {
        for chars in [10, 2_000_000] {
            let state = Conversation { title: Some("a title ".repeat(chars / 8)), ..Conversation::default() };
            let form = SnapshotForm { version: FOLD_VERSION, standing: ErasureState::default(), state: &state };
            let packed = packed(&form).unwrap();
            assert!(packed.len() <= limits::FOLD_CACHED_MAX_BYTES);
            assert_eq!(unpacked(&packed).unwrap().state, state);
        }
        assert!(unpacked(&COMPRESSED).is_none() && unpacked(b"").is_none());
    }
}
