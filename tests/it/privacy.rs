//! Erasing: the traces left on disk, in answers and in logs, and the holds that prevent it.

use std::{fs, path::Path};

use async_nats::jetstream;
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::support::{
    Edge, Stage,
    client::{Client, Session, message_frame},
    encrypted,
    frames::{answer_text, code},
    gateway::Reply,
    tools::{Provider, Tool},
};

/// The prefix of every planted secret.
const PLANTED: &str = "planted-secret-";
const CONVERSATIONS: usize = 10;
/// The places of each conversation's own secrets in its events.
///
/// The tool's result is the same in all conversations, and a file's content is in no event.
const IN_EACH: [&str; 9] =
    ["name", "metadata", "browser", "message", "argument", "reasoning", "answer", "title", "file"];
const EMAIL: &str = "Planted-Secret-Person@Example.org";

fn secret(place: &str, n: usize) -> String {
    format!("{PLANTED}{place}-{n}-x")
}

/// Runs a command of the product to its end; returns its success and its output.
async fn run(stage: &Stage, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut process = stage.run("privacy", arguments, variables);
    let success = process.ended().await.success();
    (success, process.output())
}

/// Opens a session of the person, with planted secrets.
async fn plant_session(client: &mut Client, n: usize) -> Session {
    let created = client
        .request(json!({
            "action": "create_conversation_session", "userName": secret("name", n), "userEmail": EMAIL,
            "metadata": { "note": secret("metadata", n) }, "browserFingerprint": secret("browser", n),
        }))
        .await;
    let text = |name: &str| created["data"][name].as_str().unwrap().to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

/// Runs a turn with a file, a tool call, reasoning and an answer, and renames the conversation.
async fn plant_turn(client: &mut Client, session: &Session, n: usize) {
    let mut message = message_frame(session, "r1", &format!("{} of {n}.", secret("message", n)));
    let content = BASE64_STANDARD.encode(secret("content", n));
    let file = json!({ "name": secret("file", n), "url": format!("data:text/plain;base64,{content}") });
    message["files"] = json!([file]);
    assert_eq!(client.request(message).await["status"], 202);
    assert_eq!(answer_text(&client.turn("r1").await), secret("answer", n));
    let title = secret("title", n);
    let rename = json!({ "action": "rename_conversation", "conversationId": session.conversation, "title": title });
    assert_eq!(client.request(rename).await["status"], 200);
}

/// The model: a tool call, then reasoning and an answer; for "fail", only an error that quotes the question.
fn model(request: &Value) -> Option<Reply> {
    let messages = request["messages"].as_array()?;
    let asked = messages.iter().rfind(|message| message["role"] == "user")?["content"].as_str()?;
    if asked.contains("fail") {
        let body = json!({ "error": { "message": format!("can't answer {asked}") } }).to_string();
        let head = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        return Some(Reply::raw(vec![(head + &body).into_bytes()]));
    }
    let n: usize = asked.rsplit_once("of ")?.1.trim_end_matches('.').parse().ok()?;
    Some(match messages.last()?["role"].as_str() {
        Some("tool") => Reply::text(&secret("answer", n)).with_reasoning(&secret("reasoning", n)),
        _ => Reply::tool_call("look_up", json!({ "number": n, "what": secret("argument", n) })),
    })
}

/// Returns the files below a folder that contain a text.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|e| e.file_type().is_file()) {
        let content = fs::read(entry.path()).unwrap();
        if content.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes())) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Exports the log in every format, into the folders of earlier exports; payloads stay encrypted, which is the default.
async fn take_out(stage: &Stage, folder: &Path) {
    let key = folder.join("key.pem");
    if !key.exists() {
        let (made, said) = run(stage, &["audit", "keygen", text(&key)], &[]).await;
        assert!(made, "{said}");
    }
    let signing = [("SMOOTH_AGENT_AUDIT_KEY_FILE", text(&key))];
    for format in ["ndjson", "cloudevents", "parquet", "bundle"] {
        let to = folder.join(format);
        let (exported, said) = run(stage, &["audit", "export", "--to", text(&to), "--format", format], &signing).await;
        assert!(exported, "{said}");
    }
}

/// Copies a folder, as a backup does.
fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).into_iter().map(Result::unwrap) {
        let place = to.join(entry.path().strip_prefix(from).unwrap());
        match entry.file_type().is_dir() {
            true => fs::create_dir_all(place).unwrap(),
            false => drop(fs::copy(entry.path(), place).unwrap()),
        }
    }
}

/// Returns the wrapped keys in the bucket.
async fn wrapped_keys(stage: &Stage) -> Vec<String> {
    let stream = jetstream::new(stage.nats.client().await).get_stream("KV_KEYS").await.unwrap();
    let state = &stream.cached_info().state;
    let mut keys = Vec::new();
    for seq in state.first_sequence..=state.last_sequence {
        let Ok(message) = stream.direct_get(seq).await else { continue };
        let kept: Value = serde_json::from_slice(&message.payload).unwrap();
        keys.extend(kept["key"].as_str().map(str::to_owned));
    }
    keys
}

/// Returns the number of conversations in the list.
async fn listed(client: &mut Client) -> usize {
    let page = client.request(json!({ "action": "list_conversations" })).await;
    page["data"]["conversations"].as_array().unwrap().len()
}

async fn wait_for_list(client: &mut Client, expected: usize) {
    let began = std::time::Instant::now();
    while listed(client).await != expected {
        assert!(began.elapsed() < crate::support::WAIT_MAX, "{} are listed", listed(client).await);
        tokio::task::yield_now().await;
    }
}

/// Checks the evidence bundle that was taken out.
async fn expect_verified_bundle(stage: &Stage, taken_out: &Path) {
    let (bundle, key) = (taken_out.join("bundle"), taken_out.join("key.pem.pub"));
    let arguments = ["audit", "verify", "--require-signed", "--bundle", text(&bundle), "--public-key", text(&key)];
    let (verified, said) = run(stage, &arguments, &[]).await;
    assert!(verified, "{said}");
}

#[tokio::test]
async fn no_readable_data_of_an_erased_person_is_left() {
    let mut stage = Stage::start().await;
    stage.gateway.respond_with(model);
    let result: &'static str = Box::leak(secret("result", 0).into_boxed_str());
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("look_up", result)]).await;
    let debug = [("RUST_LOG", "debug")];
    let (edge, mut worker) = tokio::join!(stage.edge_with(&debug), stage.worker_with(&debug));
    worker.line(|line| line.contains("tools of NATS services") && line.contains("look_up")).await;
    let mut client = Client::connect(&edge).await;
    let mut sessions = Vec::new();
    for n in 0..CONVERSATIONS {
        let session = plant_session(&mut client, n).await;
        plant_turn(&mut client, &session, n).await;
        sessions.push(session);
    }
    let failing = format!("{} and fail", secret("message", 99));
    client.begin(&sessions[0], "r2", &failing).await;
    client.turn("r2").await;
    // A conversation of another user, which stays.
    let other = client.open_session().await;
    client.ask(&other, "r1", "what of 7.").await;
    wait_for_list(&mut client, CONVERSATIONS + 1).await;
    let keys = wrapped_keys(&stage).await;
    assert_eq!(keys.len(), 2 * (CONVERSATIONS + 1));
    assert!((IN_EACH.len() + 1) * CONVERSATIONS >= 100);
    for (n, session) in sessions.iter().enumerate() {
        let (_, told) = run(&stage, &["replay", &session.conversation, "--format", "ndjson"], &[]).await;
        let lacking: Vec<_> = IN_EACH.iter().filter(|place| !told.contains(&secret(place, n))).collect();
        assert!(lacking.is_empty() && told.contains(result), "{lacking:?} was not planted: {told}");
    }
    // Exports and backups from before the erasure must not disclose anything either.
    let taken_out = tempfile::tempdir().unwrap();
    take_out(&stage, taken_out.path()).await;
    copy(stage.nats.store.path(), &taken_out.path().join("snapshot"));

    let (done, said) =
        run(&stage, &["erase", "--user", "planted-secret-person@example.org", "--reason", "asked"], &[]).await;
    assert!(done && said.contains("erased 10 conversations: 20 keys destroyed"), "{said}");
    let (again, said) = run(&stage, &["erase", "--user", EMAIL, "--reason", "asked"], &[]).await;
    assert!(again && said.contains("nothing to erase"), "{said}");

    wait_for_list(&mut client, 1).await;
    let gone = &sessions[3];
    assert_eq!(code(&client.request(message_frame(gone, "r9", "are you there?")).await), "SESSION_NOT_FOUND");
    let fresh = client.resume(&gone.conversation).await;
    assert_ne!(fresh.conversation, gone.conversation, "an erased conversation is not continued");
    assert_eq!(answer_text(&client.ask(&other, "r2", "and what of 8.").await), secret("answer", 8));
    let (verified, said) = run(&stage, &["audit", "verify"], &[]).await;
    assert!(verified && said.contains("every event follows from the previous one"), "{said}");
    take_out(&stage, taken_out.path()).await;
    expect_verified_bundle(&stage, taken_out.path()).await;
    assert_eq!(files_with(taken_out.path(), PLANTED), Vec::<String>::new());
    assert!(files_with(taken_out.path(), "turn.requested").len() > 3, "the bundle holds the events");
    let (replayed, told) = run(&stage, &["replay", &gone.conversation], &[]).await;
    assert!(replayed && told.contains("turn.requested, content erased"), "{told}");
    assert!(!told.to_lowercase().contains(PLANTED), "{told}");
    for process in [&edge.process, &worker] {
        assert!(!process.output().contains(PLANTED), "a process logged it: {}", process.output());
    }

    // A positive control: the search finds a text that is there.
    let log = jetstream::new(stage.nats.client().await);
    log.publish("dead.local.control", "a control".into()).await.unwrap().await.unwrap();
    stage.nats.kill().await;
    let store = stage.nats.store.path();
    assert_eq!(files_with(store, "a control").len(), 1);
    assert_eq!(files_with(store, PLANTED), Vec::<String>::new());
    let left: Vec<&String> = keys.iter().filter(|key| !files_with(store, key).is_empty()).collect();
    assert_eq!(left.len(), 2, "only the other person's keys are left");
}

#[tokio::test]
async fn an_encrypted_file_is_readable_by_its_tool_call() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("read_it", "done")]).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    worker.line(|line| line.contains("tools of NATS services") && line.contains("read_it")).await;
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("read_it", json!({})));
    let mut message = message_frame(&session, "r1", "read it");
    let content = BASE64_STANDARD.encode("the content");
    message["files"] = json!([{ "name": "a.txt", "url": format!("data:text/plain;base64,{content}") }]);
    message["images"] = json!([{ "url": format!("data:image/png;base64,{content}") }]);
    assert_eq!(client.request(message).await["status"], 202);
    client.turn("r1").await;

    let object = provider.calls()[0].files[0]["object"].clone();
    let store = jetstream::new(stage.nats.client().await).get_object_store("ATTACHMENTS").await.unwrap();
    let mut stored = Vec::new();
    let mut found = store.get(object["name"].as_str().unwrap()).await.unwrap();
    tokio::io::AsyncReadExt::read_to_end(&mut found, &mut stored).await.unwrap();
    let key = turnstream::encryption::ContentKey::parse(object["key"].as_str().unwrap()).unwrap();
    assert_eq!(key.decrypt(&stored).unwrap(), "the content");
    let shown = stage.gateway.requests()[0].to_string();
    assert!(shown.contains(&format!("data:image/png;base64,{content}")), "the model sees the picture: {shown}");
}

#[tokio::test]
async fn a_hold_prevents_erasing_until_it_is_lifted() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = plant_session(&mut client, 1).await;
    client.ask(&session, "r1", "hello").await;
    let conversation = ["--conversation", session.conversation.as_str()];
    let erase = ["erase", conversation[0], conversation[1], "--reason", "asked"];
    for whose in [["--user", EMAIL], conversation] {
        let (placed, hold) = run(&stage, &["hold", "place", whose[0], whose[1], "--reason", "case 12"], &[]).await;
        assert!(placed, "{hold}");
        let hold = hold.lines().find(|line| uuid::Uuid::try_parse(line).is_ok()).unwrap();
        let (erased, said) = run(&stage, &erase, &[]).await;
        assert!(!erased && said.contains("is held") && said.contains("case 12"), "{said}");
        let retain = [("SMOOTH_AGENT_RETAIN_DAYS", "1")];
        let later = (Utc::now() + TimeDelta::days(2)).to_rfc3339();
        let (swept, said) = run(&stage, &["retain", "--as-of", &later], &retain).await;
        assert!(swept && said.contains("all: 1 conversations due, 1 of them held"), "{said}");
        let (_, holds) = run(&stage, &["hold", "list"], &[]).await;
        assert!(holds.contains(hold) && !holds.to_lowercase().contains("planted"), "{holds}");
        assert!(run(&stage, &["hold", "lift", hold, "--reason", "over"], &[]).await.0);
        assert!(!run(&stage, &["hold", "lift", hold, "--reason", "over"], &[]).await.0);
    }
    assert_eq!(answer_text(&client.ask(&session, "r2", "still there?").await), "ok");
    // Streams in memory may be gone with their server.
    jetstream::new(stage.nats.client().await).delete_stream("LIVE_local").await.unwrap();
    let (erased, said) = run(&stage, &erase, &[]).await;
    assert!(erased && said.contains("erased 1 conversations"), "{said}");
    let (_, told) = run(&stage, &["replay", &session.conversation], &[]).await;
    assert!(!told.contains("still there"), "{told}");
}

/// Tool events go first, then all; a conversation with erased tool events goes on.
#[tokio::test]
async fn each_class_of_events_is_kept_for_its_time() {
    let stage = Stage::start().await;
    stage.gateway.respond_with(model);
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("look_up", "found it")]).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    worker.line(|line| line.contains("tools of NATS services") && line.contains("look_up")).await;
    let mut client = Client::connect(&edge).await;
    let session = plant_session(&mut client, 1).await;
    plant_turn(&mut client, &session, 1).await;
    let kept = [("SMOOTH_AGENT_RETAIN_DAYS", "30"), ("SMOOTH_AGENT_RETAIN_TOOLS_DAYS", "7")];
    let sweep = async |days: i64| {
        let at = (Utc::now() + TimeDelta::days(days)).to_rfc3339();
        let (swept, said) = run(&stage, &["retain", "--as-of", &at], &kept).await;
        assert!(swept, "{said}");
        said
    };
    let told = async || run(&stage, &["replay", &session.conversation], &[]).await.1;

    assert!(sweep(6).await.contains("tools: 0 conversations due"));
    assert!(told().await.contains("found it"));
    assert!(sweep(8).await.contains("tools: 1 conversations due"));
    let without_tools = told().await;
    assert!(!without_tools.contains("found it") && without_tools.contains(&secret("answer", 1)), "{without_tools}");
    assert_eq!(client.history(&session).await.len(), 2);
    assert_eq!(answer_text(&client.ask(&session, "r2", "again of 2.").await), secret("answer", 2));
    let told_again = told().await;
    assert!(told_again.contains("found it"), "tool results are kept as long as messages: {told_again}");
    assert!(sweep(31).await.contains("all: 1 conversations due"));
    assert!(!told().await.contains(PLANTED));
    assert!(run(&stage, &["audit", "verify"], &[]).await.0);
}

/// Records the request of an erasure, as a process does that dies afterwards.
async fn request_erasure(stage: &Stage, by: &str, session: &Session) {
    let requested = json!({
        "at": Utc::now(), "by": by, "deed": "erase_requested", "erasure": uuid::Uuid::new_v4(),
        "conversations": [session.conversation], "extent": "all", "reason": "asked",
    });
    let log = jetstream::new(stage.nats.client().await);
    let published = log.publish("audit.local.privacy.erase_requested", requested.to_string().into()).await.unwrap();
    published.await.unwrap();
}

/// A hold placed after the request, and a conversation that is used again after retention found it.
#[tokio::test]
async fn completing_an_erasure_respects_holds_and_use() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let (held, used) = (plant_session(&mut client, 1).await, client.open_session().await);
    for session in [&held, &used] {
        assert_eq!(answer_text(&client.ask(session, "r1", "hello").await), "ok");
    }
    request_erasure(&stage, "auditor", &held).await;
    request_erasure(&stage, "retention", &used).await;
    let place = ["hold", "place", "--user", EMAIL, "--reason", "case 13"];
    let (placed, hold) = run(&stage, &place, &[]).await;
    assert!(placed, "{hold}");
    let (both, kept) = (wrapped_keys(&stage).await, [("SMOOTH_AGENT_RETAIN_DAYS", "30")]);
    let sweep = async |days: i64| {
        let at = (Utc::now() + TimeDelta::days(days)).to_rfc3339();
        run(&stage, &["retain", "--as-of", &at], &kept).await
    };
    let (swept, said) = sweep(1).await;
    assert!(swept, "{said}");
    assert_eq!(wrapped_keys(&stage).await, both, "{said}");
    // Once the used conversation is due again, retention takes it; the held one stays until the hold is lifted.
    let (swept, said) = sweep(31).await;
    assert!(swept, "{said}");
    let (_, told) = run(&stage, &["replay", &used.conversation], &[]).await;
    assert!(!told.contains("hello"), "{told}");
    let (_, told) = run(&stage, &["replay", &held.conversation], &[]).await;
    assert!(told.contains("hello"), "{told}");
    let hold = hold.lines().find(|line| uuid::Uuid::try_parse(line).is_ok()).unwrap();
    assert!(run(&stage, &["hold", "lift", hold, "--reason", "over"], &[]).await.0);
    assert!(sweep(1).await.0);
    assert!(wrapped_keys(&stage).await.is_empty());
}

/// The erasing process died after it recorded the request: the next erasure completes it.
#[tokio::test]
async fn an_interrupted_erasure_is_completed_by_the_next_one() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let (first, second) = (client.open_session().await, client.open_session().await);
    request_erasure(&stage, "auditor", &first).await;
    let log = jetstream::new(stage.nats.client().await);
    // The dead process had deleted the key and left no tombstone; without one, a missing key does not count as an erasure.
    let bucket = log.get_stream("KV_KEYS").await.unwrap();
    let key = bucket.get_last_raw_message_by_subject(&format!("$KV.KEYS.{}.said", first.conversation)).await.unwrap();
    bucket.delete_message(key.sequence).await.unwrap();
    let (replayed, said) = run(&stage, &["replay", &first.conversation], &[]).await;
    assert!(!replayed && said.contains("is missing"), "{said}");
    let erase = ["erase", "--conversation", &second.conversation, "--reason", "asked"];
    let (erased, said) = run(&stage, &erase, &[]).await;
    assert!(erased && said.contains("completed an earlier erasure"), "{said}");
    assert!(wrapped_keys(&stage).await.is_empty());
    let (_, said) = run(&stage, &erase, &[]).await;
    assert!(!said.contains("completed an earlier erasure"), "{said}");
}

/// A sweep is killed between two batches: the next one goes on from there.
#[tokio::test]
async fn a_killed_sweep_is_completed_by_the_next_one() {
    const SESSIONS: usize = 12;
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    for _ in 0..SESSIONS {
        client.open_session().await;
    }
    let nats = stage.nats.client().await;
    let mut requests = nats.subscribe("audit.local.privacy.erase_requested").await.unwrap();
    nats.flush().await.unwrap();
    let (days, later) = ([("SMOOTH_AGENT_RETAIN_DAYS", "1")], (Utc::now() + TimeDelta::days(2)).to_rfc3339());
    let sweep = ["retain", "--batch", "1", "--as-of", &later];
    let mut killed = stage.run("retain", &sweep, &days);
    let mut named = Vec::new();
    let conversations = |message: async_nats::Message| -> Vec<String> {
        let entry: Value = serde_json::from_slice(&message.payload).unwrap();
        entry["conversations"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    for _ in 0..3 {
        named.extend(conversations(requests.next().await.unwrap()));
    }
    killed.kill().await;
    let (swept, said) = run(&stage, &sweep, &days).await;
    assert!(swept, "{said}");
    assert!(wrapped_keys(&stage).await.is_empty());
    // All requests are delivered by now.
    nats.flush().await.unwrap();
    while let Some(Some(message)) = requests.next().now_or_never() {
        named.extend(conversations(message));
    }
    let distinct: std::collections::BTreeSet<_> = named.iter().collect();
    assert_eq!((named.len(), distinct.len()), (SESSIONS, SESSIONS), "no conversation twice");
    let (swept, said) = run(&stage, &sweep, &days).await;
    assert!(swept && said.contains("all: 0 conversations due"), "{said}");
}

/// Events stored before encryption was configured can't be erased, and the command reports them.
#[tokio::test]
async fn unencrypted_events_are_reported() {
    let stage = Stage::start().await;
    let clear = stage.edge_with(&[("SMOOTH_AGENT_MASTER_KEY", "")]).await;
    let session = Client::connect(&clear).await.open_session().await;
    let edge = stage.edge().await;
    let resumed = Client::connect(&edge).await.resume(&session.conversation).await;
    assert_eq!(resumed.conversation, session.conversation, "an encrypting edge continues the conversation");
    let (erased, said) =
        run(&stage, &["erase", "--conversation", &session.conversation, "--reason", "asked"], &[]).await;
    assert!(!erased && said.contains("1 events were stored unencrypted"), "{said}");
}

#[tokio::test]
async fn without_its_master_key_no_process_serves_encrypted_conversations() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    Client::connect(&edge).await.open_session().await;
    let (started, said) = run(&stage, &["edge", "--port", "0"], &[("SMOOTH_AGENT_MASTER_KEY", "")]).await;
    assert!(!started && said.contains("SMOOTH_AGENT_MASTER_KEY"), "{said}");
    let other = BASE64_STANDARD.encode([9; 32]);
    let (started, said) = run(&stage, &["edge", "--port", "0"], &[("SMOOTH_AGENT_MASTER_KEY", &other)]).await;
    assert!(!started && said.contains("master key"), "{said}");
    // The old master key still opens the keys that it wrapped.
    let both = format!("{other} {}", encrypted::MASTER_KEY);
    let rotated: Edge = stage.edge_with(&[("SMOOTH_AGENT_MASTER_KEY", &both)]).await;
    assert!(listed(&mut Client::connect(&rotated).await).await == 0);
}
