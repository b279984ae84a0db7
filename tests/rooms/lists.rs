//! Pages of lists that are longer than one request can read.

use std::time::Duration;

use async_nats::jetstream::{self, AckKind, consumer::pull};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use turnstream::{
    domain::{
        Event,
        event::{TurnStarted, Usage},
    },
    limits,
    lists::{
        ConversationLists, ListEntry, ListPage, ListPosition, STREAM,
        indexer::{CONSUMER, ListIndex, ListIndexer},
        query::ListQuery,
    },
    log::conversations::Conversations,
    subjects::{self, ConversationKey, OwnerScope},
};

use crate::{
    load::append,
    support::{WAIT_MAX, samples::*, server::Server},
};

const ORG: &str = "a large org.";
const OWNER: &str = "ada@example.org";

/// Returns entry `n`; smaller numbers are newer.
///
/// The first 1,500 share a day, the others have a day each, with gaps of a year.
fn entry(n: u64, newest: DateTime<Utc>) -> ListEntry {
    let days = n.saturating_sub(1_499) + 365 * (n / 1_600);
    ListEntry {
        conversation: new_key(ORG).conversation,
        last_seq: n + 1,
        title: format!("conversation {n}"),
        owner: Some(OWNER.into()).filter(|_| n.is_multiple_of(2)),
        created_at: newest,
        updated_at: newest - TimeDelta::days(days as i64) - TimeDelta::milliseconds(n as i64),
        message_count: 2,
        encrypted: None,
    }
}

async fn put(server: &Server, entry: &ListEntry) {
    let key = ConversationKey { conversation: entry.conversation, ..new_key(ORG) };
    let payload = serde_json::to_vec(entry).unwrap();
    server.client.publish(entry.subject(&key), payload.into()).await.unwrap();
}

async fn all(lists: &ConversationLists, whose: OwnerScope<'_>, limit: usize, query: &str) -> Vec<String> {
    let (mut titles, mut after) = (Vec::new(), None::<ListPosition>);
    loop {
        let fits = |entry: &ListEntry| entry.title.contains(query);
        let ListPage { entries, next } = lists.page(ListQuery { org: ORG, whose, after, limit, fits }).await.unwrap();
        assert!(entries.len() <= limit);
        titles.extend(entries.into_iter().map(|entry| entry.title));
        match next {
            Some(_) => after = next,
            None => return titles,
        }
    }
}

#[tokio::test]
async fn a_list_of_thousands_is_paged_from_the_newest_to_the_oldest() {
    let server = Server::start().await;
    let newest = Utc::now().date_naive().and_hms_opt(23, 59, 59).unwrap().and_utc();
    let entries: Vec<ListEntry> = (0..1_800).map(|n| entry(n, newest)).collect();
    for entry in &entries {
        put(&server, entry).await;
    }
    // An outdated entry of a conversation that is being moved does not count.
    put(&server, &ListEntry { last_seq: 1, owner: None, title: "of the past".into(), ..entries[2].clone() }).await;
    let stream = async_nats::jetstream::new(server.client.clone());
    while stream.get_stream(STREAM).await.unwrap().cached_info().state.messages < 1_801 {}

    let lists = ConversationLists::new(server.log());
    let titles = |fits: &dyn Fn(&ListEntry) -> bool| -> Vec<String> {
        entries.iter().filter(|entry| fits(entry)).map(|entry| entry.title.clone()).collect()
    };
    assert_eq!(all(&lists, OwnerScope::Everybody, 200, "").await, titles(&|_| true));
    assert_eq!(all(&lists, OwnerScope::Owner(OWNER), 200, "").await, titles(&|entry| entry.owner.is_some()));
    assert_eq!(all(&lists, OwnerScope::Everybody, 7, "99").await, titles(&|entry| entry.title.contains("99")));
    assert_eq!(all(&lists, OwnerScope::Owner("eve@example.org"), 7, "").await, [""; 0]);
    let found = lists.find(ORG, entries[2].conversation).await.unwrap();
    assert_eq!(found.as_ref(), Some(&entries[2]));
}

/// The server drops its record of a message id after a while, and the event is redelivered later.
///
/// The worker had counted the event, written the entry, and died before its ack.
#[tokio::test]
async fn tokens_are_counted_once_beyond_the_duplicate_window() {
    let server = Server::start().await;
    let context = jetstream::new(server.client.clone());
    let counters = context.get_stream("COUNTERS").await.unwrap().cached_info().config.clone();
    let forgetful = jetstream::stream::Config { duplicate_window: Duration::from_millis(100), ..counters };
    context.update_stream(forgetful).await.unwrap();
    let (log, key) = (server.log(), new_key(ORG));
    append(&log, &key, opened()).await;
    append(&log, &key, requested(10)).await;
    let mut answered = completed(10, 3, "answer");
    if let Event::TurnCompleted(completed) = &mut answered {
        completed.usage = Some(Usage { prompt_tokens: 30, completion_tokens: 12, ..Usage::default() });
    }
    let started = TurnStarted { turn: id(10), worker: id(7), item: 2 };
    append(&log, &key, Event::TurnStarted(started)).await;
    let seq = append(&log, &key, answered).await;

    let stream = context.get_stream("CHAT_local").await.unwrap();
    let mut consumer = stream.get_consumer::<pull::Config>(CONSUMER).await.unwrap();
    let event = consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    let subject = subjects::count_tokens(ORG, Utc::now().date_naive());
    log.count(&subject, 42, &format!("tokens-{}-{seq}", key.conversation)).await.unwrap();
    let index = ListIndex { conversations: Conversations::over_nats(log.clone()), log: log.clone() };
    index.update(&key, seq).await.unwrap();
    // A later id that is counted again shows that the earlier one is forgotten, too.
    let other = subjects::count_tokens("another", Utc::now().date_naive());
    log.count(&other, 1, "later").await.unwrap();
    while log.count(&other, 1, "later").await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    event.ack_with(AckKind::Nak(None)).await.unwrap();

    let later = server.log_ahead(TimeDelta::seconds(2 * limits::COUNTED_ONCE_SECS)).await;
    let index = ListIndex { conversations: Conversations::over_nats(later.clone()), log: later.clone() };
    let indexer = ListIndexer { client: later.client(), index, region: REGION.into(), counts_tokens: true };
    let indexer = tokio::spawn(indexer.run());
    let began = std::time::Instant::now();
    while consumer.info().await.unwrap().ack_floor.stream_sequence < seq {
        assert!(began.elapsed() < WAIT_MAX, "the event is acknowledged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    indexer.abort();
    assert_eq!(log.counted(&subject).await.unwrap(), [(subject.clone(), 42)]);
}
