//! Processes report missing prerequisites: streams, a key.

use serde_json::json;

use crate::support::{
    Edge, Stage,
    client::Client,
    frames::{answer_text, code},
    processes::Process,
};

const STREAM: &str = "CHAT_local";

/// Runs a command to its end; returns its success and its output.
async fn outcome(mut process: Process) -> (bool, String) {
    let status = process.ended().await;
    (status.success(), process.output())
}

/// Checks that edge and worker exit at once and name the remedy.
async fn expect_refusal(stage: &Stage, problem: &str) {
    for role in [["edge", "--port", "0"].as_slice(), &["worker"]] {
        let (success, said) = outcome(stage.run(role[0], role, &[])).await;
        assert!(!success, "{role:?} started: {said}");
        assert!(said.contains("turnstream streams apply") && said.contains(problem), "{role:?}: {said}");
        assert!(!said.contains("listening on") && !said.contains("working for"), "{said}");
    }
}

async fn diff(stage: &Stage) -> (bool, String) {
    outcome(stage.run("streams diff", &["streams", "diff"], &[])).await
}

/// Returns the definition of the conversations' stream with one field changed.
fn changed(field: &str, value: serde_json::Value) -> String {
    let mut config: serde_json::Value = serde_json::from_str(include_str!("../../streams/CHAT.json")).unwrap();
    config[field] = value;
    config.to_string()
}

async fn stream_api(stage: &Stage, verb: &str, payload: String) {
    let client = stage.nats.client().await;
    let reply = client.request(format!("$JS.API.STREAM.{verb}.{STREAM}"), payload.into()).await.unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
    assert!(reply["error"].is_null(), "{reply:#}");
}

#[tokio::test]
async fn without_streams_no_process_starts() {
    let stage = Stage::without_streams().await;
    expect_refusal(&stage, "missing").await;
    let (same, said) = diff(&stage).await;
    assert!(!same && said.contains("CHAT_local: missing") && said.contains("CHAT_local > default: missing"), "{said}");
    for done in ["created", "unchanged"] {
        let (success, said) = outcome(stage.run("streams apply", &["streams", "apply"], &[])).await;
        assert!(success && said.lines().filter(|line| line.ends_with(done)).count() == 25, "{said}");
    }
    let (same, said) = diff(&stage).await;
    assert!(same && said.contains("no differences"), "{said}");
}

#[tokio::test]
async fn a_stream_that_could_lose_events_stops_the_start() {
    let stage = Stage::start().await;
    stream_api(&stage, "DELETE", String::new()).await;
    stream_api(&stage, "CREATE", changed("deny_delete", json!(false))).await;
    let (same, said) = diff(&stage).await;
    assert!(!same && said.contains("CHAT_local: deny_delete is false, defined as true"), "{said}");
    expect_refusal(&stage, "deny_delete").await;
}

#[tokio::test]
async fn an_operators_stream_settings_are_reported_and_accepted() {
    let stage = Stage::start().await;
    stream_api(&stage, "UPDATE", changed("max_bytes", json!(1_000_000_000))).await;
    let (same, said) = diff(&stage).await;
    assert!(!same && said.contains("CHAT_local: max_bytes is 1000000000"), "{said}");
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    assert_eq!(answer_text(&client.ask(&session, "r1", "hello").await), "ok");
}

#[tokio::test]
async fn a_stream_deleted_later_turns_readiness_red() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    assert_eq!(status(&edge, "/ready").await, 200);
    stream_api(&stage, "DELETE", String::new()).await;
    let mut edge = edge;
    edge.process.line(|line| line.contains("the streams differ from their definitions")).await;
    assert_eq!(status(&edge, "/health").await, 200);
    assert_eq!(status(&edge, "/ready").await, 503);
}

async fn status(edge: &Edge, path: &str) -> u16 {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::get(format!("http://{}{path}", edge.address)).await.unwrap().status().as_u16()
}

/// With workers present and no key among them, a message is refused before it is accepted; other actions work.
#[tokio::test]
async fn without_a_key_messages_are_refused_and_the_rest_works() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_without_key());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    // A message is accepted and fails until the edge has seen the worker's advertisement.
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = client.say(&session, &format!("r{tries}"), "hello").await;
        if answer["status"] != 202 {
            assert_eq!(code(&answer), "LLM_UNAVAILABLE");
            break;
        }
        assert_eq!(code(&client.turn(&format!("r{tries}")).await[0]), "AGENT_ERROR");
    }
    // An edge that starts later has the advertisement at once.
    let later = stage.edge().await;
    let mut later = (Client::connect(&later).await, later);
    assert_eq!(code(&later.0.say(&session, "later", "hello").await), "LLM_UNAVAILABLE");
    let get = client.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(get["data"]["status"], "active");
    assert_eq!(client.history(&session).await.len(), tries - 1, "a refused message is not stored");
    client.open_session().await;
    let unknown = json!({"action": "send_message", "requestId": "x", "sessionId": "nothing", "message": "a"});
    assert_eq!(code(&client.request(unknown).await), "SESSION_NOT_FOUND");
}

#[tokio::test]
async fn the_dev_process_answers_with_citations_and_asks_before_acting() {
    let stage = Stage::without_streams().await;
    let mut process = stage.run("dev", &["dev", "--port", "0"], &[]);
    let address = process.line_after("listening on http://").await;
    let mut dev = Edge { process, address };
    let mut client = Client::connect(&dev).await;
    let session = client.open_session().await;
    let turn = client.ask(&session, "r1", "how long is your return window?").await;
    let citations = crate::support::frames::answer(&turn)["citations"].as_array().unwrap();
    assert_eq!(citations[0]["id"], "returns.md");
    assert!(answer_text(&turn).contains("17 days"), "{}", answer_text(&turn));

    client.begin(&session, "r2", "refund my order ORD-1234").await;
    let parked = client.turn_until("r2", "write_confirmation_required").await;
    let prompt = &parked.last().unwrap()["data"]["data"];
    assert_eq!(prompt["toolId"], "issue_refund");
    assert!(prompt["actionDescription"].as_str().unwrap().contains("ORD-1234"));
    client.confirm(&session, true).await;
    assert!(answer_text(&client.turn("r2").await).contains("ORD-1234"));

    dev.process.signal(libc::SIGINT);
    assert_eq!(client.close_code().await, Some(1012));
    assert!(dev.process.ended().await.success());
    assert!(stage.nats.client().await.flush().await.is_ok(), "a server of another process goes on");
}

#[test]
fn the_version_names_the_commit_that_was_built() {
    let told = std::process::Command::new(crate::support::binary()).arg("--version").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let origin = told.trim().strip_prefix(concat!("turnstream ", env!("CARGO_PKG_VERSION"), " (")).unwrap();
    let origin = origin.strip_suffix(')').unwrap();
    if std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        let commit = origin.strip_prefix("commit ").unwrap().trim_end_matches(", changed since");
        assert!(commit.len() >= 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{told}");
    } else {
        assert_eq!(origin, "built outside a git checkout", "{told}");
    }
}
