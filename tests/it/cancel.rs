//! A cancel stops the work itself, at any step, and frees the slot.

use serde_json::{Value, json};

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    frames::{answer_text, code, kind, request_id, streamed, tool_activity},
    gateway::{Gate, Reply},
    tools::{Provider, Tool},
};

async fn cancel(client: &mut Client, session: &Session) {
    client.send(&json!({"action": "cancel", "sessionId": session.id, "requestId": "the cancel's own"})).await;
}

/// Begins a gated reply and waits for its first token.
async fn streaming(stage: &Stage, edge: &Edge) -> (Client, Session, Gate) {
    let gate = Gate::new();
    let tokens = ["one ", "two ", "three"].map(str::to_owned).to_vec();
    stage.gateway.script(Reply::gated(tokens, &gate));
    let mut client = Client::connect(edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "count").await;
    gate.release(1);
    client.turn_until("r1", "stream_token").await;
    (client, session, gate)
}

/// Checks that the turn ended once, as cancelled: its message stays, its answer does not, and the slot is free.
async fn expect_cancelled(stage: &Stage, client: &mut Client, session: &Session, message: &str) {
    let end = client.turn("r1").await;
    assert_eq!(end.last().map(kind), Some("cancelled"), "{end:#?}");
    assert_eq!(client.history(session).await, [message]);
    let asked = stage.gateway.requests().len();
    assert_eq!(answer_text(&client.ask(session, "r2", "go on").await), "ok");
    assert_eq!(stage.gateway.requests().len(), asked + 1);
    assert_eq!(client.history(session).await, [message, "go on", "ok"]);
    assert_eq!(client.terminals("r1"), 1);
    let cancelled = client.seen.iter().position(|frame| kind(frame) == "cancelled").unwrap();
    let later = client.seen[cancelled + 1..].iter().filter(|frame| request_id(frame) == Some("r1"));
    assert_eq!(later.count(), 0, "no frame follows the end");
    assert!(client.seen.iter().all(|frame| request_id(frame) != Some("the cancel's own")));
}

#[tokio::test]
async fn a_cancelled_turn_stops_its_model_call() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let (mut client, session, gate) = streaming(&stage, &edge).await;
    cancel(&mut client, &session).await;
    stage.gateway.wait_for_open_streams(0).await;
    gate.open();
    expect_cancelled(&stage, &mut client, &session, "count").await;
}

#[tokio::test]
async fn a_cancel_without_a_session_means_the_connections_session() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let (mut client, session, _gate) = streaming(&stage, &edge).await;
    client.send(&json!({"action": "cancel"})).await;
    stage.gateway.wait_for_open_streams(0).await;
    expect_cancelled(&stage, &mut client, &session, "count").await;
}

#[tokio::test]
async fn a_turn_is_cancelled_from_another_connection_and_edge() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let (mut client, session, _gate) = streaming(&stage, &a).await;
    let mut other = Client::connect(&b).await;
    cancel(&mut other, &session).await;
    let told = other.next().await;
    assert_eq!((kind(&told), request_id(&told)), ("cancelled", Some("r1")));
    stage.gateway.wait_for_open_streams(0).await;
    expect_cancelled(&stage, &mut client, &session, "count").await;
    other.ping().await;
    assert_eq!(other.terminals("r1"), 1);
}

#[tokio::test]
async fn a_parked_turn_is_cancelled_and_a_later_approval_finds_nothing() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    stage.gateway.script(Reply::tool_call("restart", json!({})));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "restart it").await;
    client.turn_until("r1", "stream_chunk").await;
    cancel(&mut client, &session).await;
    assert_eq!(code(&client.confirm(&session, true).await), "NO_PENDING_CONFIRMATION");
    expect_cancelled(&stage, &mut client, &session, "restart it").await;
    assert_eq!(code(&client.confirm(&session, true).await), "NO_PENDING_CONFIRMATION");
    assert!(provider.calls().is_empty());
}

#[tokio::test]
async fn a_turn_that_waits_for_a_worker_is_cancelled() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "anybody?").await;
    cancel(&mut client, &session).await;
    client.ping().await;
    assert_eq!(client.terminals("r1"), 1);
    let _worker = stage.worker().await;
    expect_cancelled(&stage, &mut client, &session, "anybody?").await;
    assert_eq!(stage.gateway.requests().len(), 1, "the model was never asked about the cancelled message");
}

#[tokio::test]
async fn a_turn_with_a_running_tool_is_cancelled_and_the_late_result_changes_nothing() {
    let stage = Stage::start().await;
    let (release, tool) = Tool::held("slow", "late");
    let provider = Provider::start(&stage.nats, vec![tool]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    stage.gateway.script(Reply::tool_call("slow", json!({})));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "do it").await;
    let called = client.turn_until("r1", "stream_chunk").await;
    assert_eq!(tool_activity(&called), ["call slow"]);
    provider.wait_for_calls(1).await;
    cancel(&mut client, &session).await;
    client.ping().await;
    release.send(true).unwrap();
    expect_cancelled(&stage, &mut client, &session, "do it").await;
}

#[tokio::test]
async fn a_cancel_with_nothing_to_cancel_is_not_answered() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    client.send(&json!({"action": "cancel", "requestId": "c"})).await;
    let session = client.open_session().await;
    let mut other = Client::connect(&edge).await;
    for _ in 0..2 {
        for fields in [json!({}), json!({"sessionId": session.id}), json!({"sessionId": "nothing"})] {
            for client in [&mut client, &mut other] {
                let mut frame = fields.clone();
                frame["action"] = "cancel".into();
                frame["requestId"] = "c".into();
                client.send(&frame).await;
                client.ping().await;
            }
        }
        client.ask(&session, "r1", "hello").await;
    }
    let answered = |client: &Client| client.seen.iter().filter(|frame: &&Value| request_id(frame) == Some("c")).count();
    assert_eq!((answered(&client), answered(&other)), (0, 0));
    assert_eq!(client.history(&session).await, ["hello", "ok"]);
}

/// Many cancels at the same time as the turn's end leave exactly one end.
#[tokio::test]
async fn a_cancel_that_races_the_answer_leaves_exactly_one_end() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let (mut client, mut other) = tokio::join!(Client::connect(&a), Client::connect(&b));
    let (mut ends, rounds) = (Vec::new(), 20);
    for round in 0..rounds {
        let session = client.open_session().await;
        let gate = Gate::new();
        stage.gateway.script(Reply::gated(vec!["an ".into(), "answer".into()], &gate));
        let id = format!("r{round}");
        client.begin(&session, &id, "hello").await;
        stage.gateway.wait_for_requests(round + 1).await;
        gate.open();
        cancel(&mut other, &session).await;
        let turn = client.turn(&id).await;
        let end = turn.last().unwrap();
        let expected: &[&str] = match kind(end) {
            "cancelled" => &["hello"],
            _ => &["hello", answer_text(&turn)],
        };
        assert_eq!(client.history(&session).await, expected, "{}", streamed(&turn));
        ends.push(kind(end).to_owned());
    }
    client.ping().await;
    for round in 0..rounds {
        assert_eq!(client.terminals(&format!("r{round}")), 1, "{ends:?}");
    }
}

#[tokio::test]
async fn a_cancel_with_an_unknown_session_cancels_nothing() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let (mut client, _, gate) = streaming(&stage, &edge).await;
    for id in [json!(7), json!({}), json!([]), json!(false), json!("")] {
        client.send(&json!({"action": "cancel", "sessionId": id})).await;
    }
    client.ping().await;
    gate.open();
    assert_eq!(answer_text(&client.turn("r1").await), "one two three");
}
