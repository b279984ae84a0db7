//! Pages of lists that one request could not read.

use chrono::{DateTime, TimeDelta, Utc};
use turnstream::{
    lists::{Entry, Lists, Page, Place, STREAM, read::Wanted},
    subjects::{ConversationKey, Whose},
};

use crate::support::{samples::*, server::Server};

const ORG: &str = "a large org.";
const OWNER: &str = "ada@example.org";

/// Entry `n`; the smaller the newer. The first 1,500 are of one day, the others of one day each, with gaps of a year.
fn entry(n: u64, newest: DateTime<Utc>) -> Entry {
    let days = n.saturating_sub(1_499) + 365 * (n / 1_600);
    Entry {
        conversation: new_key(ORG).conversation,
        last_seq: n + 1,
        title: format!("conversation {n}"),
        owner: Some(OWNER.into()).filter(|_| n.is_multiple_of(2)),
        created_at: newest,
        updated_at: newest - TimeDelta::days(days as i64) - TimeDelta::milliseconds(n as i64),
        message_count: 2,
        sealed: None,
    }
}

async fn put(server: &Server, entry: &Entry) {
    let key = ConversationKey { conversation: entry.conversation, ..new_key(ORG) };
    let payload = serde_json::to_vec(entry).unwrap();
    server.client.publish(entry.subject(&key), payload.into()).await.unwrap();
}

async fn all(lists: &Lists, whose: Whose<'_>, limit: usize, query: &str) -> Vec<String> {
    let (mut titles, mut after) = (Vec::new(), None::<Place>);
    loop {
        let fits = |entry: &Entry| entry.title.contains(query);
        let Page { entries, next } = lists.page(Wanted { org: ORG, whose, after, limit, fits }).await.unwrap();
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
    let entries: Vec<Entry> = (0..1_800).map(|n| entry(n, newest)).collect();
    for entry in &entries {
        put(&server, entry).await;
    }
    // What has a newer form elsewhere, as while it moves, does not count.
    put(&server, &Entry { last_seq: 1, owner: None, title: "of the past".into(), ..entries[2].clone() }).await;
    let stream = async_nats::jetstream::new(server.client.clone());
    while stream.get_stream(STREAM).await.unwrap().cached_info().state.messages < 1_801 {}

    let lists = Lists::new(server.log());
    let titles = |fits: &dyn Fn(&Entry) -> bool| -> Vec<String> {
        entries.iter().filter(|entry| fits(entry)).map(|entry| entry.title.clone()).collect()
    };
    assert_eq!(all(&lists, Whose::Everybody, 200, "").await, titles(&|_| true));
    assert_eq!(all(&lists, Whose::Owner(OWNER), 200, "").await, titles(&|entry| entry.owner.is_some()));
    assert_eq!(all(&lists, Whose::Everybody, 7, "99").await, titles(&|entry| entry.title.contains("99")));
    assert_eq!(all(&lists, Whose::Owner("eve@example.org"), 7, "").await, [""; 0]);
    let found = lists.find(ORG, entries[2].conversation).await.unwrap();
    assert_eq!(found.as_ref(), Some(&entries[2]));
}
