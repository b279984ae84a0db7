//! Tools of MCP servers: real servers as child processes and over HTTP, and turns that lose one.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::{answer_text, kind, kinds},
        gateway::Reply,
        processes::Process,
        tools::{Provider, Tool, offered},
    },
    tool_calls::{calls, results_for_the_model},
};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/mcp_server.py");

/// The test server's tools under the name `srv`, in the order of names.
const TOOLS: [&str; 7] =
    ["srv__about_call", "srv__add", "srv__fails", "srv__grow", "srv__picture", "srv__wait", "srv__wait_once"];

pub struct Scene {
    stage: Stage,
    worker: Process,
    client: Client,
    session: Session,
    _edge: Edge,
    _files: TempDir,
}

/// Returns the declaration of the test server as a child process, with `more` keys.
pub fn child(more: Value) -> Value {
    let mut server = json!({ "command": "python3", "args": [SERVER] });
    server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server
}

/// Returns a worker with an MCP server `srv`, and a session. `STATE` stands for a folder of the test's own.
pub async fn scene(server: Value) -> Scene {
    let files = tempfile::tempdir().unwrap();
    let config = files.path().join("mcp.json");
    let text = json!({ "mcpServers": { "srv": server } }).to_string();
    std::fs::write(&config, text.replace("STATE/", &format!("{}/", files.path().display()))).unwrap();
    let stage = Stage::start().await;
    let path = std::env::var("PATH").unwrap();
    let variables = [
        ("SMOOTH_AGENT_MCP_CONFIG", config.to_str().unwrap()),
        ("RUST_LOG", "info,turnstream::tools::mcp=debug"),
        ("PATH", path.as_str()),
        ("MCP_TOKEN", "hush-hush"),
    ];
    let (edge, worker) = tokio::join!(stage.edge(), stage.worker_with(&variables));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    Scene { stage, worker, client, session, _edge: edge, _files: files }
}

impl Scene {
    /// Runs a whole turn in which the model calls tools, and returns their results.
    pub async fn turn_with(&mut self, id: &str, list: &[(&str, Value)]) -> Vec<String> {
        self.stage.gateway.script(calls(list));
        let turn = self.client.ask(&self.session, id, "do it").await;
        assert_eq!(answer_text(&turn), "ok");
        results_for_the_model(&self.stage)
    }

    /// Returns the tools that the model is offered in a new turn.
    pub async fn offered(&mut self, id: &str) -> Vec<String> {
        self.client.ask(&self.session, id, "hello").await;
        offered(&self.stage.gateway.requests().pop().unwrap())
    }

    /// Waits until the server's `tool` was called, and returns the server's pid.
    async fn called(&mut self, tool: &str) -> i32 {
        let words = format!("called {tool} ");
        number(&self.worker.line(|line| line.contains(&words)).await)
    }

    /// Waits until the worker has listed tools for the (`before` + 1)th time.
    pub async fn learnt(&mut self, before: usize) -> String {
        self.worker.nth_line(before, |line| line.contains("tools of an MCP server")).await
    }
}

/// Returns the last number of a line.
fn number(line: &str) -> i32 {
    let digits: Vec<&str> = line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    digits.last().unwrap().parse().unwrap()
}

fn kill(pid: i32) {
    // SAFETY: kill has no memory effects here; the process is the test's own server.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

#[tokio::test]
async fn a_servers_tools_are_offered_and_called() {
    let mut s = scene(child(json!({ "env": { "TOKEN": "a ${MCP_TOKEN}" } }))).await;
    s.learnt(0).await;
    assert_eq!(s.offered("r1").await, TOOLS);
    let list = [
        ("srv__add", json!({"a": 1, "b": 2})),
        ("srv__picture", json!({})),
        ("srv__fails", json!({})),
        ("srv__about_call", json!({})),
    ];
    let results = s.turn_with("r2", &list).await;
    assert_eq!(results[..2], [r#"{"total": 3}"#, "look:\n[image: image/png]\n{\"of\":\"a cat\"}"]);
    assert_eq!(results[2], "Error: it went wrong");
    let known: Value = serde_json::from_str(&results[3]).unwrap();
    let meta = &known["meta"];
    assert_eq!(
        (&meta["turnstream/org"], &meta["turnstream/conversation"]),
        (&json!("reference-org"), &json!(s.session.conversation))
    );
    assert!(meta["turnstream/callId"].as_str().unwrap().len() > 32, "{meta}");
    let environment = known["environment"].as_object().unwrap();
    assert_eq!(environment["TOKEN"], "a hush-hush");
    assert!(
        !environment.contains_key("MCP_TOKEN") && !environment.contains_key("SMOOAI_GATEWAY_KEY"),
        "{environment:?}"
    );
    assert!(!s.worker.output().contains("hush-hush"));
}

/// The two kinds of providers serve one turn; the child process of one is killed while both are called.
#[tokio::test]
async fn a_turn_ends_well_when_the_mcp_server_is_killed_during_a_call() {
    let mut s = scene(child(json!({}))).await;
    let (release, slow) = Tool::held("order_status", "on its way");
    let _provider = Provider::start(&s.stage.nats, vec![slow]).await;
    s.worker.line(|line| line.contains("tools of NATS services") && line.contains("order_status")).await;
    s.learnt(0).await;
    s.stage.gateway.script(calls(&[("order_status", json!({"id": "7"})), ("srv__wait", json!({}))]));
    s.client.begin(&s.session, "r1", "do both").await;
    kill(s.called("wait").await);
    release.send(true).unwrap();
    let turn = s.client.turn("r1").await;
    assert_eq!(answer_text(&turn), "ok");
    let results = results_for_the_model(&s.stage);
    assert_eq!(results[0], "on its way");
    assert!(results[1].contains("outcome of this call is unknown"), "{}", results[1]);
    s.learnt(1).await;
    let results = s.turn_with("r2", &[("srv__add", json!({"a": 1, "b": 1}))]).await;
    assert_eq!(results, [r#"{"total": 2}"#], "the server was started again");
}

/// The NATS provider dies, and the MCP server stays.
#[tokio::test]
async fn a_turn_ends_well_when_the_nats_provider_is_lost_during_a_call() {
    let mut s = scene(child(json!({}))).await;
    let writer = Tool::is_silent("order_status").with("timeout_ms", "1500");
    let provider = Provider::start(&s.stage.nats, vec![writer]).await;
    s.worker.line(|line| line.contains("tools of NATS services") && line.contains("order_status")).await;
    s.learnt(0).await;
    s.stage.gateway.script(calls(&[("order_status", json!({"id": "7"})), ("srv__add", json!({"a": 2, "b": 2}))]));
    s.client.begin(&s.session, "r1", "do both").await;
    provider.wait_for_calls(1).await;
    provider.stop(&s.stage.nats).await;
    assert_eq!(answer_text(&s.client.turn("r1").await), "ok");
    let results = results_for_the_model(&s.stage);
    assert!(results[0].contains("outcome of this call is unknown"), "{}", results[0]);
    assert_eq!(results[1], r#"{"total": 4}"#);
}

#[tokio::test]
async fn an_idempotent_call_is_repeated_when_the_server_is_back() {
    let mut s = scene(child(json!({ "env": { "STATE": "STATE/" } }))).await;
    s.learnt(0).await;
    s.stage.gateway.script(Reply::tool_call("srv__wait_once", json!({})));
    s.client.begin(&s.session, "r1", "read it").await;
    let line = s.worker.line(|line| line.contains("called wait_once ")).await;
    kill(number(&line));
    assert_eq!(answer_text(&s.client.turn("r1").await), "ok");
    let results = results_for_the_model(&s.stage);
    let key = results[0].strip_prefix("read ").unwrap_or_else(|| panic!("{results:?}"));
    assert!(line.contains(key), "the same idempotency key: {line} {key}");
}

#[tokio::test]
async fn a_server_that_is_down_removes_its_tools_and_not_the_turn() {
    let mut s = scene(child(json!({ "env": { "NEEDS": "STATE/ready" } }))).await;
    s.worker.line(|line| line.contains("an MCP server can't be reached")).await;
    assert!(s.offered("r1").await.is_empty());
    let results = s.turn_with("r2", &[("srv__add", json!({"a": 1, "b": 1}))]).await;
    assert!(results[0].contains("There is no tool"), "{results:?}");
    std::fs::write(s._files.path().join("ready"), "").unwrap();
    s.learnt(0).await;
    assert_eq!(s.offered("r3").await, TOOLS);
    // The server is gone for good, so a further call is answered at once.
    std::fs::remove_file(s._files.path().join("ready")).unwrap();
    let pid = number(&s.worker.line(|line| line.contains("started ")).await);
    kill(pid);
    s.worker.line(|line| line.contains("an MCP server is gone")).await;
    assert!(s.offered("r4").await.is_empty());
    let results = s.turn_with("r5", &[("srv__add", json!({"a": 1, "b": 1}))]).await;
    assert_eq!(results, ["Error: The tool is not available now."]);
}

#[tokio::test]
async fn a_changed_list_of_tools_is_read_again() {
    let mut s = scene(child(json!({ "tools": ["grow", "grown"] }))).await;
    s.learnt(0).await;
    assert_eq!(s.offered("r1").await, ["srv__grow"]);
    assert_eq!(s.turn_with("r2", &[("srv__grow", json!({}))]).await, ["grown"]);
    s.learnt(1).await;
    assert_eq!(s.offered("r3").await, ["srv__grow", "srv__grown"]);
}

#[tokio::test]
async fn a_tool_that_the_configuration_names_waits_for_approval() {
    let mut s = scene(child(json!({ "confirm": ["ADD"] }))).await;
    s.learnt(0).await;
    s.stage.gateway.script(calls(&[("srv__picture", json!({})), ("srv__add", json!({"a": 20, "b": 22}))]));
    s.client.begin(&s.session, "r1", "add it").await;
    let parked = s.client.turn_until("r1", "write_confirmation_required").await;
    assert_eq!(parked.last().unwrap()["data"]["data"]["toolId"], "srv__add");
    assert!(!s.worker.output().contains("called add "));
    assert_eq!(kind(&s.client.confirm(&s.session, true).await), "immediate_response");
    assert_eq!(answer_text(&s.client.turn("r1").await), "ok");
    assert_eq!(results_for_the_model(&s.stage)[1], r#"{"total": 42}"#);
}

#[tokio::test]
async fn an_abandoned_call_is_cancelled_at_the_server() {
    let mut s = scene(child(json!({ "timeoutMs": 400 }))).await;
    s.learnt(0).await;
    let results = s.turn_with("r1", &[("srv__wait", json!({}))]).await;
    assert!(results[0].contains("outcome of this call is unknown"), "{results:?}");
    s.worker.line(|line| line.contains("cancelled ")).await;

    let mut s = scene(child(json!({}))).await;
    s.learnt(0).await;
    s.stage.gateway.script(Reply::tool_call("srv__wait", json!({})));
    s.client.begin(&s.session, "r1", "wait").await;
    s.called("wait").await;
    s.client.send(&json!({"action": "cancel", "sessionId": s.session.id})).await;
    assert_eq!(kinds(&s.client.turn("r1").await).last(), Some(&"cancelled"));
    s.worker.line(|line| line.contains("cancelled ")).await;
}

/// A server ends with its worker, even one that ignores the end of its input.
#[tokio::test]
async fn no_server_outlives_its_worker() {
    for environment in [json!({}), json!({ "STUBBORN": "1" })] {
        let mut s = scene(child(json!({ "env": environment }))).await;
        let pid = number(&s.worker.line(|line| line.contains("started ")).await);
        s.learnt(0).await;
        s.worker.signal(libc::SIGTERM);
        assert!(s.worker.ended().await.success());
        // SAFETY: signal 0 only asks whether the process exists.
        assert_eq!(unsafe { libc::kill(pid, 0) }, -1, "{environment}");
    }
}

/// Starts the test server over HTTP at a port (0 = any) and returns the port.
pub async fn over_http(port: u16, variables: &[(&str, &str)]) -> (Process, u16) {
    let mut command = Command::new("python3");
    command.args([SERVER, &port.to_string()]).env("TOKEN", "hush-hush").envs(variables.iter().copied());
    let mut process = Process::spawn("mcp server", command);
    let port = process.line_after("listening on port ").await.parse().unwrap();
    (process, port)
}

#[tokio::test]
async fn a_server_over_http_is_called_lost_and_found_again() {
    let (mut server, port) = over_http(0, &[]).await;
    let url = format!("http://127.0.0.1:{port}/mcp?key=hush-hush");
    let mut s = scene(json!({ "url": url, "headers": { "Authorization": "Bearer ${MCP_TOKEN}" } })).await;
    s.learnt(0).await;
    assert_eq!(s.offered("r1").await, TOOLS);
    let list = [("srv__add", json!({"a": 1, "b": 2})), ("srv__picture", json!({})), ("srv__fails", json!({}))];
    let results = s.turn_with("r2", &list).await;
    assert_eq!(results[0], r#"{"total": 3}"#);
    assert!(results[1].starts_with("look:") && results[2] == "Error: it went wrong", "{results:?}");

    s.stage.gateway.script(calls(&[("srv__wait", json!({}))]));
    s.client.begin(&s.session, "r3", "wait").await;
    server.line(|line| line.contains("called wait ")).await;
    server.kill().await;
    assert_eq!(answer_text(&s.client.turn("r3").await), "ok");
    let results = results_for_the_model(&s.stage);
    assert!(results[0].contains("outcome of this call is unknown"), "{results:?}");
    s.worker.line(|line| line.contains("an MCP server is gone")).await;
    assert!(s.offered("r4").await.is_empty());

    let (_server, _) = over_http(port, &[]).await;
    s.learnt(1).await;
    assert_eq!(s.turn_with("r5", &[("srv__add", json!({"a": 2, "b": 3}))]).await, [r#"{"total": 5}"#]);
    assert!(!s.worker.output().contains("hush-hush"));
}

/// A server's own request during a call is answered at once, with an error where the method is not offered.
#[tokio::test]
async fn a_servers_requests_to_its_client_are_answered_or_refused() {
    let mut s = scene(child(json!({ "env": { "ASKS": "1" } }))).await;
    s.learnt(0).await;
    let results = s.turn_with("r1", &[("srv__asks", json!({}))]).await;
    let answers: Value = serde_json::from_str(&results[0]).unwrap_or_else(|_| panic!("{results:?}"));
    assert_eq!(answers["ping"], json!({}));
    let refusals = [("sampling", "sampling"), ("roots", "roots"), ("unknown", "")];
    for (case, words) in refusals {
        let (code, message) = (&answers[case][0], answers[case][1].as_str().unwrap_or_default());
        assert_eq!(code, -32601, "{case}: {answers:#}");
        assert!(message.contains(words), "{case}: {message}");
    }
}

#[tokio::test]
async fn a_bad_declaration_refuses_to_start_and_a_good_one_is_shown_without_secrets() {
    let stage = Stage::without_streams().await;
    let files = tempfile::tempdir().unwrap();
    let config = files.path().join("mcp.json");
    let text = json!({ "mcpServers": { "srv": child(json!({ "env": { "TOKEN": "${MCP_TOKEN}" } })) } });
    std::fs::write(&config, text.to_string()).unwrap();
    let file = ("SMOOTH_AGENT_MCP_CONFIG", config.to_str().unwrap());
    for command in [["config", "check"].as_slice(), &["worker"]] {
        let mut refused = stage.run("refused", command, &[file]);
        assert!(!refused.ended().await.success());
        assert!(refused.output().contains("MCP_TOKEN is not set"), "{}", refused.output());
    }
    let mut shown = stage.run("shown", &["config", "check"], &[file, ("MCP_TOKEN", "hush-hush")]);
    assert!(shown.ended().await.success());
    let shown = shown.output();
    assert!(shown.contains("srv: command python3") && shown.contains("TOKEN=set"), "{shown}");
    assert!(!shown.contains("hush-hush"), "{shown}");
}

#[tokio::test]
async fn the_list_of_tools_shows_mcp_tools() {
    let stage = Stage::start().await;
    let files = tempfile::tempdir().unwrap();
    let config = files.path().join("mcp.json");
    std::fs::write(&config, json!({ "mcpServers": { "srv": child(json!({ "confirm": true })) } }).to_string()).unwrap();
    let path = std::env::var("PATH").unwrap();
    let variables = [("SMOOTH_AGENT_MCP_CONFIG", config.to_str().unwrap()), ("PATH", path.as_str())];
    let mut list = stage.run("tools list", &["tools", "list"], &variables);
    assert!(list.ended().await.success());
    let list = list.output();
    assert!(
        list.contains("srv__add\n    Adds two numbers\n    timeout 30 s, waits for approval, idempotent"),
        "{list}"
    );
}
