//! A turn that kills its workers.

use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;
use turnstream::domain::event::kind;

use crate::support::{
    WAIT_MAX,
    client::{Client, Speaks},
    frames::{answer_text, code, is_terminal},
    gateway::Reply,
    log::Log,
    schema,
    stage::Stage,
};

/// Claims of a turn without a step in between; the next one gives the turn up.
const CLAIMS_MAX: usize = 5;

#[tokio::test]
async fn a_turn_that_kills_every_worker_is_dead_lettered() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let nats = stage.nats.client().await;
    let mut notes = nats.subscribe("dead.>").await.unwrap();
    nats.flush().await.unwrap();
    let mut client = Client::connect(&edge.address, Speaks::Resume).await.unwrap();
    let session = client.open_session().await;
    client.begin(&session, "r1", "die").await;
    for _ in 0..CLAIMS_MAX {
        stage.gateway.script(Reply::hang_after(vec!["deadly ".into()]));
        let mut worker = stage.worker().await;
        // A token that was shown proves that the turn was claimed.
        client.turn_until("r1", "stream_token").await;
        worker.kill().await;
        stage.gateway.wait_for_open_streams(0).await;
    }
    let _worker = stage.worker().await;
    let end = client.turn("r1").await;
    assert_eq!(code(end.last().unwrap()), "AGENT_ERROR");
    let note = timeout(WAIT_MAX, notes.next()).await.expect("a note in time").unwrap();
    let note: Value = serde_json::from_slice(&note.payload).unwrap();
    assert_eq!((&note["requestId"], &note["reason"]), (&"r1".into(), &"poison".into()), "{note}");

    // The conversation is not poisoned, and no terminal frame comes twice.
    client.begin(&session, "r2", "hello").await;
    assert_eq!(answer_text(&client.turn("r2").await), "ok");
    assert_eq!(client.frames_of("r1").iter().filter(|frame| is_terminal(frame)).count(), 1);
    schema::log(&stage.nats).await;
}

/// A rolling restart in the middle of a long answer: every worker that takes the turn is stopped.
#[tokio::test]
async fn a_turn_that_every_worker_hands_over_is_not_given_up() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge.address, Speaks::Resume).await.unwrap();
    let session = client.open_session().await;
    client.begin(&session, "r1", "take your time").await;
    let mut stopping = Vec::new();
    for _ in 0..=CLAIMS_MAX {
        stage.gateway.script(Reply::hang_after(vec!["long ".into()]));
        let worker = stage.worker().await;
        client.turn_until("r1", "stream_token").await;
        worker.signal(libc::SIGTERM);
        stopping.push(worker);
    }
    let _worker = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r1").await), "ok");
    for mut worker in stopping {
        assert!(worker.ended().await.success());
    }
    let log = Log::read(&stage.nats.client().await).await;
    assert_eq!((log.count(kind::TURN_RELEASED), log.count(kind::TURN_STARTED)), (CLAIMS_MAX + 1, CLAIMS_MAX + 2));
    schema::log(&stage.nats).await;
}
