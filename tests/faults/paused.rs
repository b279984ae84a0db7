//! A worker that was held up does nothing that can't be undone on the strength of what it knew before.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::support::{
    client::{Client, Speaks},
    frames::kind,
    gateway::Reply,
    provider::{Provider, Tool},
    proxy::Proxy,
    schema,
    stage::{Product, Stage},
};

/// The intent is stored, the turn is cancelled, and only then does the worker learn that the intent was stored.
#[tokio::test]
async fn a_tool_is_not_called_when_the_turn_ended_meanwhile() {
    let stage = Stage::start().await;
    let tool = Tool { name: "charge", metadata: &[], takes: Duration::ZERO };
    let provider = Provider::start(&stage.nats.url(), vec![tool]).await;
    let proxy = Proxy::start(&stage.nats.url()).await;
    let of_worker = Product { nats_url: proxy.url(), ..stage.product.clone() };
    let (edge, mut worker) = tokio::join!(stage.edge(), of_worker.worker(&[]));
    stage.gateway.script(Reply::tool_call("charge", json!({})));
    let mut client = Client::connect(&edge.address, Speaks::Standard).await.unwrap();
    let session = client.open_session().await;
    proxy.hold_answers_after("turn.tool_called");
    client.begin(&session, "r1", "charge me").await;
    proxy.holds().await;
    client.send(&json!({"action": "cancel"})).await.unwrap();
    let end = client.turn("r1").await;
    assert_eq!(end.last().map(kind), Some("cancelled"));
    // Longer than one try of an append: the worker tries again, and what it wants to know comes twice.
    sleep(Duration::from_secs(4)).await;
    proxy.let_go();

    worker.line(|line| line.contains("stopped driving a turn")).await;
    assert!(provider.calls("charge").is_empty(), "{:?}", provider.calls("charge"));
    schema::log(&stage.nats).await;
}
