//! Retention sweeps: batch by batch, no conversation twice, and a conversation that can't be erased does not stop the others.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use turnstream::{
    config::{Config, PrivacyConfig},
    log::jetstream_log::NatsLog,
    privacy::{
        ledger::{HoldTarget, Ledger, LedgerAction, LedgerEntry},
        sweep::{ExtentTally, RetentionSweep, SweepEvent, SweepReport},
    },
    subjects::{self, ConversationKey, OwnerScope},
};
use uuid::Uuid;

use crate::{
    load::append,
    support::{samples::*, server::Server},
};

const LEDGER: &str = "AUDIT_local";

fn privacy() -> PrivacyConfig {
    let value = |name: &str| (name == "SMOOTH_AGENT_RETAIN_DAYS").then(|| "30".to_string());
    Config::from_source(&value).unwrap().privacy
}

/// Returns a time at which everything in these tests is due.
fn later() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(31)
}

async fn conversations(log: &NatsLog, count: usize) -> BTreeSet<Uuid> {
    let mut all = BTreeSet::new();
    for _ in 0..count {
        let key = new_key("acme");
        append(log, &key, opened()).await;
        all.insert(key.conversation);
    }
    all
}

async fn ledger(log: &NatsLog) -> Ledger {
    Ledger::read(log.clone(), REGION).await.unwrap()
}

/// Sweeps; returns the tally and the conversations that could not be erased.
async fn sweep(log: &NatsLog, ledger: &mut Ledger, at: DateTime<Utc>, batch: usize) -> (SweepReport, BTreeSet<Uuid>) {
    let (privacy, failed) = (privacy(), RefCell::new(BTreeSet::new()));
    let sweep = RetentionSweep { log, region: REGION, privacy: &privacy, at, dry_run: false, batch };
    let told = |told| {
        if let SweepEvent::Failed { conversation, .. } = told {
            failed.borrow_mut().insert(conversation);
        }
    };
    let swept = sweep.run(ledger, &told).await.unwrap();
    (swept, failed.into_inner())
}

/// Returns the conversations of each erasure in the ledger, and the count of completed erasures.
async fn erasures(log: &NatsLog) -> (Vec<BTreeSet<Uuid>>, usize) {
    let (messages, _) = log.next_of(LEDGER, &subjects::audit_privacy_all(REGION), 1).await.unwrap();
    let entries: Vec<LedgerEntry> = messages.iter().filter_map(|m| serde_json::from_slice(&m.payload).ok()).collect();
    let completed = entries.iter().filter(|entry| matches!(entry.deed, LedgerAction::EraseCompleted { .. })).count();
    let requested = entries.into_iter().filter_map(|entry| match entry.deed {
        LedgerAction::EraseRequested { conversations, .. } => Some(conversations),
        _ => None,
    });
    (requested.collect(), completed)
}

/// Returns the conversations that still have a key.
async fn readable(log: &NatsLog) -> BTreeSet<Uuid> {
    let (messages, _) = log.next_of("KV_KEYS", &subjects::keys_of(None), 1).await.unwrap();
    let there = messages.iter().filter(|message| {
        let kept: Value = serde_json::from_slice(&message.payload).unwrap();
        kept["key"].is_string()
    });
    there.map(|message| subjects::parse_key_of(&message.subject).unwrap().0).collect()
}

#[tokio::test]
async fn due_conversations_are_erased_batch_by_batch_and_once() {
    let server = Server::start().await;
    let log = server.encrypting_log();
    let all = conversations(&log, 53).await;
    let mut ledger = ledger(&log).await;
    assert_eq!(sweep(&log, &mut ledger, Utc::now(), 10).await.0, SweepReport::default(), "no conversation is due yet");
    let (swept, failed) = sweep(&log, &mut ledger, later(), 10).await;
    assert_eq!(swept.all, ExtentTally { due: 53, erased: 53, ..ExtentTally::default() });
    assert!(failed.is_empty() && readable(&log).await.is_empty());
    let (requested, completed) = erasures(&log).await;
    assert_eq!((requested.len(), completed), (6, 6));
    assert!(requested.iter().all(|conversations| conversations.len() <= 10));
    assert_eq!(requested.iter().map(BTreeSet::len).sum::<usize>(), 53, "no conversation twice");
    assert_eq!(requested.into_iter().flatten().collect::<BTreeSet<_>>(), all);
    assert_eq!(sweep(&log, &mut ledger, later(), 10).await.0, SweepReport::default());
}

/// More conversations than one request returns, events too large for one batch, and conversations with later events.
#[tokio::test]
async fn many_and_large_conversations_are_found() {
    const MANY: usize = 1_200;
    let server = Server::start().await;
    let log = server.encrypting_log();
    let mut all = conversations(&log, MANY).await;
    for n in 0..40 {
        let key = new_key("acme");
        append(&log, &key, opened()).await;
        let text = "x".repeat(turnstream::limits::REPLY_MAX_BYTES);
        append(&log, &key, completed(n, 1, &text)).await;
        all.insert(key.conversation);
    }
    let mut ledger = ledger(&log).await;
    let (swept, _) = sweep(&log, &mut ledger, later(), 500).await;
    assert_eq!(swept.all, ExtentTally { due: MANY as u64 + 40, erased: MANY as u64 + 40, ..ExtentTally::default() });
    let (requested, _) = erasures(&log).await;
    assert_eq!(requested.into_iter().flatten().collect::<BTreeSet<_>>(), all);
}

/// The conversation that can't be erased has more index entries than one erasure can remove.
#[tokio::test]
async fn a_conversation_that_can_not_be_erased_is_named_and_delays_no_other() {
    let server = Server::start().await;
    let log = server.encrypting_log();
    let all = conversations(&log, 20).await;
    let bad = *all.iter().nth(7).unwrap();
    let mut listed = BTreeMap::new();
    for n in 0..=turnstream::limits::READ_BATCH as i64 {
        let day = (Utc::now() - TimeDelta::days(n)).date_naive();
        let subject = subjects::kv("INDEX", &subjects::index_key("acme", None, day, bad));
        server.client.publish(subject.clone(), "{}".into()).await.unwrap();
        listed.insert(subject, ());
    }
    server.client.flush().await.unwrap();
    let mut first = ledger(&log).await;
    let (swept, failed) = sweep(&log, &mut first, later(), 10).await;
    assert_eq!(swept.all, ExtentTally { due: 20, erased: 19, failed: 1, ..ExtentTally::default() });
    assert_eq!((swept.failed(), failed), (1, BTreeSet::from([bad])));
    assert!(readable(&log).await.is_empty(), "the conversation's messages can't be read all the same");
    // The next sweep finds the open erasure and does not repeat the others.
    let mut second = ledger(&log).await;
    assert_eq!(second.open().len(), 1);
    let (swept, failed) = sweep(&log, &mut second, later(), 10).await;
    assert_eq!((swept.still_open, swept.all, failed), (1, ExtentTally::default(), BTreeSet::from([bad])));
    // Erasing works again once the surplus entries are purged.
    let index = async_nats::jetstream::new(server.client.clone()).get_stream("KV_INDEX").await.unwrap();
    let everywhere = subjects::kv("INDEX", &subjects::index_filter("acme", OwnerScope::Everybody, None));
    index.purge().filter(everywhere).await.unwrap();
    let (swept, _) = sweep(&log, &mut second, later(), 10).await;
    assert_eq!((swept, second.open().len()), (SweepReport::default(), 0));
    let (requested, completed) = erasures(&log).await;
    assert_eq!(requested.len(), completed);
}

/// The sweep learns of the hold on writing to the ledger.
#[tokio::test]
async fn a_hold_that_races_a_sweep_holds_and_stops_nothing() {
    let server = Server::start().await;
    let log = server.encrypting_log();
    let all = conversations(&log, 10).await;
    let mut sweeping = ledger(&log).await;
    let held = *all.first().unwrap();
    let deed = LedgerAction::HoldPlaced { hold: id(1), on: HoldTarget::Conversation(held), reason: "case 12".into() };
    let entry = LedgerEntry { at: Utc::now(), by: "test".into(), deed };
    ledger(&log).await.add(entry, &Default::default()).await.unwrap();
    let (swept, failed) = sweep(&log, &mut sweeping, later(), 4).await;
    assert_eq!(swept.all, ExtentTally { due: 10, held: 1, erased: 9, ..ExtentTally::default() });
    assert!(failed.is_empty());
    assert_eq!(readable(&log).await, BTreeSet::from([held]));
    let key = ConversationKey { conversation: held, ..new_key("acme") };
    append(&log, &key, opened()).await;
}
