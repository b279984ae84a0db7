//! Documents on the stream: whole or not at all, with any number of other writers.

use std::sync::Arc;

use tokio::sync::watch;
use turnstream::{
    knowledge::{
        Acl, KnowledgeIndex, KnowledgeReader, KnowledgeStore, NewChunk, NewDocument,
        cursor::KnowledgeCursor,
        document_fold::{DocumentChange, DocumentFold, WholeDocument},
        index::PassageQuery,
        indexer,
    },
    subjects,
};

use crate::support::{Stage, WAIT_MAX};

const ORG: &str = "acme.example";

fn document(id: &str, hash: &str) -> NewDocument {
    NewDocument {
        id: id.into(),
        title: format!("About {id}"),
        url: Some(format!("https://example.com/{id}")),
        set: "default".into(),
        source: "test".into(),
        acl: Acl::Public,
        hash: hash.into(),
        embedding_model: None,
    }
}

fn chunks(texts: impl IntoIterator<Item = String>) -> Vec<NewChunk> {
    let chunk = |text| NewChunk { headings: vec!["Top".into(), "Below".into()], text, vector: Some(vec![0.5, -2.0]) };
    texts.into_iter().map(chunk).collect()
}

/// Reads as a new reader does; returns the whole documents and the count of messages.
async fn read_all(stage: &Stage) -> (Vec<WholeDocument>, usize) {
    let mut reading = KnowledgeCursor::new(stage.nats.client().await, subjects::KNOWLEDGE_ALL.into());
    let (mut shelf, mut found, mut messages) = (DocumentFold::default(), Vec::<WholeDocument>::new(), 0);
    loop {
        let batch = reading.next().await.unwrap();
        messages += batch.messages.len();
        for message in &batch.messages {
            match shelf.take(&message.subject, &message.payload) {
                Some(DocumentChange::Put(whole)) => {
                    found.retain(|other| other.key != whole.key);
                    found.push(*whole);
                }
                Some(DocumentChange::Gone(key)) => found.retain(|other| other.key != key),
                None => {}
            }
        }
        if batch.is_last {
            return (found, messages);
        }
    }
}

#[tokio::test]
async fn a_document_is_read_as_it_was_written() {
    let stage = Stage::start().await;
    let store = KnowledgeStore::new(stage.nats.client().await);
    store.put(ORG, document("a/b c.md", "h1"), chunks(["one".into(), "two".into()])).await.unwrap();
    let heads = store.heads(ORG).await.unwrap();
    assert_eq!(heads["a/b c.md"].hash, "h1");
    assert!(store.heads("acme").await.unwrap().is_empty(), "another organisation sees no document");
    let (found, messages) = read_all(&stage).await;
    assert_eq!((found.len(), messages), (1, 3));
    assert_eq!(found[0].key.org, ORG);
    assert_eq!(found[0].head, heads["a/b c.md"]);
    assert_eq!(found[0].chunks.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(found[0].chunks[0].headings, ["Top", "Below"]);
    assert_eq!(found[0].chunks[0].vector.as_ref().unwrap().0, [0.5, -2.0]);
}

#[tokio::test]
async fn a_new_version_leaves_nothing_of_the_old_one_and_a_deleted_document_leaves_its_tombstone() {
    let stage = Stage::start().await;
    let store = KnowledgeStore::new(stage.nats.client().await);
    store.put(ORG, document("a.md", "h1"), chunks((0..5).map(|n| format!("old {n}")))).await.unwrap();
    store.put(ORG, document("b.md", "h1"), chunks(["other".into()])).await.unwrap();
    store.put(ORG, document("a.md", "h2"), chunks(["new".into()])).await.unwrap();
    let (found, messages) = read_all(&stage).await;
    assert_eq!((found.len(), messages), (2, 4), "each has a head and a chunk");
    let head = store.heads(ORG).await.unwrap().remove("a.md").unwrap();
    assert_eq!((head.hash.as_str(), head.chunks), ("h2", 1));
    store.delete(ORG, head).await.unwrap();
    assert_eq!(store.heads(ORG).await.unwrap().into_keys().collect::<Vec<_>>(), ["b.md"]);
    let (found, messages) = read_all(&stage).await;
    assert_eq!((found.len(), messages), (1, 3), "the tombstone, and the other document");
}

/// The document has more chunks than one batch, so other writers' messages come between its own.
#[tokio::test]
async fn a_large_document_is_complete_despite_concurrent_writers() {
    let stage = Stage::start().await;
    let large = KnowledgeStore::new(stage.nats.client().await);
    let small = KnowledgeStore::new(stage.nats.client().await);
    let (over, mut is_over) = watch::channel(false);
    let others = tokio::spawn(async move {
        let mut n = 0;
        while !*is_over.borrow_and_update() {
            n += 1;
            small.put(ORG, document(&format!("{n}.md"), "h"), chunks(["small".into()])).await.unwrap();
        }
        n
    });
    for version in ["h1", "h2"] {
        large
            .put(ORG, document("large.md", version), chunks((0..1_200).map(|n| format!("{version} {n}"))))
            .await
            .unwrap();
    }
    over.send_replace(true);
    let others = others.await.unwrap();
    let (found, messages) = read_all(&stage).await;
    let large = found.iter().find(|whole| whole.head.id == "large.md").expect("the large document is whole");
    assert_eq!((large.head.hash.as_str(), large.chunks.len()), ("h2", 1_200));
    assert_eq!((found.len(), messages), (others + 1, 2 * others + 1_201));
    assert!(others > 1, "no other document was written meanwhile");
}

/// Returns the ids of the documents that match a query.
fn found(index: &KnowledgeIndex, words: &str) -> Vec<String> {
    let reader = KnowledgeReader { org: ORG.into(), ..KnowledgeReader::default() };
    let query = PassageQuery { text: words, vector: None, rerank: false };
    index.search(&query, &reader, 10).unwrap().into_iter().map(|passage| passage.document).collect()
}

async fn until_found(index: &KnowledgeIndex, words: &str, wanted: &[&str]) {
    let is_so = async {
        while found(index, words) != wanted {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(WAIT_MAX, is_so).await;
    waited.unwrap_or_else(|_| panic!("{words}: {:?} instead of {wanted:?}", found(index, words)));
}

async fn follower(stage: &Stage) -> (Arc<KnowledgeIndex>, tokio::task::JoinHandle<()>) {
    let index = Arc::new(KnowledgeIndex::new().unwrap());
    let (caught_up, mut has_caught_up) = watch::channel(false);
    let follow = tokio::spawn(indexer::run(stage.nats.client().await, index.clone(), caught_up));
    has_caught_up.wait_for(|is| *is).await.unwrap();
    (index, follow)
}

#[tokio::test]
async fn a_caught_up_index_is_complete_and_follows_through_restarts() {
    let mut stage = Stage::start().await;
    let store = KnowledgeStore::new(stage.nats.client().await);
    for n in 0..30 {
        store.put(ORG, document(&format!("{n}.md"), "h"), chunks([format!("subject{n}x")])).await.unwrap();
    }
    let (first, follow) = follower(&stage).await;
    assert_eq!(first.size(), (30, 30));
    stage.nats.kill().await;
    stage.nats.restart().await;
    let store = KnowledgeStore::new(stage.nats.client().await);
    store.put(ORG, document("late.md", "h"), chunks(["zebra crossing".into()])).await.unwrap();
    until_found(&first, "zebras", &["late.md"]).await;
    let head = store.heads(ORG).await.unwrap().remove("late.md").unwrap();
    store.delete(ORG, head).await.unwrap();
    until_found(&first, "zebras", &[]).await;
    let (second, again) = follower(&stage).await;
    for n in 0..30 {
        let words = format!("subject{n}x");
        assert_eq!(found(&second, &words), found(&first, &words), "a rebuilt index answers as the old one");
        assert_eq!(found(&second, &words)[0], format!("{n}.md"));
    }
    follow.abort();
    again.abort();
}
