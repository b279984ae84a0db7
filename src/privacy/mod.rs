//! Erasure of conversations, and legal holds against it.
//!
//! - [`person`]: the people in a conversation.
//! - [`ledger`]: holds and erasures, beside the log.
//! - [`erase`]: finds conversations and destroys their keys.
//! - [`retain`]: the conversations at the end of their retention.
//! - [`sweep`]: erases those.
//!
//! Contract: a conversation is erased when its keys are destroyed (crypto-shredding). Its events stay, encrypted for good,
//! and with them the chain of digests. A request is recorded before it is carried out, so another process completes it if
//! this one dies; a legal hold that is in the ledger by then prevents it.

pub mod erase;
pub mod ledger;
pub mod person;
mod retain;
pub mod sweep;
