//! The Merkle tree over the heads of all conversations: its root stands for all of them, and a short path proves that one is in
//! it.
//!
//! As in RFC 6962 a leaf and an inner node are hashed apart. Unlike there, the tree's shape follows from the conversations'
//! ids: each inner node splits them by the first bit in which they differ. A change costs a path and not the whole tree.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::Digest;

/// The last event of a conversation, with its digest, and the number of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Uuid, u64, Digest, u64)", into = "(Uuid, u64, Digest, u64)")]
pub struct ConversationHead {
    pub conversation: Uuid,
    /// Sequence of the last event.
    pub seq: u64,
    pub digest: Digest,
    /// Number of events.
    pub events: u64,
}

impl From<(Uuid, u64, Digest, u64)> for ConversationHead {
    fn from((conversation, seq, digest, events): (Uuid, u64, Digest, u64)) -> Self {
        Self { conversation, seq, digest, events }
    }
}

impl From<ConversationHead> for (Uuid, u64, Digest, u64) {
    fn from(head: ConversationHead) -> Self {
        (head.conversation, head.seq, head.digest, head.events)
    }
}

impl ConversationHead {
    /// Returns the hash of the leaf: a byte of 0, the conversation's 16 bytes, the sequence (8 bytes, big-endian), the digest,
    /// the number of events (8 bytes, big-endian).
    fn hash(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update([0]);
        hash.update(self.conversation.as_bytes());
        hash.update(self.seq.to_be_bytes());
        hash.update(self.digest.0);
        hash.update(self.events.to_be_bytes());
        Digest(hash.finalize().into())
    }
}

/// Returns the hash of an inner node: a byte of 1, the hash of the side whose bit is 0, the hash of the side whose bit is 1.
fn inner(left: &Digest, right: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left.0);
    hash.update(right.0);
    Digest(hash.finalize().into())
}

/// The sibling of a node on the path from a leaf to the root.
///
/// Serialized as `l` or `r`, the sibling's side, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofStep {
    left: bool,
    hash: Digest,
}

impl fmt::Display for ProofStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.left { 'l' } else { 'r' }, self.hash)
    }
}

impl Serialize for ProofStep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProofStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let sides = [("l", true), ("r", false)];
        let mut steps = sides
            .into_iter()
            .filter_map(|(side, left)| Some(Self { left, hash: Digest::parse(text.strip_prefix(side)?)? }));
        steps.next().ok_or_else(|| D::Error::custom("not a side and a hash"))
    }
}

/// A proof that a head is in the tree of a root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    pub head: ConversationHead,
    /// From the leaf up.
    pub path: Vec<ProofStep>,
}

impl InclusionProof {
    /// Returns the root that the path leads to.
    pub fn root(&self) -> Digest {
        self.path.iter().fold(self.head.hash(), |hash, step| match step.left {
            true => inner(&step.hash, &hash),
            false => inner(&hash, &step.hash),
        })
    }
}

/// The bit number of a leaf: above all bits of an id.
const LEAF: u8 = u8::MAX;
const ID_BITS: u8 = 128;

struct Node {
    /// The bit of the ids that splits the two sides.
    bit: u8,
    /// The nodes of the sides. In a leaf, the first is the index of its head.
    sides: [u32; 2],
    /// `None` = the subtree has changed since it was hashed.
    hash: Option<Digest>,
}

/// The heads of conversations and the Merkle tree over them.
#[derive(Default)]
pub struct MerkleTree {
    nodes: Vec<Node>,
    heads: Vec<ConversationHead>,
    top: Option<u32>,
    events: u64,
}

impl MerkleTree {
    /// Returns the number of conversations.
    pub fn conversations(&self) -> u64 {
        self.heads.len() as u64
    }

    /// Returns the number of events of all conversations.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns the head of a conversation.
    pub fn get(&self, conversation: Uuid) -> Option<&ConversationHead> {
        let head = &self.heads[self.nearest(conversation.as_u128())? as usize];
        (head.conversation == conversation).then_some(head)
    }

    /// Inserts or replaces the head of a conversation.
    pub fn put(&mut self, head: ConversationHead) {
        let key = head.conversation.as_u128();
        self.events += head.events;
        let Some(nearest) = self.nearest(key) else {
            self.top = Some(self.leaf(head));
            return;
        };
        let differs = (key ^ self.heads[nearest as usize].conversation.as_u128()).leading_zeros() as u8;
        let (mut at, mut above) = (self.top.unwrap_or_default(), None);
        while self.nodes[at as usize].bit < differs {
            let node = &mut self.nodes[at as usize];
            node.hash = None;
            let side = side(key, node.bit);
            above = Some((at, side));
            at = node.sides[side];
        }
        if differs == ID_BITS {
            self.events -= self.heads[nearest as usize].events;
            self.heads[nearest as usize] = head;
            self.nodes[at as usize].hash = None;
            return;
        }
        let leaf = self.leaf(head);
        let mut sides = [at; 2];
        sides[side(key, differs)] = leaf;
        let new = self.push(Node { bit: differs, sides, hash: None });
        match above {
            Some((node, side)) => self.nodes[node as usize].sides[side] = new,
            None => self.top = Some(new),
        }
    }

    /// Returns the root over all heads; without heads, the hash of no bytes.
    pub fn root(&mut self) -> Digest {
        match self.top {
            Some(top) => self.hash(top),
            None => Digest(Sha256::digest([]).into()),
        }
    }

    /// Returns the proof that a conversation's head is in the tree.
    pub fn proof(&mut self, conversation: Uuid) -> Option<InclusionProof> {
        let head = *self.get(conversation)?;
        let (mut at, mut path) = (self.top?, Vec::new());
        while self.nodes[at as usize].bit != LEAF {
            let Node { bit, sides, .. } = self.nodes[at as usize];
            let own = side(conversation.as_u128(), bit);
            path.push(ProofStep { left: own == 1, hash: self.hash(sides[1 - own]) });
            at = sides[own];
        }
        path.reverse();
        Some(InclusionProof { head, path })
    }

    fn hash(&mut self, at: u32) -> Digest {
        let Node { bit, sides: [left, right], hash } = self.nodes[at as usize];
        if let Some(hash) = hash {
            return hash;
        }
        let hash = match bit {
            LEAF => self.heads[left as usize].hash(),
            _ => inner(&self.hash(left), &self.hash(right)),
        };
        self.nodes[at as usize].hash = Some(hash);
        hash
    }

    /// Returns the index of the head that agrees with the key in every bit that the tree tests on the way down.
    fn nearest(&self, key: u128) -> Option<u32> {
        let mut node = &self.nodes[self.top? as usize];
        while node.bit != LEAF {
            node = &self.nodes[node.sides[side(key, node.bit)] as usize];
        }
        Some(node.sides[0])
    }

    fn leaf(&mut self, head: ConversationHead) -> u32 {
        self.heads.push(head);
        let index = self.heads.len() as u32 - 1;
        self.push(Node { bit: LEAF, sides: [index; 2], hash: None })
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }
}

/// Returns the side of an inner node that an id belongs to.
fn side(key: u128, bit: u8) -> usize {
    usize::from(key >> (ID_BITS - 1 - bit) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The root as specified, computed over a sorted list.
    fn said(heads: &[ConversationHead]) -> Digest {
        match heads {
            [] => Digest(Sha256::digest([]).into()),
            [head] => head.hash(),
            [first, .., last] => {
                let differs = (first.conversation.as_u128() ^ last.conversation.as_u128()).leading_zeros() as u8;
                let middle = heads.partition_point(|head| side(head.conversation.as_u128(), differs) == 0);
                inner(&said(&heads[..middle]), &said(&heads[middle..]))
            }
        }
    }

    fn head(id: u8, version: u64) -> ConversationHead {
        // Ids that differ at the beginning, in the middle and at the end.
        let id = u128::from(id);
        let conversation = Uuid::from_u128((id & 3) << 126 | (id >> 2 & 7) << 60 | id >> 5);
        ConversationHead { conversation, seq: version, digest: Digest([id as u8; 32]), events: version + 1 }
    }

    proptest! {
        #[test]
        fn the_root_matches_the_specification_and_every_path_leads_to_it(puts in prop::collection::vec((any::<u8>(), 0u64..3), 0..80)) {
            let (mut tree, mut all) = (MerkleTree::default(), std::collections::BTreeMap::new());
            for (id, version) in puts {
                let head = head(id, version);
                tree.put(head);
                all.insert(head.conversation, head);
                // Hashes in between, so that stale cached hashes would show.
                if version == 0 {
                    tree.root();
                }
            }
            let heads: Vec<ConversationHead> = all.values().copied().collect();
            let root = tree.root();
            prop_assert_eq!(root, said(&heads));
            prop_assert_eq!(tree.conversations(), heads.len() as u64);
            prop_assert_eq!(tree.events(), heads.iter().map(|head| head.events).sum::<u64>());
            for head in &heads {
                let proof = tree.proof(head.conversation).unwrap();
                prop_assert_eq!(proof.root(), root);
                let text = serde_json::to_string(&proof).unwrap();
                prop_assert_eq!(serde_json::from_str::<InclusionProof>(&text).unwrap(), proof.clone());
                let other = InclusionProof { head: ConversationHead { events: head.events + 1, ..*head }, ..proof };
                prop_assert_ne!(other.root(), root);
            }
            prop_assert!(tree.proof(Uuid::from_u128(77)).is_none());
        }
    }
}
