//! The history: every message once, newest first, page by page; and the part of it that the model gets.

use serde_json::{Value, json};

use crate::support::{
    Stage,
    client::{Client, Session},
    frames::answer_text,
    gateway::Reply,
};

const TURNS: usize = 60;

/// Follows the pages to the end, with the cursor in the field of this name; newest message first.
async fn all_pages(client: &mut Client, session: &Session, limit: usize, field: &str) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut fields = json!({"limit": limit});
    loop {
        let page = client.page(session, fields.clone()).await;
        let items = page["messages"].as_array().unwrap();
        assert!(items.len() <= limit && !items.is_empty());
        messages.extend(items.clone());
        assert_eq!(page["hasMore"], page["nextCursor"].is_string());
        if page["nextCursor"].is_null() {
            return messages;
        }
        fields[field] = page["nextCursor"].clone();
    }
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["content"]["text"].as_str().unwrap()).collect()
}

fn expected_newest_first() -> Vec<String> {
    (1..=TURNS).rev().flat_map(|n| [format!("answer {n}"), format!("question {n}")]).collect()
}

#[tokio::test]
async fn pages_hold_every_message_once_and_the_model_gets_the_newest() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    stage.gateway.respond_with(|request| {
        let question = request["messages"].as_array()?.last()?["content"].as_str()?;
        Some(Reply::text(&question.replace("question", "answer")))
    });
    let (mut client, mut reader) = tokio::join!(Client::connect(&a), Client::connect(&b));
    let session = client.open_session().await;
    for n in 1..=TURNS {
        let turn = client.ask(&session, &format!("r{n}"), &format!("question {n}")).await;
        assert_eq!(answer_text(&turn), format!("answer {n}"));
    }

    let expected = expected_newest_first();
    for (limit, field) in [(7, "cursor"), (7, "before"), (50, "cursor"), (100, "before"), (1, "cursor")] {
        for client in [&mut client, &mut reader] {
            let messages = all_pages(client, &session, limit, field).await;
            assert_eq!(texts(&messages), expected, "in pages of {limit} by `{field}`");
            let times: Vec<&str> = messages.iter().map(|m| m["createdAt"].as_str().unwrap()).collect();
            assert!(times.is_sorted_by(|newer, older| newer >= older));
        }
    }
    limits_are_forgiving(&mut reader, &session).await;

    let request = stage.gateway.requests().pop().unwrap();
    let messages = request["messages"].as_array().unwrap();
    let said: Vec<&str> =
        messages.iter().filter(|m| m["role"] != "system").map(|m| m["content"].as_str().unwrap()).collect();
    let newest: Vec<&String> = expected[1..].iter().take(51).collect();
    assert_eq!(said.iter().rev().collect::<Vec<_>>(), newest, "the last 50 messages and the new one");
}

async fn limits_are_forgiving(client: &mut Client, session: &Session) {
    for (limit, expected) in [
        (json!(null), 50),
        (json!(0), 50),
        (json!(-5), 50),
        (json!("seven"), 50),
        (json!("7"), 50),
        (json!([7]), 50),
        (json!(2.5), 50),
        (json!(1_000), 100),
        (json!(u64::MAX), 100),
        (json!(99), 99),
    ] {
        let page = client.page(session, json!({"limit": limit})).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), expected, "limit {limit}");
    }
}

#[tokio::test]
async fn conversations_are_isolated() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let (first, second) = (client.open_session().await, client.open_session().await);
    client.ask(&first, "r1", "the secret is 42").await;
    client.ask(&second, "r1", "what is the secret?").await;
    assert_eq!(client.history(&second).await, ["what is the secret?", "ok"]);
    assert!(!stage.gateway.requests()[1].to_string().contains("42"));

    let resumed = client.resume(&first.conversation).await;
    client.ask(&resumed, "r2", "what is the secret?").await;
    assert!(stage.gateway.requests()[2].to_string().contains("42"), "a resumed conversation goes on");
    for session in [&first, &resumed] {
        assert_eq!(client.history(session).await, ["the secret is 42", "ok", "what is the secret?", "ok"]);
    }
    let cursor = client.page(&first, json!({"limit": 1})).await["nextCursor"].clone();
    let foreign = client.page(&second, json!({"limit": 10, "cursor": cursor})).await;
    assert!(!foreign.to_string().contains("the secret is 42"), "a cursor of one conversation opens no other");
}

/// Pages are bounded in bytes too, and together still contain every message.
#[tokio::test]
async fn long_messages_are_paged_without_a_loss() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    // Each character takes four bytes on the wire: sixty messages are some 2.4 MB.
    let long = |n: usize| format!("{n} {}", "\u{1F980}".repeat(9_990));
    for n in 0..30 {
        stage.gateway.script(Reply::text(&long(n)));
        client.ask(&session, &format!("r{n}"), &long(n)).await;
    }
    let first = client.page(&session, json!({"limit": 100})).await;
    assert!(first.to_string().len() < 1 << 20, "the published client takes 1 MiB a frame");
    assert_eq!(first["hasMore"], true);
    let messages = all_pages(&mut client, &session, 100, "cursor").await;
    let expected: Vec<String> = (0..30).rev().flat_map(|n| [long(n), long(n)]).collect();
    assert_eq!(texts(&messages), expected);
}
