//! Work of conversations that can't be served now: it occupies no slot that others need, and is done later.

use async_nats::jetstream::{self, consumer::pull};
use serde_json::json;

use crate::{
    strays::put_stray,
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::answer_text,
        gateway::Reply,
        tools::{Provider, Tool},
    },
};

/// Deadlines that the consumer delivers before one of them is acknowledged.
const PLACES: usize = 3;
const HUMAN_WAIT: (&str, &str) = ("SMOOTH_AGENT_HUMAN_WAIT_SECS", "2");

/// Has a consumer deliver no more than [`PLACES`] messages before one is acknowledged.
async fn narrow(stage: &Stage, stream: &str, consumer: &str) {
    let context = jetstream::new(stage.nats.client().await);
    let stream = context.get_stream(stream).await.unwrap();
    let mut consumer = stream.get_consumer::<pull::Config>(consumer).await.unwrap();
    let config = consumer.info().await.unwrap().config.clone();
    stream.update_consumer(jetstream::consumer::Config { max_ack_pending: PLACES as i64, ..config }).await.unwrap();
}

/// Returns a client with a turn `r1` that waits for approval.
async fn parked(stage: &Stage, edge: &Edge) -> (Client, Session) {
    stage.gateway.script(Reply::tool_call("restart", json!({})));
    let mut client = Client::connect(edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "restart it").await;
    client.turn_until("r1", "stream_chunk").await;
    (client, session)
}

async fn gated_tool(stage: &Stage) -> Provider {
    Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await
}

#[tokio::test]
async fn deadlines_of_read_only_conversations_hold_no_slot() {
    let stage = Stage::start().await;
    narrow(&stage, "SCHED_local", "due").await;
    let _provider = gated_tool(&stage).await;
    let (edge, mut first) = tokio::join!(stage.edge(), stage.worker_with(&[HUMAN_WAIT]));
    let mut closed = Vec::new();
    for _ in 0..PLACES {
        let (client, session) = parked(&stage, &edge).await;
        put_stray(&stage, &session, "turn.imagined", "1!", "{}").await;
        closed.push(client);
    }
    let (mut client, _) = parked(&stage, &edge).await;
    first.kill().await;
    let _second = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r1").await), "ok", "its deadline has fired");
}

/// The conversation's keys are missing, as for a process with a restored copy of the bucket.
#[tokio::test]
async fn delayed_deadlines_fire_when_they_can_be_served() {
    let stage = Stage::start().await;
    narrow(&stage, "SCHED_local", "due").await;
    let _provider = gated_tool(&stage).await;
    let (edge, mut first) = tokio::join!(stage.edge(), stage.worker_with(&[HUMAN_WAIT]));
    let mut clients = Vec::new();
    for _ in 0..=PLACES {
        clients.push(parked(&stage, &edge).await);
    }
    first.kill().await;
    let (mut good, _) = clients.pop().unwrap();
    let keys = jetstream::new(stage.nats.client().await).get_stream("KV_KEYS").await.unwrap();
    let mut taken = Vec::new();
    for seq in 1..=keys.cached_info().state.last_sequence {
        let message = keys.get_raw_message(seq).await.unwrap();
        if clients.iter().any(|(_, session)| message.subject.contains(&session.conversation)) {
            keys.delete_message(seq).await.unwrap();
            taken.push(message);
        }
    }
    assert_eq!(taken.len(), 2 * PLACES);
    let mut second = stage.worker().await;
    assert_eq!(answer_text(&good.turn("r1").await), "ok", "its deadline has fired");
    for n in 0..PLACES {
        second.nth_line(n, |line| line.contains("a deadline is delayed")).await;
    }
    let context = jetstream::new(stage.nats.client().await);
    for message in taken {
        context.publish(message.subject, message.payload).await.unwrap().await.unwrap();
    }
    for (client, _) in &mut clients {
        assert_eq!(answer_text(&client.turn("r1").await), "ok", "its deadline has fired");
    }
}

#[tokio::test]
async fn turns_that_can_not_be_served_hold_no_slot() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut closed = Vec::new();
    for n in 0..PLACES {
        let mut client = Client::connect(&edge).await;
        let session = client.open_session().await;
        client.begin(&session, "r1", &format!("hello {n}")).await;
        put_stray(&stage, &session, "turn.imagined", "1!", "{}").await;
        closed.push(client);
    }
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "hello").await;
    let mut worker = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r1").await), "ok");
    // The items are redelivered, each time later.
    for later in ["5s", "10s"] {
        let is = |line: &str| line.contains("can't be served now") && line.contains(&format!("later={later}"));
        worker.nth_line(PLACES - 1, is).await;
    }
    let context = jetstream::new(stage.nats.client().await);
    let stream = context.get_stream("CHAT_local").await.unwrap();
    let mut consumer = stream.get_consumer::<pull::Config>("default").await.unwrap();
    let info = consumer.info().await.unwrap();
    assert_eq!(info.config.max_ack_pending, -1, "waiting items do not bound the others");
}
