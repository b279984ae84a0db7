//! The log for auditors: replayed in words and as data, and verified, with read permission only.

use serde_json::{Value, json};

use crate::support::{
    Stage,
    client::Client,
    frames::answer_text,
    gateway::Reply,
    tools::{Provider, Tool},
};

async fn run(stage: &Stage, arguments: &[&str]) -> (bool, String) {
    let mut process = stage.run(arguments[0], arguments, &[("RUST_LOG", "error")]);
    (process.ended().await.success(), process.output())
}

fn lines(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn a_replayed_chain_holds_until_an_event_is_forged() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("pay", "paid").with("confirm", "true")]).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("pay", json!({ "id": "bill-7" })).with_text("One moment. "));
    stage.gateway.script(Reply::text("It is paid."));
    client.begin(&session, "r1", "pay\u{1b}[31m my bill").await;
    client.turn_until("r1", "write_confirmation_required").await;
    worker.kill().await;
    client.confirm(&session, true).await;
    let _worker = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r1").await), "It is paid.");

    let conversation = session.conversation.as_str();
    let (found, timeline) = run(&stage, &["replay", conversation]).await;
    assert!(found, "{timeline}");
    for words in [
        "asks “pay [31m my bill”",
        "waits for approval of “Pay: id bill-7”",
        "approved by session",
        "answers “It is paid.”",
    ] {
        assert!(timeline.contains(words), "{words} is not in\n{timeline}");
    }
    assert!(!timeline.contains('\u{1b}'));
    let (_, stored) = run(&stage, &["replay", conversation, "--format", "ndjson"]).await;
    let stored = lines(&stored);
    let (_, events) = run(&stage, &["replay", conversation, "--format", "cloudevents"]).await;
    let events = lines(&events);
    assert_eq!(stored.len(), events.len());
    for (stored, event) in stored.iter().zip(&events) {
        assert_eq!((&event["specversion"], &event["data"]), (&json!("1.0"), &stored["payload"]));
        assert_eq!(event["prevdigest"], stored["headers"]["ce-prevdigest"]);
    }
    // The state at each event equals the fold of the events up to there.
    for event in &stored {
        let seq = event["seq"].to_string();
        let (_, state) = run(&stage, &["replay", conversation, "--state", "--until", &seq]).await;
        let (_, again) =
            run(&stage, &["replay", conversation, "--state", "--until", event["storedAt"].as_str().unwrap()]).await;
        assert_eq!(state, again);
        assert_eq!(serde_json::from_str::<Value>(&state).unwrap()["last_seq"], event["seq"]);
    }
    let hidden = [("RUST_LOG", "error"), ("SMOOTH_AGENT_REDACT_ARGUMENTS", "pay.id")];
    for format in ["timeline", "ndjson", "cloudevents"] {
        let mut process = stage.run("redacted", &["replay", conversation, "--format", format], &hidden);
        assert!(process.ended().await.success());
        let told = process.output();
        assert!(told.contains("[redacted]") && !told.contains("bill-7"), "{told}");
    }
    let (found, said) = run(&stage, &["replay", &uuid::Uuid::new_v4().to_string()]).await;
    assert!(!found && said.contains("there is no conversation"), "{said}");

    let (passed, said) = run(&stage, &["audit", "verify"]).await;
    assert!(passed && said.contains("every event follows from the previous one"), "{said}");
    let log = async_nats::jetstream::new(stage.nats.client().await);
    let mut forged = async_nats::HeaderMap::new();
    for (name, value) in stored.last().unwrap()["headers"].as_object().unwrap() {
        forged.insert(name.as_str(), value.as_str().unwrap());
    }
    forged.insert("Nats-Msg-Id", "forged");
    let payload = stored.last().unwrap()["payload"].to_string().replace("paid", "free");
    let subject = stored.last().unwrap()["subject"].as_str().unwrap().to_owned();
    let published = log.publish_with_headers(subject, forged, payload.into()).await.unwrap();
    let seq = published.await.unwrap().sequence;
    let (passed, said) = run(&stage, &["audit", "verify", "--json"]).await;
    assert!(!passed && said.contains(&format!("\"seq\": {seq}")), "{said}");
}
