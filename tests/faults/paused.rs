//! A worker that was paused does nothing irreversible on stale knowledge.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::support::{
    WAIT_MAX,
    client::{Client, Speaks},
    frames::{code, kind},
    gateway::Reply,
    log::Log,
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
    // Longer than one attempt of an append: the worker retries, and gets the awaited answer twice.
    sleep(Duration::from_secs(4)).await;
    proxy.let_go();

    worker.line(|line| line.contains("stopped driving a turn")).await;
    assert!(provider.calls("charge").is_empty(), "{:?}", provider.calls("charge"));
    schema::log(&stage.nats).await;
}

/// The person is told that the approval failed, and refuses then. The approval comes to the log late, and lets no tool
/// run.
#[tokio::test]
async fn an_approval_stored_late_is_void() {
    let stage = Stage::start().await;
    let tool = Tool { name: "refund", metadata: &[("confirm", "true")], takes: Duration::ZERO };
    let provider = Provider::start(&stage.nats.url(), vec![tool]).await;
    let proxy = Proxy::start(&stage.nats.url()).await;
    let of_edge = Product { nats_url: proxy.url(), ..stage.product.clone() };
    let (edge, _worker) = tokio::join!(of_edge.edge(), stage.worker());
    stage.gateway.script(Reply::tool_call("refund", json!({})));
    let mut client = Client::connect(&edge.address, Speaks::Standard).await.unwrap();
    let session = client.open_session().await;
    client.begin(&session, "r1", "refund me").await;
    client.turn_until("r1", "write_confirmation_required").await;
    proxy.hold_requests_from("turn.resumed");
    assert_eq!(code(&client.confirm(&session, true).await.unwrap()), "STORAGE_ERROR");
    proxy.let_go();
    let nats = stage.nats.client().await;
    let stored = async {
        while Log::read(&nats).await.count("turn.resumed") == 0 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, stored).await.expect("the approval comes late");

    let refused = client.confirm(&session, false).await.unwrap();
    assert_eq!(refused["data"]["approved"], false, "{refused}");
    client.turn("r1").await;
    assert!(provider.calls("refund").is_empty(), "{:?}", provider.calls("refund"));
}
