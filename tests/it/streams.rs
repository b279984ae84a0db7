//! Applying the streams' definitions again: an operator's choice stays, and a lost stream is not made anew by the way.

use serde_json::{Value, json};

use crate::support::{Stage, client::Client, frames::answer_text};

async fn apply(stage: &Stage, options: &[&str]) -> (bool, String) {
    let arguments = [&["streams", "apply"], options].concat();
    let mut process = stage.run("streams apply", &arguments, &[]);
    (process.ended().await.success(), process.output())
}

async fn api(stage: &Stage, verb: &str, stream: &str, payload: Value) -> Value {
    let client = stage.nats.client().await;
    let payload = if payload.is_null() { String::new() } else { payload.to_string() };
    let reply = client.request(format!("$JS.API.STREAM.{verb}.{stream}"), payload.into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

#[tokio::test]
async fn applying_again_leaves_what_an_operator_chose() {
    let stage = Stage::start().await;
    let mut config = api(&stage, "INFO", "CHAT_local", Value::Null).await["config"].clone();
    config["max_bytes"] = json!(1_000_000_000);
    config["placement"] = json!({"tags": []});
    config["metadata"]["team"] = json!("support");
    assert!(api(&stage, "UPDATE", "CHAT_local", config).await["error"].is_null());
    let mut index = api(&stage, "INFO", "KV_INDEX", Value::Null).await["config"].clone();
    index["allow_direct"] = json!(false);
    assert!(api(&stage, "UPDATE", "KV_INDEX", index).await["error"].is_null());

    let (fine, planned) = apply(&stage, &["--dry-run"]).await;
    assert!(fine && planned.contains("KV_INDEX: allow_direct would change from false to true"), "{planned}");
    assert!(!planned.contains("CHAT_local"), "{planned}");
    let after_plan = api(&stage, "INFO", "KV_INDEX", Value::Null).await;
    let is_direct = after_plan["config"]["allow_direct"].as_bool().unwrap_or_default();
    assert!(!is_direct, "a dry run changes nothing");

    let (fine, said) = apply(&stage, &[]).await;
    assert!(fine && said.contains("KV_INDEX updated") && said.contains("CHAT_local unchanged"), "{said}");
    let chat = api(&stage, "INFO", "CHAT_local", Value::Null).await["config"].clone();
    assert_eq!((&chat["max_bytes"], &chat["metadata"]["team"]), (&json!(1_000_000_000), &json!("support")));
    let (fine, said) = apply(&stage, &["--dry-run"]).await;
    assert!(fine && said.contains("nothing would change"), "{said}");
}

#[tokio::test]
async fn a_lost_stream_is_made_anew_only_when_the_loss_is_known() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    assert_eq!(answer_text(&client.ask(&session, "r1", "hello").await), "ok");
    for (stream, name) in [
        ("KV_KEYS", "KEYS"),
        ("KV_AGENTS", "AGENTS"),
        ("KV_SETTINGS", "SETTINGS"),
        ("AUDIT_local", "AUDIT"),
        ("CHAT_local", "CHAT"),
    ] {
        assert!(api(&stage, "DELETE", stream, Value::Null).await["error"].is_null());
        for options in [&[][..], &["--dry-run"], &["--lost", "INDEX"]] {
            let (fine, said) = apply(&stage, options).await;
            assert!(!fine && said.contains(stream) && said.contains(&format!("--lost {name}")), "{stream}: {said}");
            assert!(!api(&stage, "INFO", stream, Value::Null).await["error"].is_null(), "{stream} is not created");
        }
        let (fine, said) = apply(&stage, &["--lost", name]).await;
        assert!(fine && said.contains(&format!("{stream} created")), "{said}");
        let (fine, said) = apply(&stage, &[]).await;
        assert!(fine && !said.contains("created"), "{said}");
    }
}

#[tokio::test]
async fn an_interrupted_first_apply_can_be_repeated() {
    let stage = Stage::start().await;
    // A deployment without the mark, after its first streams: the others were never there.
    let mut chat = api(&stage, "INFO", "CHAT_local", Value::Null).await["config"].clone();
    chat["metadata"] = json!({});
    assert!(api(&stage, "UPDATE", "CHAT_local", chat).await["error"].is_null());
    for stream in ["AUDIT_local", "KV_KEYS", "KV_AGENTS", "KV_SETTINGS"] {
        api(&stage, "DELETE", stream, Value::Null).await;
    }
    let (fine, said) = apply(&stage, &[]).await;
    assert!(fine && said.contains("KV_KEYS created") && said.contains("CHAT_local unchanged"), "{said}");
    let chat = api(&stage, "INFO", "CHAT_local", Value::Null).await;
    assert!(chat["config"]["metadata"]["turnstream.beside"].is_string(), "an old deployment gets the mark: {chat}");
}
