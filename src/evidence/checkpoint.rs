//! Signed checkpoints: the heads of all conversations of a region, in a chain of their own.
//!
//! A checkpoint is several messages: parts that hold the heads which changed since the checkpoint before, and then the
//! checkpoint, which names them by their digests. Parts that no checkpoint names were left by a signer that died.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::merkle_tree::{ConversationHead, MerkleTree};
use crate::{
    domain::Digest,
    limits,
    signing::{PublicKey, SigningKey},
};

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum ChainMessage {
    Heads(Heads),
    Checkpoint(Checkpoint),
}

/// A part of the changed heads.
#[derive(Serialize, Deserialize)]
struct Heads {
    number: u64,
    heads: Vec<ConversationHead>,
}

/// The signed statement about all conversations of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u8,
    pub region: String,
    /// The first checkpoint is 1.
    pub number: u64,
    /// Digest of the checkpoint before.
    pub previous: Digest,
    /// Sequence of the last covered event.
    pub covers: u64,
    /// RFC 3339, by the signer's clock.
    pub time: String,
    pub conversations: u64,
    pub events: u64,
    pub root: Digest,
    /// Digests of the parts.
    parts: Vec<Digest>,
    /// The id of the signing key.
    key: Digest,
    signature: String,
}

impl Checkpoint {
    /// Returns the signed text, one field a line.
    ///
    /// Only `region` and `time` could hold a line feed; [`is_plain`] refuses it there.
    fn statement(&self) -> String {
        let Self { version, region, number, previous, covers, time, conversations, events, root, key, .. } = self;
        let mut statement = format!(
            "turnstream checkpoint {version}\n{region}\n{number}\n{previous}\n{covers}\n{time}\n{conversations}\n{events}\n{root}\n{key}\n"
        );
        for part in &self.parts {
            statement += &format!("{part}\n");
        }
        statement
    }

    /// Returns the checkpoint's name: SHA-256 over its statement.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.statement()).into())
    }
}

/// A checkpoint and the heads that changed before it.
#[derive(Debug)]
pub struct SignedCheckpoint {
    pub checkpoint: Checkpoint,
    /// Sorted by conversation id.
    pub heads: Vec<ConversationHead>,
}

/// The input of the next checkpoint.
pub struct HeadChanges<'a> {
    pub region: &'a str,
    pub covers: u64,
    pub time: DateTime<Utc>,
    /// Sorted by conversation id.
    pub heads: Vec<ConversationHead>,
}

/// The chain of checkpoints, as far as it was read.
#[derive(Default)]
pub struct CheckpointChain {
    /// Keys that may have signed; empty = signatures are not checked.
    keys: Vec<PublicKey>,
    /// A chain read without its parts can't recompute its roots.
    without_heads: bool,
    tree: MerkleTree,
    last: Option<Checkpoint>,
    parts: HashMap<Digest, Vec<ConversationHead>>,
}

impl CheckpointChain {
    /// Creates a chain that only these keys may have signed. No keys = signatures are not checked.
    pub fn signed_by(keys: Vec<PublicKey>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Creates a chain that is read without its parts.
    pub fn without_heads(keys: Vec<PublicKey>) -> Self {
        Self { keys, without_heads: true, ..Self::default() }
    }

    pub fn last(&self) -> Option<&Checkpoint> {
        self.last.as_ref()
    }

    /// Returns the heads as of the last checkpoint.
    pub fn tree(&mut self) -> &mut MerkleTree {
        &mut self.tree
    }

    /// Takes the next message.
    ///
    /// Returns a checkpoint if the message is one and follows from everything before it.
    pub fn take(&mut self, message: &[u8]) -> Result<Option<SignedCheckpoint>, String> {
        let checkpoint = match serde_json::from_slice(message) {
            Err(error) => return Err(format!("after checkpoint {}: {error}", self.number())),
            Ok(ChainMessage::Heads(part)) => {
                self.parts.insert(Digest(Sha256::digest(message).into()), part.heads);
                return Ok(None);
            }
            Ok(ChainMessage::Checkpoint(checkpoint)) => checkpoint,
        };
        let number = checkpoint.number;
        let signed = self.follow(checkpoint).map_err(|problem| format!("checkpoint {number}: {problem}"))?;
        self.last = Some(signed.checkpoint.clone());
        Ok(Some(signed))
    }

    fn number(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.number)
    }

    fn follow(&mut self, checkpoint: Checkpoint) -> Result<SignedCheckpoint, String> {
        let (previous, covers) = self.last.as_ref().map_or_else(Default::default, |last| (last.digest(), last.covers));
        if checkpoint.number != self.number() + 1 {
            return Err(format!("the previous checkpoint is {}", self.number()));
        }
        if checkpoint.previous != previous {
            return Err("the digest of the previous checkpoint does not match".into());
        }
        if checkpoint.version != VERSION || !is_plain(&checkpoint.region) || !is_plain(&checkpoint.time) {
            return Err("the version or the form is unknown".into());
        }
        if self.last.as_ref().is_some_and(|last| last.region != checkpoint.region) || checkpoint.covers <= covers {
            return Err("the region or the range does not follow from the previous checkpoint".into());
        }
        if !self.keys.is_empty() {
            let key = self.keys.iter().find(|key| key.id() == checkpoint.key);
            let key = key.ok_or("signed with another key")?;
            if !key.signed(&checkpoint.statement(), &checkpoint.signature) {
                return Err("the signature is invalid".into());
            }
        }
        let mut heads = Vec::new();
        if !self.without_heads {
            for digest in &checkpoint.parts {
                heads.extend(self.parts.remove(digest).ok_or("a part of the heads is missing or was changed")?);
            }
            self.parts.clear();
            heads.iter().for_each(|head| self.tree.put(*head));
            let counted = (self.tree.conversations(), self.tree.events());
            if self.tree.root() != checkpoint.root || counted != (checkpoint.conversations, checkpoint.events) {
                return Err("the heads do not lead to the Merkle root".into());
            }
        }
        Ok(SignedCheckpoint { checkpoint, heads })
    }

    /// Builds the messages of the next checkpoint.
    ///
    /// The checkpoint becomes the last one only when [`Self::take`] has taken its messages.
    pub fn next(&mut self, changes: HeadChanges, key: &SigningKey) -> Vec<Vec<u8>> {
        let HeadChanges { region, covers, time, heads } = changes;
        let number = self.number() + 1;
        // The tree is ahead of the chain from here on; a signer that fails to publish starts again from the published chain.
        heads.iter().for_each(|head| self.tree.put(*head));
        let parts = heads.chunks(limits::CHECKPOINT_PART_HEADS).map(|heads| Heads { number, heads: heads.to_vec() });
        let mut messages: Vec<Vec<u8>> = parts.map(|part| json(&ChainMessage::Heads(part))).collect();
        let mut checkpoint = Checkpoint {
            version: VERSION,
            region: region.to_string(),
            number,
            previous: self.last.as_ref().map(Checkpoint::digest).unwrap_or_default(),
            covers,
            time: time.to_rfc3339_opts(SecondsFormat::Micros, true),
            conversations: self.tree.conversations(),
            events: self.tree.events(),
            root: self.tree.root(),
            parts: messages.iter().map(|part| Digest(Sha256::digest(part).into())).collect(),
            key: key.public().id(),
            signature: String::new(),
        };
        checkpoint.signature = key.sign(&checkpoint.statement());
        messages.push(json(&ChainMessage::Checkpoint(checkpoint)));
        messages
    }
}

fn json(message: &ChainMessage) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages are maps with string keys")
}

/// Returns true if a text can be a region's name or a time.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+".contains(&byte))
}

/// Returns true if a message is a part that holds heads.
pub fn is_part(message: &[u8]) -> bool {
    matches!(serde_json::from_slice(message), Ok(ChainMessage::Heads(_)))
}

/// A checkpoint that an auditor has noted: its number and digest, `12:9f…`.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointRef {
    pub number: u64,
    pub digest: Digest,
}

impl std::str::FromStr for CheckpointRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once(':').and_then(|(number, digest)| Some((number.parse().ok()?, Digest::parse(digest)?)));
        let (number, digest) = parts.ok_or("not a number, a colon and 64 hexadecimal digits")?;
        Ok(Self { number, digest })
    }
}

/// Filters heads by conversation; `None` = all of them.
pub fn of(heads: &[ConversationHead], conversation: Option<Uuid>) -> impl Iterator<Item = &ConversationHead> {
    heads.iter().filter(move |head| conversation.is_none_or(|wanted| wanted == head.conversation))
}
