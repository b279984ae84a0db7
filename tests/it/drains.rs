//! Draining of an edge: turns end, idle clients leave.

use crate::support::{
    Stage,
    client::Client,
    frames::{answer_text, streamed},
    gateway::{Gate, Reply},
};

/// The close code of a server that restarts.
const RESTART: Option<u16> = Some(1012);

#[tokio::test]
async fn a_stopping_edge_lets_turns_finish_and_closes_idle_connections() {
    let stage = Stage::start().await;
    let (mut edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let (mut busy, mut idle) = tokio::join!(Client::connect(&edge), Client::connect(&edge));
    let session = busy.open_session().await;
    idle.open_session().await;
    let gate = Gate::new();
    stage.gateway.script(Reply::gated(["one ", "two ", "three"].map(str::to_owned).into(), &gate));
    busy.begin(&session, "r1", "count").await;
    gate.release(1);
    busy.turn_until("r1", "stream_token").await;

    edge.process.signal(libc::SIGTERM);
    // The idle client is closed while the other client's turn goes on.
    assert_eq!(idle.close_code().await, RESTART);
    gate.open();
    let rest = busy.turn("r1").await;
    assert_eq!((streamed(&rest).as_str(), answer_text(&rest)), ("two three", "one two three"));
    assert_eq!(busy.close_code().await, RESTART);
    assert!(edge.process.ended().await.success());
}

#[tokio::test]
async fn a_stopping_edge_waits_for_turns_within_its_drain_time() {
    let stage = Stage::start().await;
    let (mut edge, _worker) = tokio::join!(stage.edge_with(&[("SMOOTH_AGENT_DRAIN_SECS", "0")]), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::hang_after(vec!["one ".into()]));
    client.begin(&session, "r1", "count").await;
    client.turn_until("r1", "stream_token").await;
    edge.process.signal(libc::SIGTERM);
    assert_eq!(client.close_code().await, RESTART);
    assert!(edge.process.ended().await.success());
}

#[tokio::test]
async fn processes_end_although_nats_is_away() {
    let mut stage = Stage::start().await;
    let (mut edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::hang_after(vec!["one ".into()]));
    client.begin(&session, "r1", "count").await;
    client.turn_until("r1", "stream_token").await;
    stage.nats.kill().await;
    edge.process.signal(libc::SIGTERM);
    worker.signal(libc::SIGTERM);
    // Without NATS the turn can't end, and the edge would wait for its client until the drain's time is over.
    drop(client);
    let (edge, worker) = tokio::join!(edge.process.ended(), worker.ended());
    assert!(edge.success() && worker.success());
}
