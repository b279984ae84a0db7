//! Simultaneous messages, and repeated messages.

use serde_json::Value;

use crate::support::{
    Stage,
    client::{Client, Session, message_frame},
    frames::{answer_text, code, kind, kinds, streamed},
    gateway::{Gate, Reply},
};

const ROUNDS: usize = 20;

#[tokio::test]
async fn of_two_concurrent_messages_exactly_one_is_accepted() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let (mut anna, mut bert) = tokio::join!(Client::connect(&a), Client::connect(&b));
    for round in 0..ROUNDS {
        let gate = Gate::new();
        stage.gateway.script(Reply::gated(vec!["the winner".into()], &gate));
        let session = anna.open_session().await;
        let (of_anna, of_bert) = (format!("anna-{round}"), format!("bert-{round}"));
        let answers = tokio::join!(anna.say(&session, &of_anna, "mine"), bert.say(&session, &of_bert, "mine"));
        let (winner, id, loser) = match (answers.0["status"] == 202, answers.1["status"] == 202) {
            (true, false) => (&mut anna, of_anna, answers.1),
            (false, true) => (&mut bert, of_bert, answers.0),
            _ => panic!("not exactly one was accepted: {answers:#?}"),
        };
        assert_eq!(code(&loser), "TURN_IN_PROGRESS");
        gate.open();
        assert_eq!(answer_text(&winner.turn(&id).await), "the winner");
        assert_eq!(winner.history(&session).await, ["mine", "the winner"]);
    }
    assert_eq!(stage.gateway.requests().len(), ROUNDS);
}

#[tokio::test]
async fn concurrent_equal_requests_are_one_turn() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let (mut anna, mut bert) = tokio::join!(Client::connect(&a), Client::connect(&b));
    for round in 0..ROUNDS {
        stage.gateway.script(Reply::text("once only"));
        let session = anna.open_session().await;
        let id = format!("r{round}");
        tokio::join!(anna.begin(&session, &id, "me"), bert.begin(&session, &id, "me"));
        for client in [&mut anna, &mut bert] {
            let turn = client.turn(&id).await;
            assert_eq!(answer_text(&turn), "once only");
        }
        assert_eq!(bert.history(&session).await, ["me", "once only"]);
    }
    for round in 0..ROUNDS {
        let id = format!("r{round}");
        assert_eq!((anna.terminals(&id), bert.terminals(&id)), (1, 1));
    }
    assert_eq!(stage.gateway.requests().len(), ROUNDS);
}

/// A client without an answer sends its message again, on any edge and at any time: still one turn.
#[tokio::test]
async fn a_repeated_message_is_the_same_turn() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let (mut anna, mut bert) = tokio::join!(Client::connect(&a), Client::connect(&b));
    let session = anna.open_session().await;
    let gate = Gate::new();
    stage.gateway.script(Reply::gated(vec!["once ".into(), "only".into()], &gate));
    anna.begin(&session, "r1", "me").await;
    gate.release(1);
    let mut shown = anna.turn_until("r1", "stream_token").await;

    anna.begin(&session, "r1", "me").await;
    bert.begin(&session, "r1", "me").await;
    gate.open();
    shown.extend(anna.turn("r1").await);
    for turn in [shown, bert.turn("r1").await] {
        assert_eq!(kinds(&turn), ["stream_token", "eventual_response"]);
        assert_eq!(streamed(&turn), "once only");
        assert_eq!(answer_text(&turn), "once only");
    }

    let late = again_after_the_end(&mut bert, &session).await;
    let mut third = Client::connect(&a).await;
    assert_eq!(again_after_the_end(&mut third, &session).await, late);
    assert_eq!(stage.gateway.requests().len(), 1);
    assert_eq!(anna.history(&session).await, ["me", "once only"]);
    assert_eq!(anna.terminals("r1"), 1);
    assert_eq!(answer_text(&third.ask(&session, "r2", "next").await), "ok");
}

/// Sends the message again; returns the end of the turn, which alone must follow the 202.
async fn again_after_the_end(client: &mut Client, session: &Session) -> Value {
    client.send(&message_frame(session, "r1", "me")).await;
    let (accepted, end) = (client.next().await, client.next().await);
    assert_eq!((&accepted["status"], kind(&end)), (&202.into(), "eventual_response"));
    client.ping().await;
    assert_eq!(kind(client.seen.last().unwrap()), "pong");
    end["data"].clone()
}

#[tokio::test]
async fn a_message_repeated_after_a_failure_gets_the_failure() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::status(401));
    for _ in 0..2 {
        client.begin(&session, "r1", "me").await;
        assert_eq!(code(&client.turn("r1").await[0]), "AGENT_ERROR");
    }
    assert_eq!(stage.gateway.requests().len(), 1);
    assert_eq!(answer_text(&client.ask(&session, "r2", "me").await), "ok");
}

#[tokio::test]
async fn the_same_request_id_on_another_session_is_another_turn() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    for _ in 0..2 {
        let session = client.open_session().await;
        assert_eq!(answer_text(&client.ask(&session, "r1", "me").await), "ok");
    }
    assert_eq!(stage.gateway.requests().len(), 2);
}
