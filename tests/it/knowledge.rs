//! Grounded answers, as the model gateway and the client see them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use turnstream::{
    calls::is_signed,
    knowledge::{Acl, KnowledgeStore, NewChunk, NewDocument},
};

use crate::{
    identity::{self, SECRET, token},
    support::{
        Stage,
        client::Client,
        frames::{answer, answer_text},
        gateway::Reply,
        tools::{client_as, is_known, public_key},
    },
};

fn document(id: &str, acl: Acl) -> NewDocument {
    NewDocument {
        id: id.into(),
        title: format!("Title of {id}"),
        url: Some(format!("https://docs.example/{id}")),
        set: "default".into(),
        source: "test".into(),
        acl,
        hash: "h".into(),
        embedding_model: None,
    }
}

pub async fn put(stage: &Stage, org: &str, id: &str, acl: Acl, text: &str) {
    let passage = NewChunk { headings: vec![], text: text.into(), vector: None };
    KnowledgeStore::new(stage.nats.client().await).put(org, document(id, acl), vec![passage]).await.unwrap();
}

fn citations(turn: &[Value]) -> Vec<String> {
    let citations = answer(turn)["citations"].as_array().cloned().unwrap_or_default();
    citations.iter().map(|citation| citation["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_answer_cites_its_documents() {
    let stage = Stage::start().await;
    let text = format!("Refunds take three days. {}", "More is said of it here. ".repeat(20));
    put(&stage, "reference-org", "refunds.md", Acl::Public, &text).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let turn = client.ask(&session, "r1", "How long does a refund take?").await;
    let citation = &answer(&turn)["citations"][0];
    assert_eq!((&citation["id"], &citation["title"]), (&json!("refunds.md"), &json!("Title of refunds.md")));
    assert_eq!(citation["url"], "https://docs.example/refunds.md");
    let snippet = citation["snippet"].as_str().unwrap();
    assert!(snippet.starts_with("Refunds take three days.") && snippet.chars().count() <= 280, "{snippet}");
    assert!(stage.gateway.requests()[0]["messages"].to_string().contains("Refunds take three days."));
    // Passages that do not match are not cited.
    assert!(citations(&client.ask(&session, "r2", "quantum chromodynamics").await).is_empty());
}

#[tokio::test]
async fn every_worker_knows_written_documents_and_no_deleted_ones() {
    let stage = Stage::start().await;
    let mut seen = BTreeSet::new();
    let edge = stage.edge().await;
    let workers = [
        stage.worker_with(&[("SMOOTH_AGENT_MODEL", "a")]).await,
        stage.worker_with(&[("SMOOTH_AGENT_MODEL", "b")]).await,
    ];
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    put(&stage, "reference-org", "new.md", Acl::Public, "The password of the day is swordfish.").await;
    // Ask until both workers have cited the new document; a worker without it would never do so.
    let mut n = 0;
    while seen.len() < workers.len() {
        n += 1;
        if citations(&client.ask(&session, &format!("r{n}"), "password of the day").await) == ["new.md"] {
            let model = stage.gateway.requests().last().unwrap()["model"].as_str().unwrap().to_owned();
            seen.insert(model);
        }
        assert!(n < 2_000, "only {seen:?} know the document");
    }
    let store = KnowledgeStore::new(stage.nats.client().await);
    let head = store.heads("reference-org").await.unwrap().remove("new.md").unwrap();
    store.delete("reference-org", head).await.unwrap();
    let mut without = BTreeSet::new();
    while without.len() < workers.len() {
        n += 1;
        if citations(&client.ask(&session, &format!("r{n}"), "password of the day").await).is_empty() {
            without.insert(stage.gateway.requests().last().unwrap()["model"].as_str().unwrap().to_owned());
        }
        assert!(n < 4_000, "only {without:?} have dropped the document");
    }
}

/// The turn is requested before there is a worker, so it is the worker's first.
#[tokio::test]
async fn a_worker_takes_its_first_turn_when_its_index_has_caught_up() {
    let stage = Stage::start().await;
    let filler = "Nothing of interest is said here. ".repeat(30);
    for n in 0..400 {
        put(&stage, "reference-org", &format!("{n}.md"), Acl::Public, &filler).await;
    }
    put(&stage, "reference-org", "last.md", Acl::Public, "The password of the day is swordfish.").await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "password of the day").await;
    let _worker = stage.worker().await;
    assert_eq!(citations(&client.turn("r1").await), ["last.md"]);
}

/// Restricted text is in no request to the model and in no citation.
///
/// Three organisations, users, groups and anonymous visitors ask, by message and through the model's own search.
#[tokio::test]
async fn restricted_text_reaches_no_model_and_no_citation() {
    let stage = Stage::start().await;
    let only = |users: &[&str], groups: &[&str]| {
        let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Acl::Only { users: set(users), groups: set(groups) }
    };
    let orgs = ["acme", "globex", "reference-org"];
    for org in orgs {
        for (list, acl) in [
            ("public", Acl::Public),
            ("ada", only(&["ada"], &[])),
            ("sales", only(&[], &["sales"])),
            ("nobody", only(&[], &[])),
        ] {
            let text = format!("The plan marked {org}-{list} is to be kept secret.");
            put(&stage, org, &format!("{list}.md"), acl, &text).await;
        }
    }
    let edge = stage.edge_with(&[("AUTH_JWT_HS256_SECRET", SECRET)]).await;
    let _worker = stage.worker().await;
    let marks = |org: &str, lists: &[&str]| lists.iter().map(|list| format!("{org}-{list}")).collect::<BTreeSet<_>>();
    let with = |claims: Value| Some(token(claims));
    for (who, token, allowed) in [
        ("anonymous", None, marks("reference-org", &["public"])),
        ("ada", with(json!({"sub": "ada"})), marks("acme", &["public", "ada"])),
        ("eve", with(json!({"sub": "eve"})), marks("acme", &["public"])),
        ("sales", with(json!({"sub": "bob", "groups": ["sales"]})), marks("acme", &["public", "sales"])),
        ("both", with(json!({"sub": "ada", "groups": ["sales", "x"]})), marks("acme", &["public", "ada", "sales"])),
        ("a name as group", with(json!({"sub": "eve", "groups": ["ada"]})), marks("acme", &["public"])),
        ("everybody", with(json!({"sub": "*", "groups": ["*"]})), marks("acme", &["public"])),
        ("ada elsewhere", with(json!({"sub": "ada", "org": "globex"})), marks("globex", &["public", "ada"])),
        ("an admin", with(json!({"sub": "root", "role": "admin"})), marks("acme", &["public"])),
        ("nowhere", with(json!({"sub": "ada", "org": "initech"})), BTreeSet::new()),
    ] {
        let query = token.map_or_else(String::new, |token| format!("?token={token}"));
        let mut client = Client::try_connect(identity::handshake(&edge, &query, None)).await.unwrap();
        let session = client.open_session().await;
        let before = stage.gateway.requests().len();
        let turn = client.ask(&session, "r1", "What is the secret plan?").await;
        let cited = citations(&turn);
        stage.gateway.script(Reply::tool_call("knowledge_search", json!({"query": "secret plan marked"})));
        let searched = client.ask(&session, "r2", "search").await;
        let said = json!(stage.gateway.requests()[before..]).to_string();
        let shown = said + &json!([turn, searched]).to_string();
        let found: BTreeSet<String> = orgs
            .iter()
            .flat_map(|org| ["public", "ada", "sales", "nobody"].map(|list| format!("{org}-{list}")))
            .filter(|mark| shown.contains(mark.as_str()))
            .collect();
        assert_eq!(found, allowed, "{who}");
        assert_eq!(cited.len(), allowed.len(), "{who}: {cited:?}");
    }
}

#[tokio::test]
async fn an_organisations_own_search_service_is_used() {
    let stage = Stage::start().await;
    let client = client_as(&stage.nats, "retrieve_provider").await;
    let mut asked = client.subscribe("retrieve.*").await.unwrap();
    is_known(&client, &stage.nats.client().await).await;
    let service = tokio::spawn(async move {
        let mut requests = Vec::new();
        while let Some(request) = asked.next().await {
            assert!(is_signed(&request, &public_key(), chrono::Utc::now()), "an unsigned call");
            let query: Value = serde_json::from_slice(&request.payload).unwrap();
            let answer = match requests.len() {
                0 => json!({"passages": [{
                    "document": "wiki/1", "title": "Wiki", "url": "https://wiki.example/1",
                    "text": "It is said elsewhere.", "score": 0.75,
                }]}),
                _ => json!("something else"),
            };
            requests.push((request.subject.to_string(), query));
            client.publish(request.reply.unwrap(), answer.to_string().into()).await.unwrap();
            if requests.len() == 2 {
                break;
            }
        }
        requests
    });
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&[("SMOOTH_AGENT_RETRIEVAL", "nats")]));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let turn = client.ask(&session, "r1", "where is it said?").await;
    let citation = &answer(&turn)["citations"][0];
    assert_eq!((&citation["id"], &citation["score"]), (&json!("wiki/1"), &json!(0.75)));
    assert!(stage.gateway.requests()[0]["messages"].to_string().contains("It is said elsewhere."));
    // A search that answers nonsense, or is missing, costs the passages but not the answer.
    for id in ["r2", "r3"] {
        let turn = client.ask(&session, id, "and now?").await;
        assert_eq!((answer_text(&turn), citations(&turn).len()), ("ok", 0));
    }
    let requests = service.await.unwrap();
    let query = json!({"query": "where is it said?", "limit": 3, "reader": {"org": "reference-org"}});
    assert_eq!(requests[0], ("retrieve.reference-org".to_owned(), query));
}

#[tokio::test]
async fn vectors_find_more_and_missing_ones_are_no_failure() {
    let stage = Stage::start().await;
    let store = KnowledgeStore::new(stage.nats.client().await);
    let passage =
        |text: &str, vector: [f32; 2]| NewChunk { headings: vec![], text: text.into(), vector: Some(vector.into()) };
    store.put("reference-org", document("a.md", Acl::Public), vec![passage("Pets", [1.0, 0.0])]).await.unwrap();
    store.put("reference-org", document("b.md", Acl::Public), vec![passage("Cars", [0.0, 1.0])]).await.unwrap();
    let settings = [("SMOOTH_AGENT_EMBEDDING_MODEL", "embedder"), ("SMOOTH_AGENT_RERANK", "gateway")];
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&settings));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    // The gateway has no such endpoints yet.
    assert!(citations(&client.ask(&session, "r1", "animals at home").await).is_empty());
    assert_eq!(citations(&client.ask(&session, "r2", "pets").await), ["a.md"]);
    let (asked, reranks) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (seen, may_rerank) = (asked.clone(), reranks.clone());
    stage.gateway.respond_with(move |request| {
        if let Some(texts) = request["input"].as_array() {
            seen.lock().unwrap().push(request.clone());
            let vector = |text: &Value| if text.to_string().contains("animal") { [0.9, 0.1] } else { [0.1, 0.9] };
            let data = texts.iter().enumerate().map(|(n, text)| json!({"index": n, "embedding": vector(text)}));
            return Some(Reply::json(&json!({"data": data.collect::<Vec<_>>()})));
        }
        let documents = request["documents"].as_array().filter(|_| may_rerank.load(Ordering::Relaxed))?;
        let score = |text: &Value| if text.to_string().contains("Cars") { 0.9 } else { 0.2 };
        let results = documents.iter().enumerate().map(|(n, text)| json!({"index": n, "relevance_score": score(text)}));
        Some(Reply::json(&json!({"results": results.collect::<Vec<_>>()})))
    });
    assert_eq!(citations(&client.ask(&session, "r3", "animals at home").await), ["a.md", "b.md"]);
    reranks.store(true, Ordering::Relaxed);
    assert_eq!(citations(&client.ask(&session, "r4", "animals at home").await), ["b.md", "a.md"]);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.last().unwrap()["model"], "embedder");
}
