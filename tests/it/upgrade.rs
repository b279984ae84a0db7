//! Stores written by earlier versions, continued by this one, under load.
//!
//! `tests/data/NAME.ndjson.zst` is the JetStream store of a deployment of a version, a file per line; `tests/data/NAME.json` names
//! its conversations. They never change. A version's program makes them:
//!
//! ```sh
//! TURNSTREAM_STORE=store.94d8a6d TURNSTREAM_BIN=/path/to/that/turnstream cargo test --test it upgrade::the_store_of
//! ```
//!
//! `store.94d8a6d` is of the program before the rooms were laid out anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Stage,
    client::{Client, Session},
    frames::{answer_text, kinds},
    gateway::Reply,
    tools::{Provider, Tool},
};

/// Human deadlines in the store, far enough to be in the future whenever the store is read.
const WAIT: (&str, &str) = ("SMOOTH_AGENT_HUMAN_WAIT_SECS", "3000000000");
const CLIENTS: usize = 4;

fn data(store: &str, kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{store}.{kind}"))
}

fn gated() -> Vec<Tool> {
    vec![Tool::answers("restart", "done").with("confirm", "true")]
}

/// Fills a store: a conversation with finished turns, one that waits for an approval, one with a cancelled turn.
async fn fill(store: &str) {
    let mut stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, gated()).await;
    let (mut edge, mut worker) = tokio::join!(stage.edge(), stage.worker_with(&[WAIT]));
    let mut client = Client::connect(&edge).await;
    let (talked, waits, cancelled) =
        (client.open_session().await, client.open_session().await, client.open_session().await);
    for n in 0..6 {
        client.ask(&talked, &format!("r{n}"), &format!("question {n}")).await;
    }
    stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-1"})).with_text("Let me see. "));
    client.begin(&waits, "r1", "restart the database").await;
    client.turn_until("r1", "stream_chunk").await;
    stage.gateway.script(Reply::hang_after(vec!["one ".into()]));
    client.begin(&cancelled, "c1", "count").await;
    client.turn_until("c1", "stream_token").await;
    client.send(&json!({"action": "cancel", "sessionId": cancelled.id})).await;
    client.turn("c1").await;
    // An edge drains until its clients have seen the end of their turns, and one turn waits.
    drop(client);
    for process in [&mut edge.process, &mut worker] {
        process.signal(libc::SIGTERM);
        assert!(process.ended().await.success());
    }
    stage.nats.process.signal(libc::SIGTERM);
    stage.nats.process.ended().await;
    let of = |session: &Session| json!({ "session": session.id, "conversation": session.conversation });
    let names = json!({ "talked": of(&talked), "waits": of(&waits), "cancelled": of(&cancelled) });
    fs::write(data(store, "json"), format!("{names:#}\n")).unwrap();
    let mut lines = Vec::new();
    pack(stage.nats.store.path(), stage.nats.store.path(), &mut lines);
    fs::write(data(store, "ndjson.zst"), zstd::bulk::compress(lines.join("\n").as_bytes(), 19).unwrap()).unwrap();
}

fn pack(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            pack(root, &path, lines);
        } else if path.file_name().is_some_and(|name| name != "server.conf") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let content = BASE64_STANDARD.encode(fs::read(&path).unwrap());
            lines.push(json!({ "file": name, "content": content }).to_string());
        }
    }
}

fn unpack(store: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines = zstd::stream::decode_all(&fs::read(data(store, "ndjson.zst")).unwrap()[..]).unwrap();
    for line in String::from_utf8(lines).unwrap().lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let path = folder.path().join(entry["file"].as_str().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, BASE64_STANDARD.decode(entry["content"].as_str().unwrap()).unwrap()).unwrap();
    }
    folder
}

fn session(store: &str, name: &str) -> Session {
    let names: Value = serde_json::from_str(&fs::read_to_string(data(store, "json")).unwrap()).unwrap();
    let text = |field: &str| names[name][field].as_str().unwrap().to_owned();
    Session { id: text("session"), conversation: text("conversation") }
}

#[tokio::test]
async fn an_earlier_versions_store_is_upgraded_under_load() {
    upgrade("store").await;
}

#[tokio::test]
async fn the_store_of_the_version_before_the_new_rooms_is_upgraded_under_load() {
    match std::env::var("TURNSTREAM_STORE") {
        Ok(store) => fill(&store).await,
        Err(_) => upgrade("store.94d8a6d").await,
    }
}

/// Continues a store, and verifies it.
async fn upgrade(store: &str) {
    let stage = Stage::on(unpack(store)).await;
    let provider = Provider::start(&stage.nats, gated()).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let load = join_all((0..CLIENTS).map(|_| async {
        let mut client = Client::connect(&edge).await;
        let session = client.open_session().await;
        for n in 0..10 {
            assert_eq!(answer_text(&client.ask(&session, &format!("r{n}"), "hello").await), "ok");
        }
    }));
    let upgraded = async {
        let mut client = Client::connect(&edge).await;
        let (talked, waits, cancelled) =
            (session(store, "talked"), session(store, "waits"), session(store, "cancelled"));
        let questions: Vec<String> = (0..6).flat_map(|n| [format!("question {n}"), "ok".into()]).collect();
        assert_eq!(client.history(&talked).await, questions);
        // A request repeated across the upgrade is the same turn; the same requestId with another message is not.
        let asked = stage.gateway.requests().len();
        assert_eq!(kinds(&client.ask(&talked, "r5", "question 5").await), ["eventual_response"]);
        assert_eq!(answer_text(&client.ask(&talked, "r0", "another question").await), "ok");
        assert!(stage.gateway.requests().len() > asked);
        assert_eq!(client.history(&talked).await.len(), 14);
        assert_eq!(client.confirm(&waits, true).await["status"], 200);
        assert_eq!(answer_text(&client.turn("r1").await), "ok");
        assert_eq!(provider.calls().len(), 1);
        assert_eq!(client.history(&cancelled).await, ["count"]);
        assert_eq!(answer_text(&client.ask(&cancelled, "c2", "again").await), "ok");
    };
    tokio::join!(load, upgraded);
    crate::support::schema::log(&stage.nats).await;
    let mut verified = stage.run("verify", &["audit", "verify"], &[]);
    assert!(verified.ended().await.success(), "{}", verified.output());
}
