//! One contract, three logs: in memory, and over JetStream on a real nats-server, in clear and encrypted.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::future::join_all;
use turnstream::{
    domain::{Digest, Event, event::TurnRequested},
    limits,
    log::{AppendReceipt, EventLog, NewEvent, StoredEvent, memory::MemoryLog},
    nats::{AppendError, ReadFrom},
    subjects::ConversationKey,
    wire::stored::encode_payload,
};

use crate::support::{samples::*, server::Server};

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod in_memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Arc::new(super::MemoryLog::default())).await;
                }
            )*
        }
        mod over_nats {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let server = super::Server::start().await;
                    super::$test(super::Arc::new(server.log())).await;
                }
            )*
        }
        mod encrypted_over_nats {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let server = super::Server::start().await;
                    super::$test(super::Arc::new(server.encrypting_log())).await;
                }
            )*
        }
    };
}

contract! {
    an_empty_conversation_has_no_last_event,
    events_follow_each_other_in_one_chain,
    reads_return_the_appended_events,
    every_kind_of_event_survives_the_log,
    an_append_on_another_last_event_conflicts,
    of_many_racers_one_wins,
    an_event_id_is_taken_once,
    an_event_id_is_taken_once_in_all_conversations,
    a_refused_append_takes_no_id,
    events_have_a_size_limit,
    conversations_are_isolated,
    organisations_with_alike_names_do_not_see_each_other,
    a_sequence_of_another_conversation_is_not_there,
}

const BOTH: [ReadFrom; 2] = [ReadFrom::Replica, ReadFrom::Leader];

fn new_event(event: Event) -> NewEvent {
    // The log stores times with microseconds.
    let time = Utc::now().trunc_subsecs(6);
    NewEvent { id: id_text(), source: "/test".into(), time, prev_digest: Digest::default(), event }
}

fn id_text() -> String {
    turnstream::ids::event_id(turnstream::ids::new_random(), 0)
}

/// Appends events one after the other and returns their sequences.
async fn append_all(log: &impl EventLog, key: &ConversationKey, events: Vec<Event>) -> Vec<u64> {
    let mut seqs: Vec<u64> = Vec::new();
    for event in events {
        let expected = seqs.last().copied().unwrap_or(0);
        seqs.push(log.append(key, expected, &new_event(event)).await.unwrap().seq);
    }
    seqs
}

async fn last(log: &impl EventLog, key: &ConversationKey) -> Option<StoredEvent> {
    let [replica, leader] =
        [log.last(key, ReadFrom::Replica).await.unwrap(), log.last(key, ReadFrom::Leader).await.unwrap()];
    assert_eq!(replica, leader);
    replica
}

async fn at(log: &impl EventLog, key: &ConversationKey, seq: u64) -> Option<StoredEvent> {
    let [replica, leader] =
        [log.at(key, seq, ReadFrom::Replica).await.unwrap(), log.at(key, seq, ReadFrom::Leader).await.unwrap()];
    assert_eq!(replica, leader);
    replica
}

async fn an_empty_conversation_has_no_last_event<L: EventLog>(log: Arc<L>) {
    let key = new_key("acme");
    assert_eq!(last(&*log, &key).await, None);
    assert_eq!(at(&*log, &key, 1).await, None);
    append_all(&*log, &new_key("acme"), vec![opened()]).await;
    assert_eq!(last(&*log, &key).await, None);
}

async fn events_follow_each_other_in_one_chain<L: EventLog>(log: Arc<L>) {
    let (key, other) = (new_key("acme"), new_key("acme"));
    let first = append_all(&*log, &key, vec![opened()]).await[0];
    append_all(&*log, &other, vec![opened(), requested(10)]).await;
    let mut expected = first;
    let mut seqs = vec![first];
    for event in [requested(10), requested(11), completed(10, 9, "Hello")] {
        let seq = log.append(&key, expected, &new_event(event)).await.unwrap().seq;
        assert!(seq > expected);
        expected = seq;
        seqs.push(seq);
    }
    let mut chain = Vec::new();
    let mut next = last(&*log, &key).await;
    while let Some(stored) = next {
        chain.push(stored.recorded.seq);
        assert_eq!(stored.envelope.conversation, key.conversation);
        next = match stored.envelope.prev {
            0 => None,
            prev => Some(at(&*log, &key, prev).await.expect("no link is missing")),
        };
    }
    chain.reverse();
    assert_eq!(chain, seqs);
}

async fn reads_return_the_appended_events<L: EventLog>(log: Arc<L>) {
    let key = new_key("acme");
    let before: DateTime<Utc> = Utc::now();
    let new = new_event(opened());
    let AppendReceipt { seq, digest } = log.append(&key, 0, &new).await.unwrap();
    let stored = last(&*log, &key).await.unwrap();
    assert_eq!((&stored.envelope.id, &stored.envelope.source), (&new.id, &new.source));
    assert_eq!((stored.envelope.time, stored.envelope.prev), (new.time, 0));
    assert_eq!((stored.recorded.seq, &stored.recorded.event, stored.recorded.time), (seq, &new.event, new.time));
    assert_eq!(stored.recorded.digest, digest);
    assert!((before..=Utc::now()).contains(&stored.recorded.stored_at), "the log states when it took the event");
    assert_eq!(at(&*log, &key, seq).await, Some(stored));
    assert_eq!(at(&*log, &key, seq + 1).await, None);
}

async fn every_kind_of_event_survives_the_log<L: EventLog>(log: Arc<L>) {
    use turnstream::domain::event::{Resolution, TurnCancelled, TurnResumed, TurnStarted};
    let resolution = Resolution::Expired;
    let (turn, text) = (id(10), "quotes \" and \\, \u{1F980}, a line\r\nend, \u{0} and \u{2028}");
    let events = vec![
        opened(),
        Event::TurnRequested(TurnRequested { message: text.into(), ..request(10) }),
        Event::TurnStarted(TurnStarted { turn, worker: id(7), item: 6 }),
        replied(10, 9, vec![gated("pay"), idempotent("read")]),
        called(10, 9, text),
        returned(10, 9, text),
        parked(10, 9, "pay", 50),
        Event::TurnResumed(TurnResumed {
            turn,
            park: id(50),
            resolution,
            values: None,
            by: None,
            pool: POOL.into(),
            not_after: None,
        }),
        completed(10, 9, text),
        failed(10, 9),
        Event::TurnCancelled(TurnCancelled { turn, request_id: text.into(), by: id(3), reason: None, not_after: None }),
    ];
    let key = new_key("acme");
    let seqs = append_all(&*log, &key, events.clone()).await;
    for (seq, event) in seqs.into_iter().zip(events) {
        assert_eq!(at(&*log, &key, seq).await.unwrap().recorded.event, event);
    }
}

async fn an_append_on_another_last_event_conflicts<L: EventLog>(log: Arc<L>) {
    let key = new_key("acme");
    let seqs = append_all(&*log, &key, vec![opened(), requested(10)]).await;
    for expected in [0, seqs[0], seqs[1] + 1] {
        let verdict = log.append(&key, expected, &new_event(failed(10, 9))).await;
        assert!(matches!(verdict, Err(AppendError::Conflict)), "{expected}: {verdict:?}");
    }
    assert_eq!(last(&*log, &key).await.unwrap().recorded.seq, seqs[1], "no event was written");
    let verdict = log.append(&new_key("acme"), 7, &new_event(opened())).await;
    assert!(matches!(verdict, Err(AppendError::Conflict)), "{verdict:?}");
}

async fn of_many_racers_one_wins<L: EventLog>(log: Arc<L>) {
    const RACERS: u64 = 16;
    let key = new_key("acme");
    let mut expected = append_all(&*log, &key, vec![opened()]).await[0];
    for round in 0..4 {
        let race = (0..RACERS).map(|n| {
            let (log, key) = (log.clone(), key.clone());
            // The kinds of events differ, so that the racers' subjects differ.
            let event = if n % 2 == 0 { requested(n) } else { failed(n, round) };
            tokio::spawn(async move { log.append(&key, expected, &new_event(event)).await })
        });
        let verdicts: Vec<_> = join_all(race).await.into_iter().map(Result::unwrap).collect();
        let conflicts = verdicts.iter().filter(|verdict| matches!(verdict, Err(AppendError::Conflict))).count();
        assert_eq!(conflicts as u64, RACERS - 1, "{verdicts:?}");
        let won = last(&*log, &key).await.unwrap();
        assert_eq!(verdicts.into_iter().find_map(Result::ok).map(|won| won.seq), Some(won.recorded.seq));
        assert_eq!(won.envelope.prev, expected);
        expected = won.recorded.seq;
    }
}

async fn an_event_id_is_taken_once<L: EventLog>(log: Arc<L>) {
    let key = new_key("acme");
    let new = new_event(opened());
    let first = log.append(&key, 0, &new).await.unwrap().seq;
    let verdict = log.append(&key, first, &new).await;
    assert!(matches!(verdict, Err(AppendError::Duplicate)), "{verdict:?}");
    // The server may report either of the two first.
    let verdict = log.append(&key, 0, &new).await;
    assert!(matches!(verdict, Err(AppendError::Duplicate | AppendError::Conflict)), "{verdict:?}");
    assert_eq!(last(&*log, &key).await.unwrap().recorded.seq, first, "no event was written");
}

async fn an_event_id_is_taken_once_in_all_conversations<L: EventLog>(log: Arc<L>) {
    let new = new_event(opened());
    log.append(&new_key("acme"), 0, &new).await.unwrap();
    let verdict = log.append(&new_key("acme"), 0, &new).await;
    assert!(matches!(verdict, Err(AppendError::Duplicate)), "{verdict:?}");
}

async fn a_refused_append_takes_no_id<L: EventLog>(log: Arc<L>) {
    let key = new_key("acme");
    let seq = append_all(&*log, &key, vec![opened()]).await[0];
    let new = new_event(requested(10));
    let verdict = log.append(&key, 0, &new).await;
    assert!(matches!(verdict, Err(AppendError::Conflict)), "{verdict:?}");
    log.append(&key, seq, &new).await.unwrap();
}

async fn events_have_a_size_limit<L: EventLog>(log: Arc<L>) {
    let of_size = |bytes: usize| {
        let with = |text: String| Event::TurnRequested(TurnRequested { message: text, ..request(10) });
        let frame = encode_payload(&with(String::new())).len();
        with("x".repeat(bytes - frame))
    };
    let key = new_key("acme");
    let too_large = log.append(&key, 0, &new_event(of_size(limits::EVENT_MAX_BYTES + 1))).await;
    assert!(matches!(too_large, Err(AppendError::TooLarge { max: limits::EVENT_MAX_BYTES })), "{too_large:?}");
    assert_eq!(last(&*log, &key).await, None);
    let largest = of_size(limits::EVENT_MAX_BYTES);
    append_all(&*log, &key, vec![largest.clone()]).await;
    assert_eq!(last(&*log, &key).await.unwrap().recorded.event, largest);
}

async fn conversations_are_isolated<L: EventLog>(log: Arc<L>) {
    let keys: Vec<_> = (0..3).map(|_| new_key("acme")).collect();
    let mut expected = vec![0; keys.len()];
    for round in 0..3 {
        for (key, expected) in keys.iter().zip(&mut expected) {
            *expected = log.append(key, *expected, &new_event(requested(round))).await.unwrap().seq;
        }
    }
    for (key, seq) in keys.iter().zip(expected) {
        assert_eq!(last(&*log, key).await.unwrap().recorded.seq, seq);
    }
}

async fn organisations_with_alike_names_do_not_see_each_other<L: EventLog>(log: Arc<L>) {
    let conversation = new_key("acme").conversation;
    let names = ["acme", "acme.eu", "acme eu", "acme.", "*", ">", "a", "", "ACME", "acme=2E", "\u{e9}"];
    let keys = names.map(|org| ConversationKey { conversation, ..new_key(org) });
    let mut seqs = Vec::new();
    for key in &keys {
        assert_eq!(last(&*log, key).await, None, "{:?}", key.org);
        seqs.push(log.append(key, 0, &new_event(opened())).await.unwrap().seq);
    }
    for (key, seq) in keys.iter().zip(seqs) {
        assert_eq!(last(&*log, key).await.unwrap().recorded.seq, seq, "{:?}", key.org);
    }
}

async fn a_sequence_of_another_conversation_is_not_there<L: EventLog>(log: Arc<L>) {
    let (own, other) = (new_key("acme"), new_key("acme"));
    let elsewhere = ConversationKey { org: "other".into(), ..own.clone() };
    append_all(&*log, &own, vec![opened()]).await;
    for key in [&other, &elsewhere] {
        let seq = append_all(&*log, key, vec![opened()]).await[0];
        assert!(at(&*log, key, seq).await.is_some());
        assert_eq!(at(&*log, &own, seq).await, None, "{:?}", key.org);
    }
}

/// Cases that the log in memory lacks: messages in the stream that are no events, and a server that dies.
mod only_over_nats {
    use super::*;
    use turnstream::{
        subjects,
        wire::stored::{EventEnvelope, MSG_ID, encode},
    };

    #[tokio::test]
    async fn a_session_record_is_no_event() {
        let server = Server::start().await;
        let log = server.log();
        let subject = subjects::session(REGION, id(3));
        log.put(&subject, "session-3", &[], "{}".into()).await.unwrap();
        for via in BOTH {
            assert_eq!(log.at(&new_key("acme"), 1, via).await.unwrap(), None);
        }
    }

    /// The writer does not keep the append rule: its `ce-prev` is the event itself.
    #[tokio::test]
    async fn an_event_that_is_its_own_predecessor_is_no_link_of_the_chain() {
        let server = Server::start().await;
        let (log, key) = (server.log(), new_key("acme"));
        let (source, time) = ("/test".into(), second(1));
        let envelope = EventEnvelope {
            id: "loop".into(),
            source,
            time,
            conversation: key.conversation,
            prev: 1,
            prev_digest: None,
        };
        let (headers, payload) = encode(&envelope, &opened());
        let headers = headers.iter().filter(|(name, _)| *name != MSG_ID).map(|(name, value)| (*name, value.as_str()));
        log.put(&key.event("session.opened"), "loop", &headers.collect::<Vec<_>>(), payload).await.unwrap();
        for via in BOTH {
            let last = log.last(&key, via).await.unwrap().unwrap();
            assert_eq!((last.is_linked, last.envelope.prev), (false, 0));
        }
    }

    #[tokio::test]
    async fn a_repeated_put_is_one_message() {
        let server = Server::start().await;
        let log = server.log();
        let subject = subjects::session(REGION, id(3));
        log.put(&subject, "session-3", &[], "first".into()).await.unwrap();
        log.put(&subject, "session-3", &[], "second".into()).await.unwrap();
        let query = serde_json::json!({ "last_by_subj": subject });
        let stream = subjects::stream_name(turnstream::nats::streams::CHAT, REGION);
        for via in BOTH {
            let message = log.get(&stream, &query, via).await.unwrap().unwrap();
            assert_eq!((message.seq, message.payload.as_ref()), (1, b"first".as_ref()));
        }
    }

    #[tokio::test]
    async fn a_killed_server_keeps_its_messages() {
        let mut server = Server::start().await;
        let (log, key) = (server.log(), new_key("acme"));
        let seq = append_all(&log, &key, vec![opened()]).await[0];
        let before = last(&log, &key).await;
        server.crash().await;
        assert_eq!(last(&log, &key).await, before);
        let next = log.append(&key, seq, &new_event(requested(10))).await.unwrap().seq;
        assert_eq!(last(&log, &key).await.unwrap().recorded.seq, next);
    }
}
