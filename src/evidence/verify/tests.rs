//! Tampering with a log is detected.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{TimeZone, Utc};
use proptest::prelude::*;

use super::*;
use crate::{
    domain::{
        Event,
        event::{TurnReleased, TurnStarted},
    },
    evidence::checkpoint::{CheckpointChain, HeadChanges},
    signing::SigningKey,
    wire::stored::EventEnvelope,
};

fn log(conversations: u128, events: u64) -> Vec<RawMessage> {
    log_since(0, conversations, events)
}

/// Returns events as a stream holds them; those up to `old` were written before there were digests.
fn log_since(old: u64, conversations: u128, events: u64) -> Vec<RawMessage> {
    let mut tails: HashMap<u128, (u64, Digest)> = HashMap::new();
    let event = |seq: u64| match seq % 2 {
        0 => Event::TurnReleased(TurnReleased { turn: Uuid::from_u128(seq.into()), epoch: seq, shown: None }),
        _ => Event::TurnStarted(TurnStarted { turn: Uuid::from_u128(seq.into()), worker: Uuid::nil(), item: seq }),
    };
    let store = |seq: u64| {
        let n = u128::from(seq) % conversations;
        let key = ConversationKey { region: "r".into(), org: "acme".into(), conversation: Uuid::from_u128(n) };
        let (prev, digest) = tails.get(&n).copied().unwrap_or_default();
        let time = Utc.timestamp_opt(seq as i64, 0).unwrap();
        let (id, source) = (format!("id-{seq}"), "/test".to_string());
        let prev_digest = Some(digest).filter(|_| seq > old);
        let envelope = EventEnvelope { id, source, time, conversation: key.conversation, prev, prev_digest };
        let (headers, payload) = stored::encode(&envelope, &event(seq));
        let subject = key.event(event(seq).kind());
        tails.insert(n, (seq, envelope.digest(&subject, &event(seq))));
        let headers = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        RawMessage { subject, seq, stored_at: time, headers, payload }
    };
    (1..=events).map(store).collect()
}

fn broken(log: &[RawMessage]) -> Option<u64> {
    let mut verifier = LogVerifier::default();
    log.iter().for_each(|message| verifier.take(message));
    assert_eq!(verifier.report.first.is_some(), verifier.report.broken > 0);
    verifier.report.first.map(|first| first.seq)
}

/// Changes a digit of the payload, which leaves it valid JSON.
fn edit(message: &mut RawMessage) {
    let mut bytes = message.payload.to_vec();
    let at = bytes.iter().rposition(u8::is_ascii_digit).unwrap();
    bytes[at] = if bytes[at] == b'9' { b'8' } else { bytes[at] + 1 };
    message.payload = Bytes::from(bytes);
}

#[test]
fn an_untouched_log_passes_with_or_without_digests() {
    assert_eq!(broken(&log(3, 60)), None);
    let old = log_since(10, 2, 20);
    assert_eq!(broken(&old), None);
    // The first event with a digest covers the last one without.
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
        // Events of the last round have no successor that would show the change.
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

/// Returns the checkpoints that a signer makes of a log, one for each number of covered events.
fn signed(log: &[RawMessage], covered: &[usize]) -> Vec<SignedCheckpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    SigningKey::generate(&path, &folder.path().join("key.pub")).unwrap();
    let key = SigningKey::read(&path).unwrap();
    let (mut writing, mut reading) = (CheckpointChain::default(), CheckpointChain::signed_by(vec![key.public()]));
    let mut signed = Vec::new();
    let mut heads: BTreeMap<Uuid, ConversationHead> = BTreeMap::new();
    let mut from = 0;
    for covers in covered {
        let changed = log[from..*covers].iter().map(|message| {
            let link = ChainLink::of_message(message);
            let conversation = link.key.unwrap().conversation;
            let events = heads.get(&conversation).map_or(0, |head| head.events) + 1;
            let head = ConversationHead { conversation, seq: link.seq, digest: link.digest, events };
            heads.insert(conversation, head);
            (conversation, head)
        });
        let changed: BTreeMap<Uuid, ConversationHead> = changed.collect();
        let (covers, time) = (log[covers - 1].seq, Utc::now());
        let changes = HeadChanges { region: "r", covers, time, heads: changed.into_values().collect() };
        for message in writing.next(changes, &key) {
            writing.take(&message).unwrap();
            signed.extend(reading.take(&message).unwrap());
        }
        from = covers as usize;
    }
    signed
}

fn held(log: &[RawMessage], signed: &[SignedCheckpoint], begins: Option<u64>) -> VerificationReport {
    let mut verifier = LogVerifier::new(begins, None);
    let mut signed = signed.iter().peekable();
    for message in log {
        while let Some(signed) = signed.next_if(|signed| LogVerifier::is_before(signed, message.seq)) {
            verifier.hold_to(signed);
        }
        verifier.take(message);
    }
    signed.for_each(|signed| verifier.hold_to(signed));
    verifier.report
}

#[test]
fn a_truncated_log_differs_from_its_checkpoints() {
    let log = log(7, 60);
    let signed = signed(&log, &[10, 30, 60]);
    let report = held(&log, &signed, None);
    assert_eq!((report.broken, report.checkpoints, report.unsigned), (0, 3, 0), "{report}");
    for end in 0..60 {
        let report = held(&log[..end], &signed, None);
        assert!(report.broken > 0, "{end}");
        assert!(report.first.is_some_and(|first| first.seq > end as u64), "{end}");
    }
    assert_eq!(held(&log, &signed[..2], None).unsigned, 30);
}

#[test]
fn events_deleted_by_retention_are_no_fault_when_declared() {
    let log = log(7, 60);
    let signed = signed(&log, &[10, 20, 40, 60]);
    for begins in 2..60 {
        let kept = &log[begins - 1..];
        let report = held(kept, &signed, Some(begins as u64));
        assert_eq!(report.broken, 0, "{begins}: {report}");
        let unsaid = held(kept, &signed, None);
        assert!(unsaid.broken > 0, "{begins}");
        // One event more is missing than was declared, or the first remaining one was changed.
        assert!(held(&kept[1..], &signed, Some(begins as u64)).broken > 0, "{begins}");
        let mut edited = kept.to_vec();
        edit(&mut edited[0]);
        assert!(held(&edited, &signed, Some(begins as u64)).broken > 0, "{begins}");
    }
    // An event that was a head is known by its checkpoint.
    let mut other = log[20..].to_vec();
    let zeros = Digest::default().to_string();
    other[0].headers.insert(stored::CE_PREVDIGEST.into(), zeros);
    let report = held(&other[..1], &signed[..2], Some(21));
    assert!(report.first.is_some_and(|first| first.problem.contains("was changed")));
}
