//! Snapshots in the KV bucket: they save reads, and change no answer, valid or not.

use serde_json::{Value, json};
use turnstream::{
    domain::Conversation,
    limits,
    log::{
        conversations::{Conversations, FOLD_VERSION, Freshness},
        jetstream_log::NatsLog,
    },
    nats::ReadFrom,
    subjects::{self, ConversationKey},
};

use crate::{
    load::{append_turns, fold},
    support::{samples::*, server::Server},
};

const ANY: Freshness = Freshness::AtLeast(0);
/// Enough turns, of three events each, for a snapshot to be written.
const TURNS: u64 = limits::FOLD_CACHE_EVERY_EVENTS.div_ceil(3);

fn entry_subject(key: &ConversationKey) -> String {
    subjects::kv("CONVERSATIONS", &subjects::fold_key(key))
}

fn entry(version: u32, state: &Conversation) -> String {
    json!({ "version": version, "state": state }).to_string()
}

async fn put(log: &NatsLog, key: &ConversationKey, payload: String) {
    let id = turnstream::ids::new_random().to_string();
    log.put(&entry_subject(key), &id, &[], payload.into()).await.unwrap();
}

async fn delete(log: &NatsLog, key: &ConversationKey) {
    let id = turnstream::ids::new_random().to_string();
    log.put(&entry_subject(key), &id, &[("KV-Operation", "DEL")], "".into()).await.unwrap();
}

/// Returns the snapshot in the bucket.
async fn saved(log: &NatsLog, key: &ConversationKey) -> Option<Conversation> {
    let query = json!({ "last_by_subj": entry_subject(key) });
    let message = log.get("KV_CONVERSATIONS", &query, ReadFrom::Leader).await.unwrap()?;
    let form: Value = serde_json::from_slice(&message.payload).ok()?;
    serde_json::from_value(form["state"].clone()).ok()
}

#[tokio::test]
async fn a_load_equals_the_fold_for_any_stored_snapshot() {
    let server = Server::start().await;
    let (log, key, other) = (server.log(), new_key("acme"), new_key("acme"));
    append_turns(&log, &key, 10..11).await;
    let older = fold(&log, &key).await;
    append_turns(&log, &other, 20..21).await;
    let foreign = fold(&log, &other).await;
    append_turns(&log, &key, 11..13).await;
    let whole = fold(&log, &key).await;
    let ahead = Conversation { last_seq: whole.last_seq + 1_000, ..foreign.clone() };
    let cases = [
        ("the fold itself", entry(FOLD_VERSION, &whole)),
        ("an older fold", entry(FOLD_VERSION, &older)),
        ("the empty fold", entry(FOLD_VERSION, &Conversation::default())),
        ("another version", entry(FOLD_VERSION + 1, &Conversation { last_seq: whole.last_seq, ..foreign.clone() })),
        ("a fold of another log, behind", entry(FOLD_VERSION, &foreign)),
        ("a fold of another log, ahead", entry(FOLD_VERSION, &ahead)),
        ("garbage", format!("{{\"version\":{FOLD_VERSION},\"state\":")),
        ("nothing", String::new()),
    ];
    for (name, payload) in cases {
        put(&log, &key, payload).await;
        for freshness in [ANY, Freshness::AtLeast(whole.last_seq), Freshness::Leader] {
            let loaded = Conversations::over_nats(log.clone()).load(&key, freshness).await.unwrap();
            assert_eq!(*loaded, whole, "{name}, {freshness:?}");
        }
    }
    delete(&log, &key).await;
    assert_eq!(*Conversations::over_nats(log.clone()).load(&key, ANY).await.unwrap(), whole);
}

#[tokio::test]
async fn a_conversation_known_only_to_the_bucket_is_missing() {
    let server = Server::start().await;
    let (log, key, other) = (server.log(), new_key("acme"), new_key("acme"));
    append_turns(&log, &other, 20..21).await;
    put(&log, &key, entry(FOLD_VERSION, &fold(&log, &other).await)).await;
    for freshness in [ANY, Freshness::Leader] {
        let loaded = Conversations::over_nats(log.clone()).load(&key, freshness).await.unwrap();
        assert_eq!(*loaded, Conversation::default(), "{freshness:?}");
    }
}

#[tokio::test]
async fn a_fresh_process_starts_from_the_snapshot() {
    let server = Server::start().await;
    let (log, key) = (server.log(), new_key("acme"));
    let conversations = Conversations::over_nats(log.clone());
    append_turns(&log, &key, 10..11).await;
    conversations.load(&key, ANY).await.unwrap();
    conversations.save_snapshot(&key).await;
    assert_eq!(saved(&log, &key).await, None, "a few events are not worth a snapshot");
    append_turns(&log, &key, 11..11 + TURNS).await;
    let state = conversations.load(&key, ANY).await.unwrap();
    conversations.save_snapshot(&key).await;
    assert_eq!(saved(&log, &key).await.as_ref(), Some(&*state));
    // A mark that only the snapshot has shows that the snapshot is used.
    let marked = Conversation { supports: vec!["from the bucket".into()], ..(*state).clone() };
    put(&log, &key, entry(FOLD_VERSION, &marked)).await;
    append_turns(&log, &key, 100..101).await;
    let loaded = Conversations::over_nats(log.clone()).load(&key, ANY).await.unwrap();
    assert_eq!(loaded.supports, marked.supports);
    assert_eq!(loaded.last_seq, fold(&log, &key).await.last_seq);
}

#[tokio::test]
async fn an_unusable_snapshot_is_overwritten() {
    let server = Server::start().await;
    let log = server.log();
    let foreign = Conversation { last_seq: 1_000_000, ..Conversation::default() };
    for payload in [entry(FOLD_VERSION + 1, &foreign), entry(FOLD_VERSION, &foreign), "garbage".into(), String::new()] {
        let key = new_key("acme");
        put(&log, &key, payload.clone()).await;
        append_turns(&log, &key, 10..10 + TURNS).await;
        let conversations = Conversations::over_nats(log.clone());
        let state = conversations.load(&key, ANY).await.unwrap();
        conversations.save_snapshot(&key).await;
        assert_eq!(saved(&log, &key).await.as_ref(), Some(&*state), "{payload}");
    }
    let key = new_key("acme");
    append_turns(&log, &key, 10..10 + TURNS).await;
    delete(&log, &key).await;
    let conversations = Conversations::over_nats(log.clone());
    let state = conversations.load(&key, ANY).await.unwrap();
    conversations.save_snapshot(&key).await;
    assert_eq!(saved(&log, &key).await.as_ref(), Some(&*state));
}

#[tokio::test]
async fn the_bucket_never_goes_backwards() {
    let server = Server::start().await;
    let (log, key) = (server.log(), new_key("acme"));
    append_turns(&log, &key, 10..10 + TURNS).await;
    let slow = Conversations::over_nats(log.clone());
    slow.load(&key, ANY).await.unwrap();
    append_turns(&log, &key, 100..101).await;
    let fast = Conversations::over_nats(log.clone());
    let newest = fast.load(&key, ANY).await.unwrap();
    fast.save_snapshot(&key).await;
    slow.save_snapshot(&key).await;
    assert_eq!(saved(&log, &key).await.as_ref(), Some(&*newest));
    // The process that lost goes on from the winner's revision.
    append_turns(&log, &key, 200..200 + TURNS).await;
    let state = slow.load(&key, ANY).await.unwrap();
    slow.save_snapshot(&key).await;
    assert_eq!(saved(&log, &key).await.as_ref(), Some(&*state));
}

#[tokio::test]
async fn two_organisations_do_not_share_an_entry() {
    let server = Server::start().await;
    let (log, key) = (server.log(), new_key("acme"));
    append_turns(&log, &key, 10..10 + TURNS).await;
    let conversations = Conversations::over_nats(log.clone());
    conversations.load(&key, ANY).await.unwrap();
    conversations.save_snapshot(&key).await;
    let elsewhere = ConversationKey { org: "other".into(), ..key };
    assert!(!Conversations::over_nats(log).load(&elsewhere, ANY).await.unwrap().exists());
}
