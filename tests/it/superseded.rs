//! A new message while a turn is active: which turn a request names, and which turn gives way.

use serde_json::{Value, json};
use turnstream::{
    domain::{Event, event::CancelReason},
    log::EventLog,
    nats::ReadFrom,
    subjects::ConversationKey,
};

use crate::{
    identity::handshake,
    support::{
        Edge, Stage,
        client::{Client, Session},
        encrypted,
        frames::{answer_text, code, kind, kinds},
        gateway::{Gate, Reply},
        tools::{Provider, Tool},
    },
};

/// Begins a turn `r1` of this client that waits for approval.
async fn parked(stage: &Stage, client: &mut Client) -> Session {
    stage.gateway.script(Reply::tool_call("restart", json!({})));
    let session = client.open_session().await;
    client.begin(&session, "r1", "restart it").await;
    client.turn_until("r1", "stream_chunk").await;
    session
}

async fn gated_tool(stage: &Stage) -> Provider {
    Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await
}

async fn resuming(edge: &Edge) -> Client {
    Client::try_connect(handshake(edge, "?v=resume", None)).await.unwrap()
}

#[tokio::test]
async fn a_visitor_may_reload_during_an_approval_and_send_a_new_message() {
    let stage = Stage::start().await;
    let provider = gated_tool(&stage).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut before = Client::connect(&edge).await;
    let session = parked(&stage, &mut before).await;

    // A reloaded page, with the session that it had kept, and with a new session on the same conversation.
    let mut reloaded = Client::connect(&edge).await;
    assert_eq!(answer_text(&reloaded.ask(&session, "n1", "hello?").await), "ok");
    // A client that still shows the old turn sees its one end.
    assert_eq!(kinds(&before.turn("r1").await), ["cancelled"]);
    before.ping().await;
    assert_eq!(before.terminals("r1"), 1);
    assert_eq!(code(&before.confirm(&session, true).await), "NO_PENDING_CONFIRMATION");
    assert!(provider.calls().is_empty(), "an unapproved call is not made");
    assert_eq!(reloaded.history(&session).await, ["restart it", "hello?", "ok"]);

    let log = encrypted::log(stage.nats.client().await);
    let kinds_of = events(&log, &session).await;
    assert!(kinds_of.contains(&"turn.cancelled".into()), "{kinds_of:?}");
    crate::support::schema::log(&stage.nats).await;
}

fn key(session: &Session) -> ConversationKey {
    let org = turnstream::auth::REFERENCE_ORG.to_string();
    ConversationKey { region: "local".into(), org, conversation: session.conversation.parse().unwrap() }
}

/// Waits until a conversation's last event is of this kind.
async fn until_last_is(log: &turnstream::log::jetstream_log::NatsLog, session: &Session, kind: &str) {
    let waited = async {
        while events(log, session).await[0] != kind {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(crate::support::WAIT_MAX, waited).await;
    assert!(in_time.is_ok(), "no {kind}: {:?}", events(log, session).await);
}

/// Returns the kinds of a conversation's events, newest first.
async fn events(log: &turnstream::log::jetstream_log::NatsLog, session: &Session) -> Vec<String> {
    let key = key(session);
    let (mut kinds, mut next) = (Vec::new(), log.last(&key, ReadFrom::Leader).await.unwrap());
    while let Some(stored) = next {
        kinds.push(stored.recorded.event.kind().to_string());
        next = match stored.envelope.prev {
            0 => None,
            prev => log.at(&key, prev, ReadFrom::Leader).await.unwrap(),
        };
    }
    kinds
}

#[tokio::test]
async fn a_running_or_answerable_turn_is_not_superseded() {
    let stage = Stage::start().await;
    let _provider = gated_tool(&stage).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut asking = Client::connect(&edge).await;
    let session = parked(&stage, &mut asking).await;
    // The asking connection was shown the prompt; a client of the resume extension is shown it on resuming.
    assert_eq!(code(&asking.say(&session, "r2", "hello?").await), "TURN_IN_PROGRESS");
    let mut resumed = resuming(&edge).await;
    assert_eq!(code(&resumed.say(&session, "r2", "hello?").await), "TURN_IN_PROGRESS");
    // A malformed message ends nothing.
    let mut reloaded = Client::connect(&edge).await;
    let bad = reloaded.request(json!({"action": "send_message", "sessionId": session.id, "message": ""})).await;
    assert_eq!(code(&bad), "VALIDATION_ERROR");
    asking.confirm(&session, true).await;
    assert_eq!(answer_text(&asking.turn("r1").await), "ok");

    let gate = Gate::new();
    stage.gateway.script(Reply::gated(vec!["done".into()], &gate));
    asking.begin(&session, "r3", "count").await;
    assert_eq!(code(&reloaded.say(&session, "n1", "hello?").await), "TURN_IN_PROGRESS");
    gate.open();
    assert_eq!(answer_text(&asking.turn("r3").await), "done");
}

#[tokio::test]
async fn a_repeated_request_id_with_another_message_is_another_turn() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let (mut first, mut second) = tokio::join!(Client::connect(&edge), Client::connect(&edge));
    let session = first.open_session().await;
    let gate = Gate::new();
    stage.gateway.script(Reply::gated(vec!["one".into()], &gate));
    first.begin(&session, "1", "the first").await;
    // During the turn, the same message is the same turn, and another one must wait.
    assert_eq!(code(&second.say(&session, "1", "the second").await), "TURN_IN_PROGRESS");
    assert_eq!(second.say(&session, "1", "the first").await["status"], 202);
    gate.open();
    for client in [&mut first, &mut second] {
        assert_eq!(answer_text(&client.turn("1").await), "one");
    }
    // After the turn, another message is a new turn, and a client that counts from 1 on each connection gets its own answers.
    stage.gateway.script(Reply::text("two"));
    let mut third = Client::connect(&edge).await;
    assert_eq!(answer_text(&third.ask(&session, "1", "the second").await), "two");
    for (message, answer) in [("the first", "one"), ("the second", "two")] {
        assert_eq!(answer_text(&third.ask(&session, "1", message).await), answer);
    }
    let with_picture = |url: &str| -> Value {
        json!({"action": "send_message", "requestId": "2", "sessionId": session.id, "message": "look",
            "images": [{ "url": url }]})
    };
    for (url, answer) in
        [("https://e.example/1", "a cat"), ("https://e.example/2", "a dog"), ("https://e.example/1", "a cat")]
    {
        stage.gateway.script(Reply::text(answer));
        third.send(&with_picture(url)).await;
        let accepted = third.answer("2").await;
        assert_eq!(accepted["status"], 202, "{accepted}");
        assert_eq!(answer_text(&third.turn("2").await), answer);
    }
    assert_eq!(stage.gateway.requests().len(), 4);
}

#[tokio::test]
async fn a_turn_without_a_worker_is_ended() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[("SMOOTH_AGENT_TURN_LIMIT_SECS", "1")]).await;
    let (mut client, mut gone) = tokio::join!(Client::connect(&edge), Client::connect(&edge));
    let (session, abandoned) = (client.open_session().await, gone.open_session().await);
    client.begin(&session, "r1", "is anybody there?").await;
    gone.begin(&abandoned, "r1", "hello").await;
    drop(gone);
    let end = client.turn("r1").await;
    assert_eq!((kind(end.last().unwrap()), code(end.last().unwrap())), ("error", "AGENT_ERROR"));
    // A turn without watchers gives way to the next message.
    client.begin(&abandoned, "r2", "hello again").await;
    let _worker = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r2").await), "ok");
    assert_eq!(answer_text(&client.ask(&session, "r3", "now?").await), "ok");
}

#[tokio::test]
async fn an_unclaimed_turn_is_ended_without_a_watching_client() {
    let stage = Stage::start().await;
    let limit = [("SMOOTH_AGENT_TURN_LIMIT_SECS", "1")];
    let (one, other, mut worker) = tokio::join!(stage.edge_with(&limit), stage.edge_with(&limit), stage.worker());
    let mut client = Client::connect(&one).await;
    let (session, claimed) = (client.open_session().await, client.open_session().await);
    client.ask(&session, "r1", "hello").await;
    stage.gateway.script(Reply::hang_after(vec!["one ".into()]));
    client.begin(&claimed, "r1", "count").await;
    client.turn_until("r1", "stream_token").await;
    worker.kill().await;
    let nats = stage.nats.client().await;
    let log = encrypted::log(nats.clone());
    client.begin(&session, "r2", "is anybody there?").await;
    drop(client);
    until_last_is(&log, &session, "turn.cancelled").await;
    // A later turn is ended, too, and each turn once, though both edges sweep.
    let mut client = Client::connect(&other).await;
    client.begin(&session, "r3", "hello again").await;
    drop(client);
    until_last_is(&log, &session, "turn.cancelled").await;
    let kinds_of = events(&log, &session).await;
    let ended = ["turn.cancelled", "turn.requested", "turn.cancelled", "turn.requested", "turn.completed"];
    assert_eq!(kinds_of[..5], ended);
    let last = log.last(&key(&session), ReadFrom::Leader).await.unwrap().unwrap().recorded.event;
    let Event::TurnCancelled(ended) = last else { panic!("{last:?}") };
    assert_eq!(ended.reason, Some(CancelReason::NoWorker));
    // A claimed turn that no worker goes on with is ended, too.
    until_last_is(&log, &claimed, "turn.cancelled").await;
    assert_eq!(events(&log, &claimed).await[..2], ["turn.cancelled", "turn.started"]);
    crate::support::schema::log(&stage.nats).await;
}
