//! A log that was tampered with is found out, whatever was done to it.

use bytes::Bytes;
use chrono::{TimeZone, Utc};
use proptest::prelude::*;

use super::*;
use crate::{
    domain::{
        Event,
        event::{TurnReleased, TurnStarted},
    },
    wire::stored::Envelope,
};

fn log(conversations: u128, events: u64) -> Vec<RawMessage> {
    log_since(0, conversations, events)
}

/// The events of some conversations as a stream holds them; those up to `old` were written before there were digests.
fn log_since(old: u64, conversations: u128, events: u64) -> Vec<RawMessage> {
    let mut tails: HashMap<u128, (u64, Digest)> = HashMap::new();
    let event = |seq: u64| match seq % 2 {
        0 => Event::TurnReleased(TurnReleased { turn: Uuid::from_u128(seq.into()), epoch: seq }),
        _ => Event::TurnStarted(TurnStarted { turn: Uuid::from_u128(seq.into()), worker: Uuid::nil(), item: seq }),
    };
    let store = |seq: u64| {
        let n = u128::from(seq) % conversations;
        let key = ConversationKey { region: "r".into(), org: "acme".into(), conversation: Uuid::from_u128(n) };
        let (prev, digest) = tails.get(&n).copied().unwrap_or_default();
        let time = Utc.timestamp_opt(seq as i64, 0).unwrap();
        let (id, source) = (format!("id-{seq}"), "/test".to_string());
        let prev_digest = Some(digest).filter(|_| seq > old);
        let envelope = Envelope { id, source, time, conversation: key.conversation, prev, prev_digest };
        let (headers, payload) = stored::encode(&envelope, &event(seq));
        let subject = key.event(event(seq).kind());
        tails.insert(n, (seq, envelope.digest(&subject, &event(seq))));
        let headers = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        RawMessage { subject, seq, stored_at: time, headers, payload }
    };
    (1..=events).map(store).collect()
}

fn broken(log: &[RawMessage]) -> Option<u64> {
    let mut verifier = Verifier::default();
    log.iter().for_each(|message| verifier.take(message));
    assert_eq!(verifier.report.first.is_some(), verifier.report.broken > 0);
    verifier.report.first.map(|first| first.seq)
}

/// Changes one byte of the payload that leaves it JSON: a digit.
fn edit(message: &mut RawMessage) {
    let mut bytes = message.payload.to_vec();
    let at = bytes.iter().rposition(u8::is_ascii_digit).unwrap();
    bytes[at] = if bytes[at] == b'9' { b'8' } else { bytes[at] + 1 };
    message.payload = Bytes::from(bytes);
}

#[test]
fn an_untouched_log_passes_and_an_older_one_without_digests_too() {
    assert_eq!(broken(&log(3, 60)), None);
    let old = log_since(10, 2, 20);
    assert_eq!(broken(&old), None);
    // The first event with a digest vouches for the last one without.
    let mut edited = old.clone();
    edit(&mut edited[9]);
    assert_eq!(broken(&edited), Some(12));
    let mut late = log(1, 10);
    late[7].headers.remove(stored::CE_PREVDIGEST);
    assert_eq!(broken(&late), Some(8), "a digest that is missing later is noticed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_edit_removal_swap_and_insertion_is_found(at in 0usize..54, other in 0usize..54, how in 0u8..5) {
        let (untouched, mut log) = (log(3, 60), log(3, 60));
        // Events of the last round have no successor that would notice.
        match how {
            0 => edit(&mut log[at]),
            1 => drop(log.remove(at)),
            2 => {
                prop_assume!(at != other);
                let (a, b) = (log[at].seq, log[other].seq);
                log.swap(at, other);
                (log[at].seq, log[other].seq) = (a, b);
            }
            3 => {
                let mut forged = untouched[at].clone();
                forged.headers.insert(stored::CE_ID.into(), "forged".into());
                edit(&mut forged);
                log.insert(at, forged);
            }
            _ => drop(log[at].headers.insert(stored::CE_SOURCE.into(), "/somebody/else".into())),
        }
        prop_assert!(broken(&log).is_some(), "{how} at {at}");
        prop_assert_eq!(broken(&untouched), None);
    }
}
