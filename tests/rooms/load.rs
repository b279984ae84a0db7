//! Loading and deciding: the fold equals the log, no matter the contents of the caches.

use std::sync::Arc;

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use turnstream::{
    domain::{Command, Conversation, Event, Message, Refusal, event::TurnRequested},
    limits,
    log::{
        EventLog, NewEvent,
        conversations::{Conversations, EventAuthor, ExecuteError, Freshness},
        memory::MemoryLog,
    },
    nats::{ReadError, ReadFrom},
    subjects::ConversationKey,
};

use crate::support::{
    samples::*,
    server::Server,
    spy::{Seen, Spy},
};

const ANY: Freshness = Freshness::AtLeast(0);

pub fn author() -> EventAuthor {
    EventAuthor {
        source: "/test".into(),
        event_id: turnstream::ids::event_id(turnstream::ids::new_random(), 0),
        not_after: None,
    }
}

/// Appends an event as another process would, without passing through the caches under test.
pub async fn append(log: &impl EventLog, key: &ConversationKey, event: Event) -> u64 {
    let last = log.last(key, ReadFrom::Leader).await.unwrap();
    let (expected, prev_digest) = last.map_or_else(Default::default, |last| (last.recorded.seq, last.recorded.digest));
    let EventAuthor { source, event_id, .. } = author();
    let new = NewEvent { id: event_id, source, time: second(1), prev_digest, event };
    log.append(key, expected, &new).await.unwrap().seq
}

/// Appends these turns with a question and an answer each.
pub async fn append_turns(log: &impl EventLog, key: &ConversationKey, turns: std::ops::Range<u64>) {
    for n in turns {
        let item = append(log, key, requested(n)).await;
        let started = turnstream::domain::event::TurnStarted { turn: id(n), worker: id(7), item };
        let epoch = append(log, key, Event::TurnStarted(started)).await;
        append(log, key, completed(n, epoch, &format!("answer {n}"))).await;
    }
}

/// Returns the fold computed by definition: every event of the conversation's chain, from the first.
pub async fn fold(log: &impl EventLog, key: &ConversationKey) -> Conversation {
    let mut chain = Vec::new();
    let mut next = log.last(key, ReadFrom::Leader).await.unwrap();
    while let Some(stored) = next {
        next = match stored.envelope.prev {
            0 => None,
            prev => log.at(key, prev, ReadFrom::Leader).await.unwrap(),
        };
        chain.push(stored.recorded);
    }
    let mut state = Conversation::default();
    chain.iter().rev().for_each(|recorded| state.evolve(recorded));
    state
}

#[tokio::test]
async fn a_load_equals_the_fold_for_any_state_in_memory() {
    const TURNS: u64 = 3;
    for known in 0..=TURNS {
        let (spy, key) = (Spy::default(), new_key("acme"));
        append_turns(&spy, &key, 10..10 + known).await;
        let conversations = Conversations::new(spy.clone());
        conversations.load(&key, ANY).await.unwrap();
        append_turns(&spy, &key, 10 + known..10 + TURNS).await;
        for freshness in [ANY, Freshness::Leader] {
            assert_eq!(*conversations.load(&key, freshness).await.unwrap(), fold(&spy, &key).await);
        }
    }
}

#[tokio::test]
async fn concurrent_loads_of_a_conversation_read_it_once() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    append_turns(&spy, &key, 10..40).await;
    let expected = fold(&spy, &key).await;
    let conversations = Conversations::new(spy.clone());
    spy.forget_reads();
    let loads = (0..50).map(|_| conversations.load(&key, ANY));
    for loaded in futures_util::future::join_all(loads).await {
        assert_eq!(*loaded.unwrap(), expected);
    }
    let links = spy.reads().iter().filter(|read| matches!(read, Seen::At(_))).count();
    assert_eq!(links, 3 * 30 - 1, "the chain of three events a turn was followed once");
}

/// Counts the reads of single events and of batches.
fn links_and_batches(spy: &Spy) -> (usize, usize) {
    let count = |is: fn(&Seen) -> bool| spy.reads().iter().filter(|seen| is(seen)).count();
    (count(|seen| matches!(seen, Seen::At(_))), count(|seen| *seen == Seen::After))
}

#[tokio::test]
async fn a_long_conversation_is_folded_as_it_is_read() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    append(&spy, &key, opened()).await;
    // Chain lengths: the limit, one event more, and two and a half batches.
    for events in [limits::CHAIN_EVENTS, limits::CHAIN_EVENTS + 1, limits::READ_BATCH * 5 / 2] {
        while spy.last(&key, ReadFrom::Leader).await.unwrap().unwrap().recorded.seq < events as u64 {
            append(&spy, &key, opened()).await;
        }
        let conversations = Conversations::new(spy.clone());
        spy.forget_reads();
        let loaded = conversations.load(&key, ANY).await.unwrap();
        let (links, batches) = links_and_batches(&spy);
        let expected = match events > limits::CHAIN_EVENTS {
            true => (limits::CHAIN_EVENTS - 1, events.div_ceil(limits::READ_BATCH)),
            false => (events - 1, 0),
        };
        assert_eq!((links, batches), expected, "{events} events");
        assert_eq!(*loaded, fold(&spy, &key).await, "{events} events");
    }
}

#[tokio::test]
async fn a_large_conversation_is_folded_as_it_is_read() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    append_large_turn(&spy, &key, 10, 2 * limits::CHAIN_BYTES).await;
    let conversations = Conversations::new(spy.clone());
    spy.forget_reads();
    let loaded = conversations.load(&key, ANY).await.unwrap();
    let (links, batches) = links_and_batches(&spy);
    let of_half = limits::CHAIN_BYTES / limits::TOOL_RESULT_MAX_BYTES;
    assert!(links <= 3 * of_half + 3 && batches > 0, "{links} links of some {} were held", 6 * of_half);
    assert_eq!(*loaded, fold(&spy, &key).await);
}

/// Returns an event of any kind; events that do not fit are ignored by the fold.
fn any_event(random: &mut impl RngExt, last: u64) -> Event {
    let (n, epoch) = (random.random_range(10..13), last.saturating_sub(random.random_range(0..3)));
    match random.random_range(0..9) {
        0 => opened(),
        1 | 2 => requested(n),
        3 => Event::TurnStarted(turnstream::domain::event::TurnStarted { turn: id(n), worker: id(7), item: last }),
        4 => replied(n, epoch, vec![call("a"), gated("b")]),
        5 => returned(n, epoch, "a"),
        6 => parked(n, epoch, "b", 50),
        7 => released(n, epoch),
        _ => completed(n, epoch, "answer"),
    }
}

#[tokio::test]
async fn a_chain_is_folded_alike_in_batches_of_any_size() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..100 {
        let (spy, key) = (Spy::default(), new_key("acme"));
        let mut last = append(&spy, &key, opened()).await;
        let all: Vec<_> = [1, 2, 5, 1_000].map(|held| Conversations::new(spy.clone()).with_chain_events(held)).into();
        for _ in 0..random.random_range(1..40) {
            last = append(&spy, &key, any_event(&mut random, last)).await;
            // Some of the readers already cache a prefix.
            for conversations in &all {
                if random.random_bool(0.1) {
                    conversations.load(&key, ANY).await.unwrap();
                }
            }
        }
        let expected = fold(&spy, &key).await;
        for conversations in &all {
            assert_eq!(*conversations.load(&key, Freshness::Leader).await.unwrap(), expected);
        }
    }
}

/// Appends an active turn with `bytes` bytes of tool results.
async fn append_large_turn(log: &impl EventLog, key: &ConversationKey, n: u64, bytes: usize) {
    let item = append(log, key, requested(n)).await;
    let started = turnstream::domain::event::TurnStarted { turn: id(n), worker: id(7), item };
    let epoch = append(log, key, Event::TurnStarted(started)).await;
    for k in 0..bytes.div_ceil(limits::TOOL_RESULT_MAX_BYTES) {
        let name = format!("call-{k}");
        append(log, key, replied(n, epoch, vec![call(&name)])).await;
        append(log, key, called(n, epoch, &name)).await;
        let mut result = returned(n, epoch, &name);
        if let Event::TurnToolReturned(returned) = &mut result {
            returned.result = "x".repeat(limits::TOOL_RESULT_MAX_BYTES);
        }
        append(log, key, result).await;
    }
}

#[tokio::test]
async fn a_fold_larger_than_the_cache_is_kept() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    let bytes = limits::FOLDS_CACHED_BYTES as usize + limits::TOOL_RESULT_MAX_BYTES;
    append_large_turn(&spy, &key, 10, bytes).await;
    let conversations = Conversations::new(spy.clone());
    let loaded = conversations.load(&key, ANY).await.unwrap();
    assert!(loaded.memory_bytes() as u64 > limits::FOLDS_CACHED_BYTES);
    // These loads make the cache evict its entries.
    for _ in 0..1_000 {
        conversations.load(&new_key("acme"), ANY).await.unwrap();
    }
    spy.forget_reads();
    assert_eq!(conversations.load(&key, ANY).await.unwrap().last_seq, loaded.last_seq);
    assert_eq!(spy.reads(), [Seen::Last(ReadFrom::Replica)]);
}

#[tokio::test]
async fn a_missing_conversation_is_empty() {
    let conversations = Conversations::new(MemoryLog::default());
    for freshness in [ANY, Freshness::Leader] {
        let state = conversations.load(&new_key("acme"), freshness).await.unwrap();
        assert_eq!((&*state, state.exists()), (&Conversation::default(), false));
    }
}

#[tokio::test]
async fn the_same_id_in_another_organisation_is_another_conversation() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    append(&spy, &key, opened()).await;
    append_turns(&spy, &key, 10..11).await;
    let conversations = Conversations::new(spy);
    assert!(conversations.load(&key, ANY).await.unwrap().exists());
    let elsewhere = ConversationKey { org: "other".into(), ..key };
    assert!(!conversations.load(&elsewhere, ANY).await.unwrap().exists());
}

#[tokio::test]
async fn state_in_memory_beyond_the_log_is_dropped() {
    // A log that was restored from a backup lacks later events.
    let (spy, key) = (Spy::default(), new_key("acme"));
    append_turns(&spy, &key, 10..12).await;
    let conversations = Conversations::new(spy.clone());
    conversations.load(&key, ANY).await.unwrap();
    spy.restore(MemoryLog::default());
    append_turns(&spy, &key, 20..21).await;
    for freshness in [ANY, Freshness::Leader] {
        assert_eq!(*conversations.load(&key, freshness).await.unwrap(), fold(&spy, &key).await);
    }
    let state = conversations.load(&key, ANY).await.unwrap();
    let executed = conversations.execute(&key, state, &Command::Request(request(21)), &author()).await.unwrap();
    assert_eq!(*executed.state, fold(&spy, &key).await);
}

#[tokio::test]
async fn a_load_waits_for_the_callers_sequence() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    append(&spy, &key, opened()).await;
    append_turns(&spy, &key, 10..11).await;
    spy.replicas_see(3);
    let conversations = Conversations::new(spy.clone());
    assert_eq!(conversations.load(&key, ANY).await.unwrap().last_seq, 3);
    assert_eq!(conversations.load(&key, Freshness::AtLeast(4)).await.unwrap().last_seq, 4);
    // A lagging replica does not make this process forget events that it has read.
    assert_eq!(conversations.load(&key, ANY).await.unwrap().last_seq, 4);
}

#[tokio::test]
async fn a_load_of_a_missing_sequence_gives_up() {
    tokio::time::pause();
    let conversations = Conversations::new(MemoryLog::default());
    let loaded = conversations.load(&new_key("acme"), Freshness::AtLeast(7)).await;
    assert!(matches!(loaded, Err(ReadError::Unavailable(_))), "{loaded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_authors_on_one_conversation_all_get_through() {
    const DECIDERS: usize = 20;
    let server = Server::start().await;
    let key = new_key("acme");
    // The tasks of each of the two processes share a cache.
    let processes = [Conversations::over_nats(server.log()), Conversations::over_nats(server.log())];
    let tasks = (0..DECIDERS).map(|n| {
        let (conversations, key) = (processes[n % 2].clone(), key.clone());
        tokio::spawn(async move {
            let command = Command::Open(session());
            conversations.execute(&key, Arc::default(), &command, &author()).await.unwrap().recorded.seq
        })
    });
    let mut seqs: Vec<u64> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    seqs.sort_unstable();
    let mut chain = Vec::new();
    let mut next = server.log().last(&key, ReadFrom::Leader).await.unwrap();
    while let Some(stored) = next {
        chain.push(stored.recorded.seq);
        next = match stored.envelope.prev {
            0 => None,
            prev => server.log().at(&key, prev, ReadFrom::Leader).await.unwrap(),
        };
    }
    chain.reverse();
    assert_eq!((chain.len(), chain), (DECIDERS, seqs));
    for conversations in processes {
        assert_eq!(*conversations.load(&key, Freshness::Leader).await.unwrap(), fold(&server.log(), &key).await);
    }
}

#[tokio::test]
async fn a_refusal_is_confirmed_by_the_leader() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    append(&spy, &key, requested(10)).await;
    let conversations = Conversations::new(spy.clone());
    let busy = conversations.load(&key, ANY).await.unwrap();
    spy.forget_reads();
    let refused = conversations.execute(&key, busy.clone(), &Command::Request(request(11)), &author()).await;
    assert!(matches!(refused, Err(ExecuteError::Refused(Refusal::TurnInProgress))));
    assert_eq!(spy.reads(), [Seen::Last(ReadFrom::Leader)]);
    // Another process ends the turn; a lagging replica must not make this process refuse the next one.
    spy.replicas_see(busy.last_seq);
    let cancelled = turnstream::domain::event::TurnCancelled {
        turn: id(10),
        request_id: "r".into(),
        by: id(3),
        reason: None,
        not_after: None,
    };
    append(&spy, &key, Event::TurnCancelled(cancelled)).await;
    let accepted = conversations.execute(&key, busy, &Command::Request(request(11)), &author()).await.unwrap();
    assert_eq!(accepted.state.turn.as_ref().unwrap().request.turn, id(11));
}

#[tokio::test]
async fn an_accepted_command_reads_nothing() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    let conversations = Conversations::new(spy.clone());
    let opened = conversations.execute(&key, Arc::default(), &Command::Open(session()), &author()).await.unwrap();
    conversations.execute(&key, opened.state, &Command::Request(request(10)), &author()).await.unwrap();
    assert_eq!(spy.reads(), []);
    assert_eq!(*conversations.cached(&key).unwrap(), fold(&spy, &key).await, "made and read folds are equal");
}

#[tokio::test]
async fn the_log_decides_whether_a_request_was_late() {
    // The ack arrives after the deadline, but the log stored the event before.
    let (spy, key) = (Spy::default(), new_key("acme"));
    let not_after = chrono::Utc::now() - chrono::TimeDelta::seconds(1);
    spy.events_are_stored_at(not_after);
    let conversations = Conversations::new(spy.clone());
    let command = Command::Request(TurnRequested { not_after, ..request(10) });
    let executed = conversations.execute(&key, Arc::default(), &command, &author()).await.unwrap();
    assert_eq!(*executed.state, fold(&spy, &key).await);
    assert!(executed.state.turn.is_some());
}

#[tokio::test]
async fn a_request_that_the_fold_has_forgotten_is_not_stored_twice() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    let conversations = Conversations::new(spy.clone());
    let (command, same) = (Command::Request(request(0)), author());
    let first = conversations.execute(&key, Arc::default(), &command, &same).await.unwrap();
    let cancel = Command::Cancel { turn: id(0), by: id(3) };
    conversations.execute(&key, first.state, &cancel, &author()).await.unwrap();
    append_turns(&spy, &key, 10..10 + limits::FOLD_REQUESTS as u64).await;
    let state = conversations.load(&key, ANY).await.unwrap();
    assert_eq!(state.finished_turn(id(0)), None);
    let again = conversations.execute(&key, state.clone(), &command, &same).await;
    assert!(matches!(again, Err(ExecuteError::Contended)));
    assert_eq!(fold(&spy, &key).await, *state);
}

#[tokio::test]
async fn pages_reach_every_message_in_memory() {
    pages_reach_every_message(Spy::default()).await;
}

#[tokio::test]
async fn pages_reach_every_message_over_nats() {
    let server = Server::start().await;
    pages_reach_every_message(server.log()).await;
}

async fn pages_reach_every_message<L: EventLog + Clone>(log: L) {
    let key = new_key("acme");
    let turns = limits::FOLD_MESSAGES as u64;
    append_turns(&log, &key, 0..turns).await;
    let conversations = Conversations::new(log);
    let state = conversations.load(&key, ANY).await.unwrap();
    assert!(!state.older.is_empty());
    let expected: Vec<String> =
        (0..turns).rev().flat_map(|n| [format!("answer {n}"), format!("question {n}")]).collect();
    for limit in [1, 7, 50, 100, 101] {
        let mut texts = Vec::new();
        let mut before = None;
        loop {
            let (page, more) = conversations.messages(&key, &state, before, limit).await.unwrap();
            texts.extend(page.iter().map(Message::text));
            assert_eq!(more, texts.len() < expected.len(), "limit {limit}, after {}", texts.len());
            before = page.last().map(|message| message.seq);
            if !more {
                break;
            }
            assert_eq!(page.len(), limit);
        }
        assert_eq!(texts, expected, "limit {limit}");
    }
    let first = state.older[0];
    assert_eq!(conversations.messages(&key, &state, Some(first), 10).await.unwrap(), (vec![], false));
}

#[tokio::test]
async fn an_empty_history_has_one_empty_page() {
    let (spy, key) = (Spy::default(), new_key("acme"));
    append(&spy, &key, opened()).await;
    let conversations = Conversations::new(spy);
    let state = conversations.load(&key, ANY).await.unwrap();
    assert_eq!(conversations.messages(&key, &state, None, 50).await.unwrap(), (vec![], false));
}
