//! Deadlines of people who do not decide: they are kept in the log, not in a process's memory.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    WAIT_MAX,
    client::{Client, Speaks},
    frames::{answer_text, code, tool_activity},
    gateway::Reply,
    provider::{Provider, Tool},
    schema,
    stage::Stage,
};

const HUMAN_WAIT: (&str, &str) = ("SMOOTH_AGENT_HUMAN_WAIT_SECS", "1");

/// Begins a turn `r1` that waits for approval of a tool call.
async fn parked(stage: &Stage, address: &str) -> (Client, String) {
    stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-1"})));
    stage.gateway.script(Reply::text("then not"));
    let mut client = Client::connect(address, Speaks::Standard).await.unwrap();
    let session = client.open_session().await;
    client.begin(&session, "r1", "restart it").await;
    client.turn_until("r1", "write_confirmation_required").await;
    (client, session)
}

async fn provider(stage: &Stage) -> Provider {
    let tool = Tool { name: "restart", metadata: &[("confirm", "true")], takes: Default::default() };
    Provider::start(&stage.nats.url(), vec![tool]).await
}

/// Expects that the turn goes on as if the person had said no, and that no decision is pending any more.
async fn expect_denied(stage: &Stage, provider: &Provider, client: &mut Client, session: &str) {
    let rest = client.turn("r1").await;
    assert_eq!(answer_text(&rest), "then not");
    let activity = tool_activity(&rest);
    assert_eq!(activity.len(), 2, "{activity:?}");
    assert_eq!(activity[0], "call restart");
    assert!(activity[1].starts_with("error ") && activity[1].contains("not"), "{activity:?}");
    assert!(provider.calls("restart").is_empty(), "an unapproved call is not made");
    let requests = stage.gateway.requests();
    let told = requests[1]["messages"].as_array().and_then(|messages| messages.last()).unwrap();
    assert_eq!(told["role"], "tool");
    assert!(told["content"].as_str().is_some_and(|text| text.contains("in time")), "{told}");
    let late: Value = client.confirm(session, true).await.unwrap();
    assert_eq!(code(&late), "NO_PENDING_CONFIRMATION");
    assert_eq!(stage.gateway.requests().len(), 2);
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn a_missing_approval_counts_as_a_denial() {
    let stage = Stage::start().await;
    let provider = provider(&stage).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.product.worker(&[HUMAN_WAIT]));
    let (mut client, session) = parked(&stage, &edge.address).await;
    expect_denied(&stage, &provider, &mut client, &session).await;
}

#[tokio::test]
async fn the_deadline_outlives_the_worker_and_the_server() {
    let mut stage = Stage::start().await;
    let provider = provider(&stage).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.product.worker(&[HUMAN_WAIT]));
    let (mut client, session) = parked(&stage, &edge.address).await;
    worker.kill().await;
    stage.nats.kill().await;
    stage.nats.restart().await;

    let _worker = stage.worker().await;
    expect_denied(&stage, &provider, &mut client, &session).await;
}

/// The limit is measured from the request; only time itself brings it about.
#[tokio::test]
async fn an_unclaimed_turn_is_dead_lettered_at_its_time_limit() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let nats = stage.nats.client().await;
    let mut notes = nats.subscribe("dead.>").await.unwrap();
    nats.flush().await.unwrap();
    let mut client = Client::connect(&edge.address, Speaks::Resume).await.unwrap();
    let session = client.open_session().await;
    client.begin(&session, "r1", "hello").await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let _worker = stage.product.worker(&[("SMOOTH_AGENT_TURN_LIMIT_SECS", "1")]).await;
    assert_eq!(code(client.turn("r1").await.last().unwrap()), "AGENT_ERROR");
    let note = timeout(WAIT_MAX, notes.next()).await.expect("a note in time").unwrap();
    let note: Value = serde_json::from_slice(&note.payload).unwrap();
    assert_eq!(note["reason"], "expired");
    assert!(stage.gateway.requests().len() <= 1, "only the request opened with the claim was sent");
    schema::log(&stage.nats).await;
}

/// A person takes longer than a turn may stand still: the limit is on progress, and waits for people have deadlines of
/// their own.
#[tokio::test]
async fn a_persons_delay_does_not_end_a_turn() {
    let stage = Stage::start().await;
    let provider = provider(&stage).await;
    let edge = stage.edge().await;
    let _worker = stage.product.worker(&[("SMOOTH_AGENT_TURN_LIMIT_SECS", "2")]).await;
    let (mut client, session) = parked(&stage, &edge.address).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    client.confirm(&session, true).await.unwrap();
    assert_eq!(answer_text(&client.turn("r1").await), "then not");
    assert_eq!(provider.calls("restart").len(), 1);
    schema::log(&stage.nats).await;
}

/// A whole turn has a limit, too, which is generous and counts waits.
#[tokio::test]
async fn a_turn_has_a_total_time_limit() {
    let stage = Stage::start().await;
    let provider = provider(&stage).await;
    let edge = stage.edge().await;
    let _worker = stage.product.worker(&[("SMOOTH_AGENT_TURN_CAP_SECS", "2")]).await;
    let (mut client, session) = parked(&stage, &edge.address).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    client.confirm(&session, true).await.unwrap();
    assert_eq!(code(client.turn("r1").await.last().unwrap()), "AGENT_ERROR");
    assert!(provider.calls("restart").is_empty());
}
