//! Unreadable events and the operators' remedies: nothing stops at one, and a command ends a stuck turn.

use serde_json::Value;
use turnstream::subjects::ConversationKey;

use crate::support::{
    Stage,
    client::{Client, Session},
    frames::{answer_text, code},
    gateway::Reply,
    http,
};

async fn run(stage: &Stage, arguments: &[&str]) -> (bool, String) {
    let mut process = stage.run("command", arguments, &[("RUST_LOG", "off")]);
    let success = process.ended().await.success();
    (success, process.output())
}

fn key(session: &Session) -> ConversationKey {
    let org = turnstream::auth::REFERENCE_ORG.to_string();
    ConversationKey { region: "local".into(), org, conversation: session.conversation.parse().unwrap() }
}

/// Appends an event with a valid chain link and an unreadable content.
pub async fn put_stray(stage: &Stage, session: &Session, kind: &str, version: &str, payload: &str) -> u64 {
    use turnstream::{
        domain::Event,
        log::EventLog,
        nats::ReadFrom,
        wire::stored::{EventEnvelope, MSG_ID, encode},
    };
    let (log, key) = (crate::support::encrypted::log(stage.nats.client().await), key(session));
    let last = log.last(&key, ReadFrom::Leader).await.unwrap().unwrap().recorded;
    let id = turnstream::ids::new_random().to_string();
    let envelope = EventEnvelope {
        id: id.clone(),
        source: "/stray".into(),
        time: chrono::Utc::now(),
        conversation: key.conversation,
        prev: last.seq,
        prev_digest: Some(last.digest),
    };
    let (headers, _) = encode(&envelope, &Event::Erased("turn.completed"));
    let changed = |name: &'static str, value: String| match name {
        "ce-type" => format!("turnstream.{kind}"),
        "ce-schemaversion" => version.to_string(),
        _ => value,
    };
    let headers: Vec<(&str, String)> =
        headers.into_iter().filter(|(name, _)| *name != MSG_ID).map(|(name, v)| (name, changed(name, v))).collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    log.put(&key.event(kind), &id, &headers, payload.to_string().into()).await.unwrap();
    log.last(&key, ReadFrom::Leader).await.unwrap().unwrap().recorded.seq
}

#[tokio::test]
async fn a_malformed_event_stops_neither_visitors_nor_operators() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let (session, other) = (client.open_session().await, client.open_session().await);
    client.ask(&session, "r1", "one").await;
    let mut strays = Vec::new();
    for (kind, version, payload) in [
        ("turn.completed", "1", "not json"),
        ("turn.completed", "1", r#"{"turn":7}"#),
        ("turn.imagined", "1", "{}"),
        ("turn.completed", "2", "{}"),
    ] {
        strays.push(put_stray(&stage, &session, kind, version, payload).await);
        let (mut here, edge) = (Client::connect(&edge).await, stage.edge().await);
        let mut there = Client::connect(&edge).await;
        assert_eq!(here.history(&session).await[..2], ["one", "ok"]);
        assert_eq!(there.history(&session).await[..2], ["one", "ok"]);
        assert_eq!(answer_text(&here.ask(&session, &format!("after {payload}{version}{kind}"), "more").await), "ok");
    }
    assert_eq!(answer_text(&client.ask(&other, "r1", "two").await), "ok");

    let (success, told) = run(&stage, &["replay", "--org", turnstream::auth::REFERENCE_ORG]).await;
    assert!(success && told.contains("“two”") && told.contains("can't be decoded"), "{told}");
    let (success, told) = run(&stage, &["audit", "verify", "--json"]).await;
    assert!(success, "{told}");
    let report: Value = serde_json::from_str(&told[told.find('{').unwrap()..=told.rfind('}').unwrap()]).unwrap();
    let named: Vec<u64> =
        report["unreadableEvents"].as_array().unwrap().iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!((&report["broken"], named), (&Value::from(0), strays));
    let (success, told) = run(&stage, &["retain", "--dry-run"]).await;
    assert!(success, "{told}");
    let erase = ["erase", "--conversation", &other.conversation, "--reason", "asked", "--by", "test"];
    let (success, told) = run(&stage, &erase).await;
    assert!(success && told.contains("erased 1 conversations"), "{told}");
}

#[tokio::test]
async fn a_conversation_closed_by_a_newer_version_can_be_read() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "one").await;
    put_stray(&stage, &session, "turn.imagined", "1!", "{}").await;
    assert_eq!(code(&client.say(&session, "r2", "two").await), "CONVERSATION_READ_ONLY");
    assert_eq!(client.history(&session).await, ["one", "ok"]);
    assert_eq!(http::send(&edge, "GET", "/ready", &[], None).await.status().as_u16(), 200);
}

#[tokio::test]
async fn an_operator_ends_a_turn_that_hangs() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::hang_after(vec!["one ".into()]));
    client.begin(&session, "r1", "count").await;
    client.turn_until("r1", "stream_token").await;
    let other = turnstream::ids::new_random().to_string();
    let (success, told) = run(&stage, &["end-turn", &session.conversation, "--turn", &other]).await;
    assert!(!success && told.contains("another turn"), "{told}");
    let (success, told) = run(&stage, &["end-turn", &session.conversation]).await;
    assert!(success && told.contains("has ended"), "{told}");
    let end = client.turn("r1").await;
    assert_eq!(code(end.last().unwrap()), "AGENT_ERROR");
    let (success, told) = run(&stage, &["end-turn", &session.conversation]).await;
    assert!(!success && told.contains("no active turn"), "{told}");
    assert_eq!(answer_text(&client.ask(&session, "r2", "again").await), "ok");
}

#[tokio::test]
async fn an_edge_with_a_missing_pool_says_so() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge_with(&[("SMOOTH_AGENT_POOL", "nowhere")]), stage.worker());
    let ready = http::send(&edge, "GET", "/ready", &[], None).await;
    let (status, told) = (ready.status().as_u16(), ready.text().await.unwrap());
    assert!(status == 503 && told.contains("nowhere"), "{status} {told}");
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    assert_eq!(code(&client.say(&session, "r1", "hello").await), "LLM_UNAVAILABLE");
}
