//! Outages of NATS, and the recovery.

use serde_json::json;

use crate::support::{
    Stage,
    client::{Client, Session},
    frames::{answer_text, code, streamed},
    gateway::{Gate, Reply},
    tools::{Provider, Tool},
};

#[tokio::test]
async fn a_restart_of_nats_loses_no_conversation_and_no_approval() {
    let mut stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    stage.gateway.script(Reply::tool_call("restart", json!({})));
    client.begin(&session, "r2", "restart it").await;
    client.turn_until("r2", "stream_chunk").await;

    stage.nats.kill().await;
    client.ping().await;
    stage.nats.restart().await;

    assert_eq!(client.history(&session).await, ["hello", "ok", "restart it"]);
    assert_eq!(code(&client.say(&session, "r3", "hello?").await), "TURN_IN_PROGRESS");
    assert_eq!(client.confirm(&session, true).await["status"], 200);
    assert_eq!(answer_text(&client.turn("r2").await), "ok");
    assert_eq!(provider.calls().len(), 1);
    assert_eq!(answer_text(&client.ask(&session, "r3", "thanks").await), "ok");
}

/// The restarted server has lost its pull requests, and an unanswered pull lasts for seconds.
#[tokio::test]
async fn work_is_pulled_again_as_soon_as_nats_is_back() {
    let mut stage = Stage::start().await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    for round in 0..2 {
        client.ask(&session, &format!("r{round}"), "hello").await;
        stage.nats.kill().await;
        stage.nats.restart().await;
        for stream in ["CHAT_local", "SCHED_local"] {
            let asks = |line: &str| line.contains("reconnected: pulling work again") && line.contains(stream);
            // Turns and the index are both consumers of the conversations' stream.
            let before = if stream == "CHAT_local" { 2 * round + 1 } else { round };
            worker.nth_line(before, asks).await;
        }
    }
    assert_eq!(answer_text(&client.ask(&session, "r9", "hello").await), "ok");
}

#[tokio::test]
async fn a_turn_during_a_restart_of_nats_ends_once_with_its_whole_answer() {
    let mut stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let gate = Gate::new();
    let words = "an answer that is long".split_inclusive(' ').map(str::to_owned).collect();
    stage.gateway.script(Reply::gated(words, &gate));
    client.begin(&session, "r1", "hello").await;
    gate.release(1);
    let begun = client.turn_until("r1", "stream_token").await;

    stage.nats.kill().await;
    gate.release(2);
    stage.nats.restart().await;
    gate.open();
    let rest = client.turn("r1").await;
    assert_eq!(answer_text(&rest), "an answer that is long");
    let text = streamed(&begun) + &streamed(&rest);
    assert!("an answer that is long".starts_with(&text), "no word twice, none out of order: {text}");
    assert_eq!(client.history(&session).await, ["hello", "an answer that is long"]);
    assert_eq!(answer_text(&client.ask(&session, "r2", "thanks").await), "ok");
    assert_eq!(client.terminals("r1"), 1);
}

/// The refused message reaches NATS after all, but too late to count, since the client got an error.
#[tokio::test]
async fn without_nats_a_message_is_refused_until_it_is_sent_again() {
    let mut stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    stage.nats.kill().await;
    for _ in 0..2 {
        assert_eq!(code(&client.say(&session, "r2", "are you there?").await), "STORAGE_ERROR");
    }
    stage.nats.restart().await;
    expect_one_answer(&stage, &mut client, &session).await;
}

/// NATS was only stopped: the refused message is stored in time, so its turn runs, and a repeated send joins it.
#[tokio::test]
async fn a_refused_but_stored_message_is_the_same_turn_when_sent_again() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    stage.nats.process.signal(libc::SIGSTOP);
    assert_eq!(code(&client.say(&session, "r2", "are you there?").await), "STORAGE_ERROR");
    stage.nats.process.signal(libc::SIGCONT);
    expect_one_answer(&stage, &mut client, &session).await;
}

async fn expect_one_answer(stage: &Stage, client: &mut Client, session: &Session) {
    let turn = client.ask(session, "r2", "are you there?").await;
    assert_eq!(answer_text(&turn), "ok");
    assert_eq!(answer_text(&client.ask(session, "r3", "thanks").await), "ok");
    assert_eq!(client.history(session).await, ["hello", "ok", "are you there?", "ok", "thanks", "ok"]);
    assert_eq!(stage.gateway.requests().len(), 3);
}
