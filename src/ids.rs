//! Identifiers: made here, parsed here.
//!
//! Conversation and session ids are UUIDv8 whose first byte is the number of their home region; the rest is random.
//! An id therefore tells where its log lives, and no code has to take that from configuration.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A new conversation or session id homed in region number `region`.
pub fn new_homed(region: u8) -> Uuid {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = region;
    Uuid::new_v8(bytes)
}

/// The region number in a conversation or session id, or `None` when the id was not made by [`new_homed`].
pub fn region_number(id: Uuid) -> Option<u8> {
    (id.get_version_num() == 8).then(|| id.as_bytes()[0])
}

/// A new random id for a message, a participant or an agent.
pub fn new_random() -> Uuid {
    Uuid::new_v4()
}

/// The id of the turn that `request_id` asks for on a session.
///
/// It is a hash, so a client that sends the same request again, to any edge and at any time, names the same turn.
pub fn turn_id(conversation: Uuid, session: Uuid, request_id: &str) -> Uuid {
    let digest = Sha256::new()
        .chain_update(b"turn")
        .chain_update(conversation.as_bytes())
        .chain_update(session.as_bytes())
        .chain_update(request_id.as_bytes())
        .finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

/// The id of an event that a process decided on: `nonce` is made once per command or claim and kept over its retries,
/// so two deciders never look like one and one decider never looks like two.
pub fn event_id(nonce: Uuid, step: u32) -> String {
    format!("{}-{step}", nonce.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_region() {
        for region in [0, 1, 255] {
            assert_eq!(region_number(new_homed(region)), Some(region));
        }
        assert_eq!(region_number(new_random()), None);
    }

    #[test]
    fn a_turn_id_depends_on_all_its_parts() {
        let (c, s) = (new_homed(0), new_homed(0));
        assert_eq!(turn_id(c, s, "r1"), turn_id(c, s, "r1"));
        assert_ne!(turn_id(c, s, "r1"), turn_id(c, s, "r2"));
        assert_ne!(turn_id(c, s, "r1"), turn_id(s, c, "r1"));
    }
}
