//! A turn that waits for a person needs neither worker nor edge nor connection.

use serde_json::json;

use crate::support::{
    Stage,
    client::Client,
    frames::{answer_text, kinds, request_id, streamed, tool_activity},
    gateway::Reply,
    schema,
    tools::{Provider, Tool},
};

#[tokio::test]
async fn a_parked_approval_outlives_worker_edge_and_client() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-1"})).with_text("Let me see. "));
    stage.gateway.script(Reply::text("it runs again"));
    let (mut edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let first = client.open_session().await;
    client.begin(&first, "r1", "restart the database").await;
    let parked = client.turn_until("r1", "stream_chunk").await;
    assert_eq!(kinds(&parked), ["stream_token", "write_confirmation_required", "stream_chunk"]);
    let prompt = parked[parked.len() - 2]["data"].clone();
    tokio::join!(worker.kill(), edge.process.kill());
    drop(client);

    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let second = client.resume(&first.conversation).await;
    assert_eq!(second.conversation, first.conversation);
    assert_ne!(second.id, first.id);
    let again = client.turn_until("r1", "stream_chunk").await;
    assert_eq!(kinds(&again), ["write_confirmation_required", "stream_chunk"]);
    assert_eq!(again[0]["data"], prompt);
    assert_eq!(tool_activity(&again), ["call restart"]);

    let confirmed = client.confirm(&second, true).await;
    assert_eq!(confirmed["message"], "Tool action approved");
    let _worker = stage.worker().await;
    let rest = client.turn("r1").await;
    assert_eq!(kinds(&rest), ["stream_chunk", "stream_token", "eventual_response"]);
    assert_eq!(tool_activity(&rest), ["result done"]);
    assert_eq!(streamed(&rest), "it runs again");
    assert_eq!(answer_text(&rest), "it runs again");

    assert_eq!(answer_text(&client.ask(&second, "r3", "thanks").await), "ok");
    assert_eq!(client.terminals("r1"), 1);
    let calls = provider.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].tool, &calls[0].arguments), ("restart", &json!({"id": "db-1"})));
    assert!(!calls[0].id.is_empty());
    assert_eq!(client.history(&second).await, ["restart the database", "it runs again", "thanks", "ok"]);
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn a_prompt_is_shown_once_on_a_connection_that_resumes_twice() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    stage.gateway.script(Reply::tool_call("restart", json!({})));
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "restart it").await;
    client.turn_until("r1", "stream_chunk").await;

    let mut other = Client::connect(&edge).await;
    other.resume(&session.conversation).await;
    let again = other.resume(&session.conversation).await;
    other.ping().await;
    let frames: Vec<_> = other.seen.iter().filter(|frame| request_id(frame) == Some("r1")).cloned().collect();
    assert_eq!(kinds(&frames), ["write_confirmation_required", "stream_chunk"]);
    assert_eq!(frames.len(), 2);

    other.confirm(&again, false).await;
    for watcher in [&mut client, &mut other] {
        let rest = watcher.turn_until("r1", "eventual_response").await;
        assert_eq!(answer_text(&rest), "ok");
    }
}

#[tokio::test]
async fn a_client_that_resumes_while_the_answer_streams_sees_it_from_its_beginning() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let gate = crate::support::gateway::Gate::new();
    let words = "one two three four".split_inclusive(' ').map(str::to_owned).collect();
    stage.gateway.script(Reply::gated(words, &gate));
    let mut first = Client::connect(&a).await;
    let session = first.open_session().await;
    first.begin(&session, "r1", "count").await;
    for _ in 0..2 {
        gate.release(1);
        first.turn_until("r1", "stream_token").await;
    }
    drop(first);

    let mut second = Client::connect(&b).await;
    second.resume(&session.conversation).await;
    gate.open();
    let turn = second.turn("r1").await;
    assert_eq!(streamed(&turn), "one two three four");
    assert_eq!(answer_text(&turn), "one two three four");
    second.ping().await;
    assert_eq!(second.terminals("r1"), 1);
}
