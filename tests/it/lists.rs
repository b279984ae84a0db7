//! Lists of conversations and their names: owners, order, paging, from any edge.

use async_nats::jetstream;
use serde_json::{Value, json};

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage, WAIT_MAX,
        client::{Client, Session},
        frames::{answer_text, code},
        gateway::Reply,
        schema,
    },
};

/// Returns one page, the answer's `data`.
async fn page(client: &mut Client, fields: Value) -> Value {
    let mut action = json!({"action": "list_conversations"});
    action.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = client.request(action).await;
    assert_eq!(answer["message"], "Conversations", "{answer:#}");
    answer["data"].clone()
}

/// Returns titles and counts of a page.
fn shown(page: &Value) -> Vec<(String, u64)> {
    let one = |item: &Value| (item["title"].as_str().unwrap().to_owned(), item["messageCount"].as_u64().unwrap());
    page["conversations"].as_array().unwrap().iter().map(one).collect()
}

/// Asks for the list until it is as expected, since the index follows the log without a signal.
async fn expect_list(client: &mut Client, expected: &[(&str, u64)]) -> Value {
    let expected: Vec<(String, u64)> = expected.iter().map(|(title, count)| (title.to_string(), *count)).collect();
    let began = std::time::Instant::now();
    loop {
        let page = page(client, json!({})).await;
        if shown(&page) == expected {
            return page;
        }
        assert!(began.elapsed() < WAIT_MAX, "the list is {page:#}");
        tokio::task::yield_now().await;
    }
}

async fn rename(client: &mut Client, conversation: &str, title: &str) -> Value {
    client.request(json!({"action": "rename_conversation", "conversationId": conversation, "title": title})).await
}

async fn as_user(edge: &Edge, email: &str) -> Client {
    let token = token(json!({"sub": email, "email": email}));
    Client::try_connect(handshake(edge, &format!("?token={token}"), None)).await.unwrap()
}

#[tokio::test]
async fn conversations_are_listed_and_named_on_every_edge() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let (mut client, mut other) = tokio::join!(Client::connect(&a), Client::connect(&b));
    let first = client.open_session().await;
    client.open_session().await;
    let second = client.open_session().await;
    let long = format!("where is {}", "my order ".repeat(20));
    client.ask(&first, "r1", &long).await;
    client.ask(&second, "r2", "hello\n there").await;
    let cut = format!("{}…", long.chars().take(60).collect::<String>().trim_end());
    expect_list(&mut client, &[("hello there", 2), (&cut, 2)]).await;
    client.ask(&first, "r3", "and now?").await;
    let page = expect_list(&mut other, &[(&cut, 4), ("hello there", 2)]).await;
    assert_eq!((&page["hasMore"], &page["nextCursor"]), (&json!(false), &Value::Null));
    assert_eq!(page["conversations"][0]["conversationId"], first.conversation.as_str());

    // A name is stored cleaned, is seen from every edge, and does not move its conversation to the top.
    let renamed = rename(&mut other, &second.conversation, " \"**My   refund**\" ").await;
    assert_eq!(renamed["message"], "Conversation renamed");
    assert_eq!(renamed["data"], json!({"conversationId": second.conversation, "title": "My refund"}));
    expect_list(&mut client, &[(&cut, 4), ("My refund", 2)]).await;
    assert_eq!(rename(&mut client, &second.conversation, &"x".repeat(99)).await["data"]["title"], "x".repeat(60));
    rename(&mut client, &second.conversation, "Refund").await;
    expect_list(&mut other, &[(&cut, 4), ("Refund", 2)]).await;
    assert_eq!(shown(&self::page(&mut other, json!({"query": "REF"})).await), [("Refund".to_owned(), 2)]);
    assert_eq!(shown(&self::page(&mut other, json!({"query": "nothing like it"})).await), []);

    for (id, title, expected) in [
        (json!(uuid::Uuid::new_v4()), json!("t"), "CONVERSATION_NOT_FOUND"),
        (json!("no id"), json!("t"), "CONVERSATION_NOT_FOUND"),
        (json!(first.id), json!("t"), "CONVERSATION_NOT_FOUND"),
        (json!(7), json!("t"), "VALIDATION_ERROR"),
        (Value::Null, json!("t"), "VALIDATION_ERROR"),
        (json!(first.conversation), json!("  "), "VALIDATION_ERROR"),
        (json!(first.conversation), json!("\"#\""), "VALIDATION_ERROR"),
        (json!(first.conversation), json!(["t"]), "VALIDATION_ERROR"),
    ] {
        let action = json!({"action": "rename_conversation", "conversationId": id, "title": title});
        assert_eq!(code(&client.request(action.clone()).await), expected, "{action}");
    }
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn pages_hold_every_conversation_once() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let mut expected = Vec::new();
    for n in 1..=7 {
        let session = client.open_session().await;
        client.ask(&session, &format!("r{n}"), &format!("question {n}")).await;
        expected.insert(0, format!("question {n}"));
    }
    let all: Vec<(&str, u64)> = expected.iter().map(|title| (title.as_str(), 2)).collect();
    expect_list(&mut client, &all).await;
    for limit in [1, 3, 7, 200] {
        let (mut titles, mut fields) = (Vec::new(), json!({"limit": limit}));
        loop {
            let page = page(&mut client, fields.clone()).await;
            assert!(shown(&page).len() <= limit);
            titles.extend(shown(&page).into_iter().map(|(title, _)| title));
            assert_eq!(page["hasMore"], page["nextCursor"].is_string());
            if page["nextCursor"].is_null() {
                break;
            }
            fields["cursor"] = page["nextCursor"].clone();
        }
        assert_eq!(titles, expected, "in pages of {limit}");
    }
    for (limit, expected) in [(json!(0), 1), (json!(-3), 1), (json!(1000), 7), (json!("2"), 7), (json!(null), 7)] {
        assert_eq!(shown(&page(&mut client, json!({"limit": limit})).await).len(), expected, "{limit}");
    }
    for cursor in [json!("garbage"), json!(""), json!("c1-"), json!("m1-3"), json!("c1--1-x"), json!(7)] {
        let refused = client.request(json!({"action": "list_conversations", "cursor": cursor})).await;
        assert_eq!(code(&refused), "VALIDATION_ERROR", "{cursor}");
    }
    assert_eq!(code(&client.request(json!({"action": "list_conversations", "query": 7})).await), "VALIDATION_ERROR");
}

#[tokio::test]
async fn a_list_holds_only_its_owners_conversations() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge_with(&[("AUTH_JWT_HS256_SECRET", SECRET)]), stage.worker());
    let mut ada = as_user(&edge, "ada@example.org").await;
    let mut eve = as_user(&edge, "eve@example.org").await;
    let hers = ada.open_session().await;
    ada.ask(&hers, "r1", "a secret of mine").await;
    expect_list(&mut ada, &[("a secret of mine", 2)]).await;
    assert_eq!(shown(&page(&mut eve, json!({})).await), []);
    assert_eq!(code(&rename(&mut eve, &hers.conversation, "mine now").await), "CONVERSATION_NOT_FOUND");
    let nobody = token(json!({"sub": "nobody"}));
    let mut nobody = Client::try_connect(handshake(&edge, &format!("?token={nobody}"), None)).await.unwrap();
    let theirs = nobody.open_session().await;
    nobody.ask(&theirs, "r1", "whose am I?").await;
    let mut anonymous = Client::connect(&edge).await;
    let session = anonymous.open_session().await;
    anonymous.ask(&session, "r1", "hello").await;
    for client in [&mut nobody, &mut anonymous] {
        assert_eq!(page(client, json!({})).await, json!({"conversations": [], "nextCursor": null, "hasMore": false}));
        let refused = client.request(json!({"action": "list_conversations", "cursor": "x"})).await;
        assert_eq!(code(&refused), "VALIDATION_ERROR");
    }
    // Any spelling of the address is the same person; a taken-over conversation without an owner joins the new owner's list.
    let mut again = as_user(&edge, " ADA@example.org").await;
    expect_list(&mut again, &[("a secret of mine", 2)]).await;
    let taken = again.resume(&theirs.conversation).await;
    assert_eq!(taken.conversation, theirs.conversation);
    expect_list(&mut ada, &[("whose am I?", 2), ("a secret of mine", 2)]).await;
    assert_eq!(keys(&stage).await, 3, "the entry has moved, and left nothing behind");
}

/// Returns the number of entries in the index.
async fn keys(stage: &Stage) -> usize {
    use futures_util::StreamExt;
    let bucket = jetstream::new(stage.nats.client().await).get_key_value("INDEX").await.unwrap();
    bucket.keys().await.unwrap().count().await
}

#[tokio::test]
async fn a_lost_index_is_rebuilt() {
    let stage = Stage::start().await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    for n in 1..=3 {
        let session = client.open_session().await;
        client.ask(&session, &format!("r{n}"), &format!("question {n}")).await;
    }
    let expected = [("question 3", 2), ("question 2", 2), ("question 1", 2)];
    expect_list(&mut client, &expected).await;
    worker.kill().await;
    let context = jetstream::new(stage.nats.client().await);
    context.delete_stream("KV_INDEX").await.unwrap();
    context.get_stream("CHAT_local").await.unwrap().delete_consumer("index").await.unwrap();
    let mut applied = stage.run("streams apply", &["streams", "apply"], &[]);
    assert!(applied.ended().await.success(), "{}", applied.output());
    assert_eq!(shown(&page(&mut client, json!({})).await), []);
    let _worker = stage.worker().await;
    expect_list(&mut client, &expected).await;
}

#[tokio::test]
async fn a_model_names_a_conversation_without_a_given_name() {
    let stage = Stage::start().await;
    stage.gateway.respond_with(|request| match request["model"].as_str() {
        Some("namer") if request["messages"][1]["content"] == "what is a broken title?" => Some(Reply::status(400)),
        Some("namer") => Some(Reply::text("\"**Refund of a lamp**\"\n")),
        _ => None,
    });
    let worker = stage.worker_with(&[("SMOOTH_AGENT_TITLE_MODEL", "namer")]);
    let (edge, _worker) = tokio::join!(stage.edge(), worker);
    let mut client = Client::connect(&edge).await;
    let named = client.open_session().await;
    let turn = client.ask(&named, "r1", "my lamp is broken, I want my money back").await;
    assert_eq!(answer_text(&turn), "ok");
    expect_list(&mut client, &[("Refund of a lamp", 2)]).await;
    let asked: Vec<Value> = stage.gateway.requests().into_iter().filter(|r| r["model"] == "namer").collect();
    assert_eq!(asked[0]["messages"][1]["content"], "my lamp is broken, I want my money back");
    assert!(asked[0].get("tools").is_none());
    client.ask(&named, "r2", "and the cable?").await;
    let other = client.open_session().await;
    assert_eq!(answer_text(&client.ask(&other, "r3", "what is a broken title?").await), "ok");
    expect_list(&mut client, &[("what is a broken title?", 2), ("Refund of a lamp", 4)]).await;
    let asked = stage.gateway.requests().into_iter().filter(|request| request["model"] == "namer").count();
    assert_eq!(asked, 2, "only the first turn of a conversation");
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn a_given_name_is_kept() {
    let stage = Stage::start().await;
    let gate = crate::support::gateway::Gate::new();
    let held = gate.clone();
    stage.gateway.respond_with(move |request| {
        (request["model"] == "namer").then(|| Reply::gated(vec!["By".into(), " a model".into()], &held))
    });
    let worker = stage.worker_with(&[("SMOOTH_AGENT_TITLE_MODEL", "namer")]);
    let (edge, _worker) = tokio::join!(stage.edge(), worker);
    let mut client = Client::connect(&edge).await;
    let session: Session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    rename(&mut client, &session.conversation, "By me").await;
    gate.open();
    stage.gateway.wait_for_open_streams(0).await;
    client.ask(&session, "r2", "hello again").await;
    expect_list(&mut client, &[("By me", 4)]).await;
}
