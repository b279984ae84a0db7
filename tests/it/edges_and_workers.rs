//! Any edge serves a conversation, and any worker answers it.

use serde_json::{Value, json};

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    frames::{answer_text, code, kinds, request_id, streamed, tool_activity},
    gateway::{Gate, Reply},
    processes::Process,
    schema,
    tools::{Provider, Tool},
};

fn tokens(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn a_conversation_goes_on_over_any_edge_with_any_worker() {
    let stage = Stage::start().await;
    let (a, b, _one, _two) = tokio::join!(stage.edge(), stage.edge(), stage.worker(), stage.worker());
    let (mut anna, mut bert) = tokio::join!(Client::connect(&a), Client::connect(&b));
    let session = anna.open_session().await;

    for n in 1..=6 {
        stage.gateway.script(Reply::text(&format!("answer number {n}")));
        let (client, id) = if n % 2 == 0 { (&mut anna, format!("r{n}")) } else { (&mut bert, format!("r{n}")) };
        let turn = client.ask(&session, &id, &format!("question {n}")).await;
        assert_eq!(kinds(&turn), ["stream_token", "eventual_response"]);
        assert_eq!(streamed(&turn), format!("answer number {n}"));
        assert_eq!(answer_text(&turn), format!("answer number {n}"));
    }

    let expected: Vec<String> = (1..=6).flat_map(|n| [format!("question {n}"), format!("answer number {n}")]).collect();
    assert_eq!(anna.history(&session).await, expected);
    assert_eq!(anna.page(&session, json!({})).await, bert.page(&session, json!({})).await);
    let get = json!({"action": "get_session", "sessionId": session.id});
    assert_eq!(anna.request(get.clone()).await["data"], bert.request(get).await["data"]);
    let (of_anna, of_bert) = (anna.seen.clone(), bert.seen.clone());
    let strangers = |seen: &[Value], rest| {
        seen.iter().filter_map(request_id).any(|id| id.starts_with('r') && id[1..].parse::<u32>().unwrap() % 2 == rest)
    };
    assert!(!strangers(&of_anna, 1) && !strangers(&of_bert, 0), "a connection sees only its own turns");
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn an_approval_may_come_over_another_edge() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    let (a, b, _one, _two) = tokio::join!(stage.edge(), stage.edge(), stage.worker(), stage.worker());
    let (mut anna, mut bert) = tokio::join!(Client::connect(&a), Client::connect(&b));
    let session = anna.open_session().await;
    stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-1"})));
    stage.gateway.script(Reply::text("it runs again"));

    anna.begin(&session, "r1", "restart the database").await;
    let parked = anna.turn_until("r1", "stream_chunk").await;
    assert_eq!(kinds(&parked), ["write_confirmation_required", "stream_chunk"]);
    assert_eq!(parked[0]["data"]["data"]["toolId"], "restart");
    assert!(parked[0]["data"]["data"]["actionDescription"].as_str().unwrap().contains("db-1"));
    assert!(provider.calls().is_empty());

    let confirmed = bert.confirm(&session, true).await;
    assert_eq!(confirmed["message"], "Tool action approved");
    assert_eq!(confirmed["data"], json!({"sessionId": session.id, "approved": true}));
    for client in [&mut anna, &mut bert] {
        let rest = client.turn("r1").await;
        assert_eq!(kinds(&rest), ["stream_chunk", "stream_token", "eventual_response"]);
        assert_eq!(tool_activity(&rest), ["result done"]);
        assert_eq!(streamed(&rest), "it runs again");
    }
    assert_eq!(provider.calls().len(), 1);
    assert_eq!(anna.page(&session, json!({})).await, bert.page(&session, json!({})).await);
}

#[tokio::test]
async fn work_waits_for_a_worker_that_is_started_later() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "is anybody there?").await;
    let refused = client.say(&session, "r2", "hello?").await;
    assert_eq!(code(&refused), "TURN_IN_PROGRESS", "the waiting turn is the conversation's turn");

    let _worker = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r1").await), "ok");
    assert_eq!(answer_text(&client.ask(&session, "r2", "hello?").await), "ok");
}

#[tokio::test]
async fn a_stopped_worker_finishes_short_turns() {
    let stage = Stage::start().await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let gate = Gate::new();
    stage.gateway.script(Reply::gated(tokens("slow but sure"), &gate));
    client.begin(&session, "r1", "take your time").await;
    gate.release(1);
    client.turn_until("r1", "stream_token").await;

    worker.signal(libc::SIGTERM);
    worker.line(|line| line.contains("stopping")).await;
    gate.open();
    assert_eq!(answer_text(&client.turn("r1").await), "slow but sure");
    assert!(worker.ended().await.success());
    assert_eq!(stage.gateway.requests().len(), 1);
}

/// A turn with an answer that is held back after its first token; the next worker gives the whole answer.
struct LongTurn {
    stage: Stage,
    edge: Edge,
    first: Process,
    client: Client,
    session: Session,
    begun: Vec<Value>,
    _gate: Gate,
}

impl LongTurn {
    async fn begin() -> Self {
        let stage = Stage::start().await;
        let (edge, first) = tokio::join!(stage.edge(), stage.worker());
        let mut client = Client::connect(&edge).await;
        let session = client.open_session().await;
        let gate = Gate::new();
        stage.gateway.script(Reply::gated(tokens("never to be finished"), &gate));
        stage.gateway.script(Reply::text("the whole answer"));
        client.begin(&session, "r1", "tell me").await;
        gate.release(1);
        let begun = client.turn_until("r1", "stream_token").await;
        Self { stage, edge, first, client, session, begun, _gate: gate }
    }
}

#[tokio::test]
async fn a_stopped_worker_hands_over_long_turns() {
    let LongTurn { stage, edge: _edge, mut first, mut client, session, begun, _gate } = LongTurn::begin().await;

    let _second = stage.worker().await;
    first.signal(libc::SIGTERM);
    let rest = client.turn("r1").await;
    expect_one_restart(&begun, &rest, "the whole answer");
    assert!(first.ended().await.success());
    expect_one_end(&stage, &mut client, &session, &["tell me", "the whole answer"]).await;
}

#[tokio::test]
async fn a_killed_worker_is_replaced() {
    let LongTurn { stage, edge: _edge, mut first, mut client, session, begun, _gate } = LongTurn::begin().await;

    let _second = stage.worker().await;
    first.kill().await;
    let rest = client.turn("r1").await;
    expect_one_restart(&begun, &rest, "the whole answer");
    expect_one_end(&stage, &mut client, &session, &["tell me", "the whole answer"]).await;
}

#[tokio::test]
async fn a_late_worker_changes_nothing() {
    let stage = Stage::start().await;
    let (edge, first) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let (early, late) = (Gate::new(), Gate::new());
    stage.gateway.script(Reply::gated(tokens("an answer of the past"), &early));
    stage.gateway.script(Reply::gated(tokens("the answer that counts"), &late));
    client.begin(&session, "r1", "tell me").await;
    early.release(1);
    let begun = client.turn_until("r1", "stream_token").await;

    first.signal(libc::SIGSTOP);
    let second = stage.worker().await;
    stage.gateway.wait_for_requests(2).await;
    early.open();
    first.signal(libc::SIGCONT);
    // The first worker notices that it is fenced before the second one goes on.
    stage.gateway.wait_for_open_streams(1).await;
    late.open();
    let rest = client.turn("r1").await;
    expect_one_restart(&begun, &rest, "the answer that counts");
    expect_one_end(&stage, &mut client, &session, &["tell me", "the answer that counts"]).await;
    drop(second);
    let next = client.ask(&session, "r3", "and now?").await;
    assert_eq!(answer_text(&next), "ok", "the worker that woke up works again");
}

/// Checks that a client that has seen text gets the marker, no second text, and the whole answer at the end.
fn expect_one_restart(begun: &[Value], rest: &[Value], answer: &str) {
    assert!(!streamed(begun).is_empty());
    assert_eq!(kinds(rest), ["stream_chunk", "eventual_response"], "{rest:#?}");
    assert_eq!(rest.len(), 2);
    assert_eq!(rest[0]["node"], "turn_restarted");
    assert_eq!(answer_text(rest), answer);
}

/// Checks that the turn `r1` ended once and the conversation goes on.
async fn expect_one_end(stage: &Stage, client: &mut Client, session: &Session, history: &[&str]) {
    stage.gateway.wait_for_open_streams(0).await;
    assert_eq!(stage.gateway.requests().len(), 2);
    assert_eq!(client.history(session).await, history);
    assert_eq!(answer_text(&client.ask(session, "r2", "thanks").await), "ok");
    assert_eq!(client.terminals("r1"), 1);
    schema::log(&stage.nats).await;
}
