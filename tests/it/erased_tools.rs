//! Conversations with erased tool events go on, in running processes and in new ones.

use serde_json::json;

use crate::support::{
    Stage,
    client::Client,
    frames::answer_text,
    gateway::Reply,
    tools::{Provider, Tool},
};

/// A time at which everything in these tests is due.
const LATER: &str = "2126-01-01T00:00:00Z";

async fn retain(stage: &Stage) -> String {
    let days = [("SMOOTH_AGENT_RETAIN_TOOLS_DAYS", "1")];
    let mut process = stage.run("retain", &["retain", "--as-of", LATER], &days);
    assert!(process.ended().await.success(), "{}", process.output());
    process.output()
}

#[tokio::test]
async fn a_conversation_goes_on_after_its_tools_were_erased() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let (session, waiting) = (client.open_session().await, client.open_session().await);
    for session in [&session, &waiting] {
        stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-1"})));
        client.begin(session, &session.id, "restart it").await;
        client.turn_until(&session.id, "stream_chunk").await;
    }
    client.confirm(&session, true).await;
    assert_eq!(answer_text(&client.turn(&session.id).await), "ok");
    let told = retain(&stage).await;
    assert!(told.contains("tools: 2 conversations due, 0 of them held, 1 with a turn"), "{told}");

    // Both the edge that knew the conversations and a new one read them, without snapshots.
    let client_of_cache = stage.nats.client().await;
    let streams = async_nats::jetstream::new(client_of_cache);
    streams.get_stream("KV_CONVERSATIONS").await.unwrap().purge().await.unwrap();
    let fresh = stage.edge().await;
    for (n, edge) in [&edge, &fresh].into_iter().enumerate() {
        let mut client = Client::connect(edge).await;
        assert_eq!(client.history(&session).await[..2], ["restart it", "ok"]);
        assert_eq!(answer_text(&client.ask(&session, &format!("r{n}"), "and now?").await), "ok");
    }
    // The parked conversation still waits, with all the data it needs.
    client.confirm(&waiting, true).await;
    assert_eq!(answer_text(&client.turn(&waiting.id).await), "ok");
}
