//! Identifiers: generated and parsed here.
//!
//! Conversation and session ids are UUIDv8 with the number of their home region as the first byte; the rest is random. So
//! an id names the region of its log, and no code takes the region from configuration.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Returns a new conversation or session id homed in region number `region`.
pub fn new_homed(region: u8) -> Uuid {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = region;
    Uuid::new_v8(bytes)
}

/// Returns the region number in a conversation or session id; `None` if the id was not made by [`new_homed`].
pub fn region_number(id: Uuid) -> Option<u8> {
    (id.get_version_num() == 8).then(|| id.as_bytes()[0])
}

/// Returns a new random id for a message, a participant or an agent.
pub fn new_random() -> Uuid {
    Uuid::new_v4()
}

/// Returns the id of the turn that a request asks for.
///
/// Attachments enter by the SHA-256 of their content or URL. The id is a hash, so a client that sends the same request
/// again, to any edge and at any time, names the same turn; a requestId that is used again for another request names
/// another turn.
pub fn turn_id(conversation: Uuid, session: Uuid, request_id: &str, message: &str, attachments: &[[u8; 32]]) -> Uuid {
    // No text holds this byte, so it separates its neighbours unambiguously.
    const BETWEEN: [u8; 1] = [0xff];
    let hash = of_request(conversation, session, request_id).chain_update(BETWEEN).chain_update(message);
    named(attachments.iter().fold(hash, |hash, digest| hash.chain_update(BETWEEN).chain_update(digest)))
}

/// Returns the id that earlier versions gave to the turn of a request, regardless of its message.
pub fn turn_id_without_message(conversation: Uuid, session: Uuid, request_id: &str) -> Uuid {
    named(of_request(conversation, session, request_id))
}

fn of_request(conversation: Uuid, session: Uuid, request_id: &str) -> Sha256 {
    let hash = Sha256::new().chain_update(b"turn").chain_update(conversation.as_bytes());
    hash.chain_update(session.as_bytes()).chain_update(request_id)
}

fn named(hash: Sha256) -> Uuid {
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

/// Returns the id of an event that a process decided on.
///
/// The `nonce` is made once per command or claim and kept over retries, so the events of two processes never share an id,
/// and the retries of one always do.
pub fn event_id(nonce: Uuid, step: u32) -> String {
    format!("{}-{step}", nonce.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_contains_its_region() {
        for region in [0, 1, 255] {
            assert_eq!(region_number(new_homed(region)), Some(region));
        }
        assert_eq!(region_number(new_random()), None);
    }

    #[test]
    fn a_turn_id_depends_on_all_its_parts() {
        let (c, s) = (new_homed(0), new_homed(0));
        let of = |c, s, request, message, attachments: &[[u8; 32]]| turn_id(c, s, request, message, attachments);
        let id = of(c, s, "r1", "hello", &[]);
        assert_eq!(id, of(c, s, "r1", "hello", &[]));
        for other in [
            of(c, s, "r2", "hello", &[]),
            of(s, c, "r1", "hello", &[]),
            of(c, s, "r1", "hallo", &[]),
            of(c, s, "r1h", "ello", &[]),
            of(c, s, "r1", "hello", &[[1; 32]]),
            turn_id_without_message(c, s, "r1"),
        ] {
            assert_ne!(id, other);
        }
    }
}
