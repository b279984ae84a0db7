//! Documents on a real nats-server: written whole, found only by permitted readers, and gone after deletion.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_nats::jetstream;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use turnstream::knowledge::{
    Acl, KnowledgeIndex, KnowledgeReader, KnowledgeStore, NewChunk, NewDocument, index::PassageQuery, indexer,
};

use crate::support::server::Server;

const WAIT_MAX: Duration = Duration::from_secs(30);

fn document(id: &str, acl: Acl) -> NewDocument {
    NewDocument {
        id: id.into(),
        title: id.into(),
        url: None,
        set: "default".into(),
        source: "test".into(),
        acl,
        hash: "h".into(),
        embedding_model: None,
    }
}

fn chunk(text: &str) -> NewChunk {
    NewChunk { headings: vec![], text: text.into(), vector: None }
}

fn of(org: &str) -> KnowledgeReader {
    KnowledgeReader { org: org.into(), ..KnowledgeReader::default() }
}

/// An index that follows the stream.
struct Follower {
    index: Arc<KnowledgeIndex>,
    caught_up: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Follower {
    fn start(server: &Server) -> Self {
        let index = Arc::new(KnowledgeIndex::new().unwrap());
        let (says, caught_up) = watch::channel(false);
        let task = tokio::spawn(indexer::run(server.client.clone(), index.clone(), says));
        Self { index, caught_up, task }
    }

    async fn caught_up(server: &Server) -> Self {
        let mut follower = Self::start(server);
        timeout(WAIT_MAX, follower.caught_up.wait_for(|caught_up| *caught_up)).await.expect("in time").unwrap();
        follower
    }

    fn find(&self, text: &str, reader: &KnowledgeReader) -> Vec<String> {
        let query = PassageQuery { text, vector: None, rerank: false };
        self.index.search(&query, reader, 10).unwrap().into_iter().map(|passage| passage.text).collect()
    }

    /// Waits until a query finds exactly the expected documents.
    async fn finds(&self, text: &str, reader: &KnowledgeReader, expected: &[&str]) {
        let found = async {
            while self.find(text, reader) != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(WAIT_MAX, found).await.unwrap_or_else(|_| panic!("{text} finds {:?}", self.find(text, reader)));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn every_index_finds_written_and_changed_documents() {
    let server = Server::start().await;
    let store = KnowledgeStore::new(server.client.clone());
    let (one, two) = (Follower::start(&server), Follower::start(&server));
    let reader = of("acme");
    store
        .put("acme", document("a.md", Acl::Public), vec![chunk("The window is 30 days."), chunk("Bring a receipt.")])
        .await
        .unwrap();
    for follower in [&one, &two] {
        follower.finds("windows", &reader, &["The window is 30 days."]).await;
        follower.finds("receipts", &reader, &["Bring a receipt."]).await;
    }
    store.put("acme", document("a.md", Acl::Public), vec![chunk("The window is 17 days.")]).await.unwrap();
    for follower in [&one, &two] {
        follower.finds("window", &reader, &["The window is 17 days."]).await;
        follower.finds("receipt", &reader, &[]).await;
    }
    // Chunks of the document's older version are gone from the stream.
    let stream = jetstream::new(server.client.clone()).get_stream("KNOWLEDGE").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);

    let heads = store.heads("acme").await.unwrap();
    assert_eq!((heads.len(), heads["a.md"].chunks), (1, 1));
    store.delete("acme", heads["a.md"].clone()).await.unwrap();
    for follower in [&one, &two] {
        follower.finds("window", &reader, &[]).await;
        assert!(follower.index.is_empty("acme"));
    }
    assert!(store.heads("acme").await.unwrap().is_empty());
    // A new index knows the same documents.
    assert_eq!(Follower::caught_up(&server).await.find("window", &reader), [""; 0]);
}

#[tokio::test]
async fn a_new_index_answers_like_an_old_one() {
    let server = Server::start().await;
    let store = KnowledgeStore::new(server.client.clone());
    let old = Follower::start(&server);
    for n in 0..50 {
        let text = format!("Document {n} is about topic{} and nothing else.", n % 7);
        store.put("acme", document(&format!("{n}.md"), Acl::Public), vec![chunk(&text)]).await.unwrap();
    }
    let reader = of("acme");
    let new = Follower::caught_up(&server).await;
    assert_eq!(new.index.size(), (50, 50), "a caught-up index holds all documents");
    let waited = async {
        while old.index.size() != (50, 50) {
            tokio::task::yield_now().await
        }
    };
    timeout(WAIT_MAX, waited).await.expect("in time");
    for n in 0..7 {
        let query = format!("topic{n}");
        let (mut a, mut b) = (old.find(&query, &reader), new.find(&query, &reader));
        a.sort();
        b.sort();
        assert_eq!(a, b, "{query}");
        assert!(!a.is_empty());
    }
}

#[tokio::test]
async fn a_recreated_stream_rebuilds_the_index() {
    let server = Server::start().await;
    let store = KnowledgeStore::new(server.client.clone());
    store.put("acme", document("a.md", Acl::Public), vec![chunk("of the past")]).await.unwrap();
    let follower = Follower::caught_up(&server).await;
    let reader = of("acme");
    follower.finds("past", &reader, &["of the past"]).await;
    let context = jetstream::new(server.client.clone());
    let config = context.get_stream("KNOWLEDGE").await.unwrap().cached_info().config.clone();
    context.delete_stream("KNOWLEDGE").await.unwrap();
    context.create_stream(config).await.unwrap();
    store.put("acme", document("b.md", Acl::Public), vec![chunk("of the present")]).await.unwrap();
    follower.finds("present", &reader, &["of the present"]).await;
    follower.finds("past", &reader, &[]).await;
    // An operator empties the stream.
    context.get_stream("KNOWLEDGE").await.unwrap().purge().await.unwrap();
    follower.finds("present", &reader, &[]).await;
}

#[tokio::test]
async fn a_document_larger_than_a_batch_is_written_too() {
    let server = Server::start().await;
    let store = KnowledgeStore::new(server.client.clone());
    let follower = Follower::caught_up(&server).await;
    // The words have no digits, since words with digits are also found by their parts.
    let word = |n: u32| n.to_string().chars().map(|digit| char::from(b'a' + digit as u8 - b'0')).collect::<String>();
    let chunks = (0..1_200).map(|n| chunk(&format!("passage {}", word(n)))).collect();
    store.put("acme", document("long.md", Acl::Public), chunks).await.unwrap();
    follower.finds(&word(1_199), &of("acme"), &[&format!("passage {}", word(1_199))]).await;
    let huge = vec![chunk(&"x".repeat(600 * 1024))];
    let refused = store.put("acme", document("huge.md", Acl::Public), huge).await;
    assert!(refused.unwrap_err().to_string().contains("huge.md"));
}

fn names(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

/// Every kind of reader queries every combination of organisation, set and list of readers, with words and vectors.
#[tokio::test]
async fn restricted_passages_are_found_only_by_their_readers() {
    let server = Server::start().await;
    let store = KnowledgeStore::new(server.client.clone());
    let (orgs, sets) = (["acme", "globex", "initech"], ["default", "internal"]);
    let lists: [(&str, &[&str], &[&str]); 6] = [
        ("everybody", &[], &[]),
        ("ada", &["ada"], &[]),
        ("sales", &[], &["sales"]),
        ("ada or sales", &["ada"], &["sales"]),
        ("ops", &[], &["ops"]),
        ("nobody", &[], &[]),
    ];
    for org in orgs {
        for set in sets {
            for (list, users, groups) in lists {
                let acl = match list {
                    "everybody" => Acl::Public,
                    _ => Acl::Only { users: names(users), groups: names(groups) },
                };
                let text = format!("The secret of {org}, {set}, for {list}.");
                let new = NewDocument { set: set.into(), ..document(&format!("{set}/{list}"), acl) };
                let passage = NewChunk { vector: Some(vec![1.0, 0.5]), ..chunk(&text) };
                store.put(org, new, vec![passage]).await.unwrap();
            }
        }
    }
    let follower = Follower::caught_up(&server).await;
    assert_eq!(follower.index.size().0, orgs.len() * sets.len() * lists.len());
    // So many that the index looks them up in another way.
    let others: Vec<String> = (0..300).map(|n| format!("group-{n}")).collect();
    let many: Vec<&str> = others.iter().map(String::as_str).chain(["sales"]).collect();
    let mut asked = 0;
    for org in orgs.into_iter().chain(["unknown"]) {
        for user in [None, Some("ada"), Some("eve"), Some("*"), Some("u:ada")] {
            for groups in [&[][..], &["sales"], &["ops", "sales"], &["*"], &["ada"], &many] {
                for wanted in [None, Some(vec!["default"]), Some(vec!["internal", "default"]), Some(vec![])] {
                    let texts = |list: &[&str]| list.iter().map(|text| text.to_string()).collect::<Vec<_>>();
                    let (user, groups) = (user.map(str::to_string), texts(groups));
                    let reader = KnowledgeReader { org: org.into(), user, groups, sets: wanted.as_deref().map(texts) };
                    let mut expected = BTreeSet::new();
                    for set in sets.iter().filter(|set| wanted.as_ref().is_none_or(|wanted| wanted.contains(set))) {
                        for (list, users, groups) in lists.iter().filter(|_| orgs.contains(&org)) {
                            let is_user = reader.user.as_deref().is_some_and(|user| users.contains(&user));
                            let in_group = reader.groups.iter().any(|group| groups.contains(&group.as_str()));
                            if *list == "everybody" || is_user || in_group {
                                expected.insert(format!("The secret of {org}, {set}, for {list}."));
                            }
                        }
                    }
                    let query = |text, vector| PassageQuery { text, vector, rerank: false };
                    for query in [query("secret", None), query("nothing", Some(&[1.0, 0.5][..]))] {
                        let found = follower.index.search(&query, &reader, 100).unwrap();
                        let found: BTreeSet<String> = found.into_iter().map(|passage| passage.text).collect();
                        assert_eq!(found, expected, "{reader:?}");
                        asked += 1;
                    }
                }
            }
        }
    }
    assert_eq!(asked, 4 * 5 * 6 * 4 * 2);
}

#[tokio::test]
async fn words_and_vectors_are_combined() {
    let server = Server::start().await;
    let store = KnowledgeStore::new(server.client.clone());
    let documents =
        [("both", "refund money", [1.0, 0.0]), ("words", "refund rules", [0.0, 1.0]), ("near", "other", [0.9, 0.1])];
    for (id, text, vector) in documents {
        let passage = NewChunk { vector: Some(vector.to_vec()), ..chunk(text) };
        store.put("acme", document(id, Acl::Public), vec![passage]).await.unwrap();
    }
    let follower = Follower::caught_up(&server).await;
    let find = |vector: Option<&[f32]>| {
        let query = PassageQuery { text: "refunds", vector, rerank: false };
        let found = follower.index.search(&query, &of("acme"), 10).unwrap();
        assert!(found.is_sorted_by(|a, b| a.score >= b.score) && found.iter().all(|p| (0.0..=1.0).contains(&p.score)));
        found.into_iter().map(|passage| passage.document).collect::<BTreeSet<_>>()
    };
    assert_eq!(find(None), names(&["both", "words"]));
    assert_eq!(find(Some(&[1.0, 0.0])), names(&["both", "near", "words"]));
    let query = PassageQuery { text: "refunds", vector: Some(&[1.0, 0.0]), rerank: false };
    assert_eq!(follower.index.search(&query, &of("acme"), 1).unwrap()[0].document, "both", "it is in both rankings");
    // A vector of another model's length does not count.
    assert_eq!(find(Some(&[1.0, 0.0, 0.0])), names(&["both", "words"]));
}
