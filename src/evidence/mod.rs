//! The log as evidence: proving that it was not changed.
//!
//! - [`verify`]: follows the chain of digests and checks it against checkpoints.
//! - [`signer`]: signs checkpoints.   - [`checkpoint`]: their content.   - [`merkle_tree`]: the Merkle tree over all heads.
//! - [`export`]: files of events.   - [`bundle`]: verifies such files offline.

pub mod bundle;
pub mod checkpoint;
pub mod export;
mod lines;
pub mod merkle_tree;
pub mod signer;
pub mod verify;
