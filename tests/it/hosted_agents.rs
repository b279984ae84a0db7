//! Agents that are programs of others: they answer turns, and whatever they do costs their turn alone.

use std::{convert::Infallible, fs, path::Path};

use serde_json::{Value, json};
use warp::Filter;

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    frames::{answer_text, code, kind, kinds, streamed, tool_activity},
    processes::Process,
    tools::{Provider, Tool},
};

/// Starts a worker that hosts an agent, without a key for any gateway.
async fn host(stage: &Stage, agent: &str) -> Process {
    let path = std::env::var("PATH").unwrap();
    let mut process = stage.run("worker", &["worker", "--agent", agent], &[("PATH", path.as_str())]);
    process.line(|line| line.starts_with("working for pool")).await;
    process
}

fn example() -> String {
    format!("exec:python3 {}/spec/examples/agent.py", env!("CARGO_MANIFEST_DIR"))
}

async fn session(edge: &Edge) -> (Client, Session) {
    let mut client = Client::connect(edge).await;
    let session = client.open_session().await;
    (client, session)
}

/// Writes a program in Python that has the request as `step`, its folder as `here`, and `say`.
fn program(folder: &Path, body: &str) -> String {
    let prelude = "import json, os, signal, sys, time\nstep = json.loads(sys.stdin.readline())\n\
                   here = os.path.dirname(os.path.abspath(__file__))\n\
                   def say(m): print(json.dumps(m), flush=True)\n";
    let path = folder.join("agent.py");
    fs::write(&path, format!("{prelude}{body}")).unwrap();
    format!("exec:python3 {}", path.display())
}

/// Checks the log, and fails with the report.
async fn verified(stage: &Stage) {
    let mut verify = stage.run("audit", &["audit", "verify", "--json"], &[]);
    assert!(verify.ended().await.success(), "{}", verify.output());
}

#[tokio::test]
async fn the_example_answers_with_the_history_of_its_conversation() {
    let stage = Stage::start().await;
    let agent = example();
    let (edge, _worker) = tokio::join!(stage.edge(), host(&stage, &agent));
    let (mut client, session) = session(&edge).await;
    let turn = client.ask(&session, "r1", "hello there").await;
    assert_eq!(streamed(&turn), "hello there (after 0 earlier messages)");
    assert_eq!(answer_text(&turn), "hello there (after 0 earlier messages)");
    assert_eq!(answer_text(&client.ask(&session, "r2", "more").await), "more (after 2 earlier messages)");
    assert_eq!(stage.gateway.requests().len(), 0);
    verified(&stage).await;
}

#[tokio::test]
async fn a_parked_call_of_an_agent_outlives_its_host_and_is_made_once() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("issue_refund", "refunded")]).await;
    let agent = example();
    let (edge, mut worker) = tokio::join!(stage.edge(), host(&stage, &agent));
    let (mut client, session) = session(&edge).await;
    client.begin(&session, "r1", "refund order O-7").await;
    let parked = client.turn_until("r1", "stream_chunk").await;
    assert!(kinds(&parked).contains(&"write_confirmation_required"), "{parked:#?}");
    worker.kill().await;
    let _other = host(&stage, &agent).await;
    client.confirm(&session, true).await;
    let rest = client.turn("r1").await;
    assert_eq!(tool_activity(&rest), ["result refunded"]);
    assert_eq!(answer_text(&rest), "The tool says about O-7: refunded", "the memo came back");
    assert_eq!(provider.calls()[0].arguments, json!({"order_id": "O-7"}));
    assert_eq!((provider.calls().len(), client.terminals("r1")), (1, 1));
    verified(&stage).await;
}

#[tokio::test]
async fn a_bad_agent_costs_its_turn_and_nothing_else() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let agent = program(
        folder.path(),
        r#"
bad = step["message"]
if bad == "garbage": print("Traceback: SECRET", flush=True)
elif bad == "unknown": say({"text": "a", "secret": "SECRET"})
elif bad == "epoch": say({"epoch": 1, "text": "SECRET"})
elif bad == "error": say({"error": "SECRET"})
elif bad == "nothing": say({"done": True})
elif bad == "dies": os.kill(os.getpid(), signal.SIGKILL)
elif bad == "memo": say({"memo": "m" * 70000})
elif bad == "line": print("x" * 1000000, flush=True)
elif bad == "flood":
    while True: say({"text": "f" * 100000})
elif bad == "calls":
    for n in range(200): say({"call": {"name": "t"}})
else:
    say({"text": "fine"})
    say({"done": True})
"#,
    );
    let (edge, _worker) = tokio::join!(stage.edge(), host(&stage, &agent));
    let (mut client, session) = session(&edge).await;
    let bad = ["garbage", "unknown", "epoch", "error", "nothing", "dies", "memo", "line", "flood", "calls"];
    for bad in bad {
        let turn = client.ask(&session, bad, bad).await;
        let end = turn.last().unwrap();
        assert_eq!(kind(end), "error", "{bad}: {end:#}");
        assert!(!code(end).is_empty() && !Value::from(turn.clone()).to_string().contains("SECRET"), "{bad}");
        let id = format!("after {bad}");
        assert_eq!(answer_text(&client.ask(&session, &id, "good").await), "fine", "{bad}");
    }
    verified(&stage).await;
}

#[tokio::test]
async fn a_step_that_its_agent_leaves_is_run_again() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let agent = program(
        folder.path(),
        r#"
mark = os.path.join(here, step["message"])
first = not os.path.exists(mark)
open(mark, "a").write(str(step["epoch"]) + "\n")
say({"text": "half "})
if first and step["message"] == "killed": os.kill(os.getpid(), signal.SIGKILL)
if first: time.sleep(3600)
say({"text": "whole"})
say({"done": True})
"#,
    );
    let (edge, _worker) = tokio::join!(stage.edge(), host(&stage, &agent));
    let (mut client, session) = session(&edge).await;
    for how in ["killed", "silent"] {
        let turn = client.ask(&session, how, how).await;
        assert_eq!(answer_text(&turn), "half whole", "{how}");
        assert_eq!(client.terminals(how), 1);
        let epochs = fs::read_to_string(folder.path().join(how)).unwrap();
        let epochs: Vec<u64> = epochs.lines().map(|line| line.parse().unwrap()).collect();
        assert!(epochs.len() == 2 && epochs[0] < epochs[1], "{how}: {epochs:?}");
    }
    verified(&stage).await;
}

#[tokio::test]
async fn a_cancel_ends_the_agents_process_and_those_that_it_started() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let agent = program(
        folder.path(),
        r#"
if step["message"] == "good":
    say({"text": "fine", "done": True})
    sys.exit()
import subprocess
child = subprocess.Popen(["sleep", "3600"])
say({"text": str(child.pid)})
while True:
    say({})
    time.sleep(0.5)
"#,
    );
    let (edge, _worker) = tokio::join!(stage.edge(), host(&stage, &agent));
    let (mut client, session) = session(&edge).await;
    client.begin(&session, "r1", "go on for ever").await;
    let begun = client.turn_until("r1", "stream_token").await;
    let child: i32 = streamed(&begun).parse().unwrap();
    client.send(&json!({"action": "cancel", "sessionId": session.id})).await;
    assert_eq!(client.turn("r1").await.last().map(kind), Some("cancelled"));
    // SAFETY: signal 0 only asks whether the process is there.
    while unsafe { libc::kill(child, 0) } == 0 && !is_zombie(child) {
        tokio::task::yield_now().await;
    }
    assert_eq!(answer_text(&client.ask(&session, "r2", "good").await), "fine");
}

fn is_zombie(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[tokio::test]
async fn an_agents_process_sees_no_key_of_its_host() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let agent = program(folder.path(), r#"say({"text": ",".join(sorted(os.environ)), "done": True})"#);
    let (edge, _worker) = tokio::join!(stage.edge(), host(&stage, &agent));
    let (mut client, session) = session(&edge).await;
    let turn = client.ask(&session, "r1", "which keys").await;
    let names = answer_text(&turn);
    assert!(names.contains("PATH") && !names.contains("SMOOTH") && !names.contains("NATS"), "{names}");
}

#[tokio::test]
async fn an_agent_answers_over_http() {
    let stage = Stage::start().await;
    let step = warp::post().and(warp::path("step")).and(warp::body::json()).and_then(|step: Value| async move {
        let text = json!({"text": format!("{} by http", step["message"].as_str().unwrap())});
        let usage = json!({"usage": {"promptTokens": 7, "completionTokens": 2, "costUsd": 0.01}});
        Ok::<_, Infallible>(format!("{{}}\n{text}\n{usage}\n{{\"done\":true}}\n"))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = format!("http://{}/step", listener.local_addr().unwrap());
    tokio::spawn(warp::serve(step).incoming(listener).run());
    let (edge, _worker) = tokio::join!(stage.edge(), host(&stage, &agent));
    let (mut client, session) = session(&edge).await;
    let turn = client.ask(&session, "r1", "answered").await;
    assert_eq!(answer_text(&turn), "answered by http");
    assert!(turn.last().unwrap().to_string().contains("0.01"), "{turn:#?}");
}

#[tokio::test]
async fn a_wrong_address_of_an_agent_is_named_without_its_text() {
    let stage = Stage::start().await;
    let wrong = [("SMOOTH_AGENT_HOSTED_AGENT", "ftp://user:secret@host")];
    let mut check = stage.run("config", &["config", "check"], &wrong);
    assert!(!check.ended().await.success());
    assert!(check.output().contains("SMOOTH_AGENT_HOSTED_AGENT") && !check.output().contains("secret"));
}
