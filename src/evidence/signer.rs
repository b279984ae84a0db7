//! The signer of checkpoints: signs the heads of all conversations from time to time.

use std::collections::HashMap;

use bytes::Bytes;
use chrono::Utc;
use uuid::Uuid;

use super::{
    checkpoint::{Checkpoint, CheckpointChain, HeadChanges},
    merkle_tree::ConversationHead,
    verify::ChainLink,
};
use crate::{
    history::stream_reader::StreamReader,
    log::jetstream_log::NatsLog,
    nats::{AppendError, ReadError},
    signing::{SigningKey, SigningKeyError},
    subjects,
};

/// A reason why no checkpoint was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("{0}")]
    Key(#[from] SigningKeyError),
    #[error("the existing checkpoints are not a chain: {0}")]
    Chain(String),
    #[error("checkpoint {number} covers events up to {covers}, and the log ends at {end}: events are missing")]
    Shrunk { number: u64, covers: u64, end: u64 },
}

/// Signs the checkpoints of a region.
///
/// The signer knows every conversation's head as of the last checkpoint and reads only newer events. Older events are never
/// read again, so a later change of the log can't get into a checkpoint.
///
/// After an error the signer's state is uncertain: create a new one.
pub struct CheckpointSigner {
    log: NatsLog,
    region: String,
    key: SigningKey,
    chain: CheckpointChain,
    /// Sequence of the last message of the chain.
    at: u64,
}

impl CheckpointSigner {
    /// Creates a signer from the stored checkpoints.
    ///
    /// Their signatures are not checked: keys change, and `audit verify` does that.
    pub async fn begin(log: NatsLog, region: &str, key: SigningKey) -> Result<Self, SignError> {
        let mut signer = Self { log, region: region.to_string(), key, chain: CheckpointChain::default(), at: 0 };
        signer.catch_up().await?;
        Ok(signer)
    }

    /// Signs a checkpoint over the new events. `None` = there are none.
    ///
    /// `progress` receives the current sequence and the last one.
    pub async fn sign(&mut self, progress: impl Fn(u64, u64)) -> Result<Option<Checkpoint>, SignError> {
        self.catch_up().await?;
        let covered = self.chain.last().map_or(0, |last| last.covers);
        let mut stream_reader = StreamReader::new(self.log.clone(), &self.region, None);
        stream_reader.begin_at(covered + 1);
        let end = stream_reader.last().await?;
        if end == covered {
            return Ok(None);
        }
        if let Some(last) = self.chain.last().filter(|last| end < last.covers) {
            return Err(SignError::Shrunk { number: last.number, covers: last.covers, end });
        }
        let mut heads: HashMap<Uuid, ConversationHead> = HashMap::new();
        while let Some(message) = stream_reader.next_until(end).await? {
            progress(message.seq, end);
            let link = ChainLink::of_message(&message);
            let Some(key) = &link.key else { continue };
            let before = heads.get(&key.conversation).or_else(|| self.chain.tree().get(key.conversation)).copied();
            if !link.follows(before.as_ref()) {
                // The event stays part of the log, and `audit verify` will always report it.
                tracing::error!(
                    seq = link.seq,
                    subject = link.subject,
                    "an event's digest chain is broken; verification will report it"
                );
            }
            let events = before.map_or(0, |head| head.events) + 1;
            let head = ConversationHead { conversation: key.conversation, seq: link.seq, digest: link.digest, events };
            heads.insert(key.conversation, head);
        }
        let mut heads: Vec<ConversationHead> = heads.into_values().collect();
        heads.sort_by_key(|head| head.conversation);
        let changes = HeadChanges { region: &self.region, covers: end, time: Utc::now(), heads };
        let subject = subjects::audit_checkpoint(&self.region);
        for message in self.chain.next(changes, &self.key) {
            let (id, expected) = (Uuid::new_v4().to_string(), self.at.to_string());
            self.at = self.log.put_at(&subject, &id, &expected, Bytes::from(message.clone())).await?;
            self.chain.take(&message).map_err(SignError::Chain)?;
        }
        Ok(self.chain.last().cloned())
    }

    /// Reads checkpoints that another signer may have published.
    async fn catch_up(&mut self) -> Result<(), SignError> {
        let mut stream_reader = StreamReader::checkpoints(self.log.clone(), &self.region);
        stream_reader.begin_at(self.at + 1);
        let end = stream_reader.last().await?;
        while let Some(message) = stream_reader.next_until(end).await? {
            self.at = message.seq;
            self.chain.take(&message.payload).map_err(SignError::Chain)?;
        }
        Ok(())
    }
}
