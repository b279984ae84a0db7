//! Images and files of a message: images to the model, files to tools, each content once in the object store.

use async_nats::jetstream::{self, object_store::ObjectStore};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::{
    Edge, Stage,
    client::{Client, Session, message_frame},
    encrypted,
    frames::{answer_text, code, tool_activity},
    gateway::Reply,
    processes::Process,
    tools::{Provider, Tool, client_as, read_file, sha256},
};

/// A picture of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const FIVE_MIB: usize = 5 * 1024 * 1024;
const CHUNK: usize = 128 * 1024;

struct Scene {
    stage: Stage,
    edge: Edge,
    _worker: Process,
    client: Client,
    session: Session,
}

async fn scene() -> Scene {
    let stage = Stage::start().await;
    let clear = [("SMOOTH_AGENT_MASTER_KEY", "")];
    let (edge, _worker) = tokio::join!(stage.edge_with(&clear), stage.worker_with(&clear));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    Scene { stage, edge, _worker, client, session }
}

/// Returns pseudo-random bytes for a seed.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

fn data_url(media_type: &str, content: &[u8]) -> String {
    format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(content))
}

fn with(session: &Session, id: &str, attachments: Value) -> Value {
    let mut frame = message_frame(session, id, "see what I have sent");
    frame.as_object_mut().unwrap().extend(attachments.as_object().unwrap().clone());
    frame
}

async fn store(stage: &Stage) -> ObjectStore {
    jetstream::new(stage.nats.client().await).get_object_store("ATTACHMENTS").await.unwrap()
}

/// Returns the number of messages in the object store's stream.
async fn kept(stage: &Stage) -> usize {
    let context = jetstream::new(stage.nats.client().await);
    context.get_stream("OBJ_ATTACHMENTS").await.unwrap().cached_info().state.messages as usize
}

impl Scene {
    async fn ask(&mut self, id: &str, attachments: Value) {
        let accepted = self.client.request(with(&self.session, id, attachments)).await;
        assert_eq!(accepted["status"], 202, "{accepted:#}");
        assert_eq!(answer_text(&self.client.turn(id).await), "ok");
    }

    /// Returns the payload of the log's last event of this kind.
    async fn event(&self, kind: &str) -> Vec<u8> {
        let client = self.stage.nats.client().await;
        let stream = jetstream::new(client.clone()).get_stream("CHAT_local").await.unwrap();
        let subject = format!("chat.local.*.{}.{kind}", self.session.conversation);
        let message = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
        encrypted::open(&encrypted::log(client), &message.subject, message.payload).await.to_vec()
    }
}

#[tokio::test]
async fn a_file_of_5_mib_is_stored_once_and_readable_by_a_tool() {
    let mut s = scene().await;
    let provider = Provider::start(&s.stage.nats, vec![Tool::answers("read_it", "done")]).await;
    s._worker.line(|line| line.contains("tools of NATS services") && line.contains("read_it")).await;
    let sent = content(FIVE_MIB, 1);
    let url = data_url("application/pdf", &sent);
    let files = |name: &str| json!({ "files": [{ "name": name, "mimeType": "application/pdf", "url": url }] });
    for (id, name) in [("r1", "a bill.pdf"), ("r2", "Zoë's second.pdf")] {
        s.stage.gateway.script(Reply::tool_call("read_it", json!({})));
        s.ask(id, files(name)).await;
    }
    assert_eq!(kept(&s.stage).await, FIVE_MIB / CHUNK + 1, "the same content once");

    let calls = provider.calls();
    let [first, second] = [&calls[0].files[0], &calls[1].files[0]];
    assert_eq!((&first["name"], &second["name"]), (&json!("a bill.pdf"), &json!("Zoë's second.pdf")));
    assert_eq!((&first["mimeType"], &second["mimeType"]), (&json!("application/pdf"), &json!("application/pdf")));
    assert_eq!(first["object"]["digest"], second["object"]["digest"]);
    let object = &first["object"];
    assert_eq!((&object["bucket"], &object["size"]), (&json!("ATTACHMENTS"), &json!(FIVE_MIB)));
    let mut read = Vec::new();
    let mut found = store(&s.stage).await.get(object["name"].as_str().unwrap()).await.unwrap();
    assert_eq!(json!(found.info().digest), object["digest"]);
    found.read_to_end(&mut read).await.unwrap();
    assert!(read == sent, "the client library of any tool reads it");

    let event = s.event("turn.requested.default").await;
    assert!(event.len() < 4_096, "{} bytes", event.len());
    for request in s.stage.gateway.requests() {
        let text = request.to_string();
        assert!(
            !text.contains("bill") && !text.contains("second.pdf") && !text.contains("ATTACHMENTS"),
            "{text:.2000}"
        );
    }
}

/// Contents are encrypted here; the tool gets the plain bytes, and only while its call lasts.
#[tokio::test]
async fn a_tool_reads_the_files_of_its_call_and_no_others() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::reads_files("read_it")]).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    worker.line(|line| line.contains("tools of NATS services") && line.contains("read_it")).await;
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let contents = [content(FIVE_MIB, 3), content(7, 4)];
    let files: Vec<Value> =
        contents.iter().map(|sent| json!({"name": "a", "url": data_url("text/plain", sent)})).collect();
    stage.gateway.script(Reply::tool_call("read_it", json!({})));
    client.send(&with(&session, "r1", json!({ "files": files }))).await;
    let turn = client.turn("r1").await;
    let hashes: Vec<String> = contents.iter().map(|sent| sha256(sent)).collect();
    assert_eq!(tool_activity(&turn)[1], format!("result {}", hashes.join(" ")));
    let object = &provider.calls()[0].files[0]["object"];
    let tool = client_as(&stage.nats, "tool_provider").await;
    let late = read_file(&tool, object["read"].as_str().unwrap()).await;
    assert!(late.as_ref().is_err_and(|why| why.contains("its call is over")), "{late:?}");
    let bucket = jetstream::new(tool).get_object_store("ATTACHMENTS").await;
    assert!(bucket.is_err(), "tool providers have no access to the store");
}

/// Edges that write the same content at the same instant store it once.
#[tokio::test]
async fn concurrent_writes_of_the_same_content_store_it_once() {
    let s = scene().await;
    let second = s.stage.edge_with(&[("SMOOTH_AGENT_MASTER_KEY", "")]).await;
    let url = data_url("text/plain", &content(3 * CHUNK, 2));
    let sends = (0..8).map(|n| {
        let (edge, url) = (if n % 2 == 0 { &s.edge } else { &second }, &url);
        async move {
            let mut client = Client::connect(edge).await;
            let session = client.open_session().await;
            let files = json!({ "files": [{ "name": "same.txt", "url": url }] });
            let accepted = client.request(with(&session, "r", files)).await;
            assert_eq!(accepted["status"], 202, "{accepted:#}");
            assert_eq!(answer_text(&client.turn("r").await), "ok");
        }
    });
    futures_util::future::join_all(sends).await;
    assert_eq!(kept(&s.stage).await, 3 + 1);
}

/// Returns the parts of user messages with images in a request to the model.
fn parts(request: &Value) -> Vec<&Value> {
    let messages = request["messages"].as_array().unwrap();
    messages.iter().filter_map(|message| message["content"].as_array()).flatten().collect()
}

#[tokio::test]
async fn images_reach_the_model_with_their_message_and_never_again() {
    let mut s = scene().await;
    let _provider = Provider::start(&s.stage.nats, vec![Tool::answers("look_up", "found")]).await;
    s._worker.line(|line| line.contains("tools of NATS services") && line.contains("look_up")).await;
    let (inline, web) = (format!("data:image/png;base64,{PIXEL}"), "https://example.com/a.webp");
    let images = json!({ "images": [{ "url": inline, "detail": "low" }, { "url": web }, { "no": "url" }] });
    s.stage.gateway.script(Reply::tool_call("look_up", json!({})));
    s.ask("r1", images).await;
    s.ask("r2", json!({})).await;
    let requests = s.stage.gateway.requests();
    let expected = [
        json!({ "type": "text", "text": "see what I have sent" }),
        json!({ "type": "image_url", "image_url": { "url": inline, "detail": "low" } }),
        json!({ "type": "image_url", "image_url": { "url": web } }),
    ];
    assert_eq!(parts(&requests[0]), expected.iter().collect::<Vec<_>>());
    assert_eq!(parts(&requests[1]), expected.iter().collect::<Vec<_>>(), "the same message after the tool's result");
    assert_eq!(parts(&requests[2]), Vec::<&Value>::new());
    assert!(!requests[2].to_string().contains("base64") && !requests[2].to_string().contains(web));
    let event = String::from_utf8(s.event("turn.requested.default").await).unwrap();
    assert!(!event.contains("base64"), "{event}");
}

#[tokio::test]
async fn the_model_is_told_about_a_missing_image() {
    let mut s = scene().await;
    let context = jetstream::new(s.stage.nats.client().await);
    s._worker.kill().await;
    let image = json!({ "images": [{ "url": format!("data:image/png;base64,{PIXEL}") }] });
    let accepted = s.client.request(with(&s.session, "r1", image)).await;
    assert_eq!(accepted["status"], 202, "{accepted:#}");
    context.get_stream("OBJ_ATTACHMENTS").await.unwrap().purge().await.unwrap();
    let _worker = s.stage.worker().await;
    assert_eq!(answer_text(&s.client.turn("r1").await), "ok");
    let request = &s.stage.gateway.requests()[0];
    assert!(request["messages"].to_string().contains("no longer there"), "{request:#}");
}

#[tokio::test]
async fn forbidden_attachments_are_refused_by_name_and_not_stored() {
    let mut s = scene().await;
    let large = data_url("application/zip", &content(8 * 1024 * 1024 + 1, 3));
    for (attachments, words) in [
        (
            json!({ "files": [{ "name": "setup.exe", "url": "data:application/x-msdownload;base64,TVo=" }] }),
            "setup.exe",
        ),
        (json!({ "files": [{ "name": "all.zip", "url": large }] }), "file `all.zip`: larger than 8 MiB"),
        (json!({ "images": [{ "url": "https://e.example/" }, { "url": "data:image/svg+xml,<svg/>" }] }), "image 2"),
        (json!({ "message": "", "images": [{ "url": "ftp://e.example/a.png" }] }), "image 1"),
    ] {
        let refused = s.client.request(with(&s.session, "r", attachments)).await;
        assert_eq!(code(&refused), "VALIDATION_ERROR", "{refused:#}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(words), "{refused:#}");
    }
    s._worker.kill().await;
    s.client.begin(&s.session, "running", "wait").await;
    let files = json!({ "files": [{ "name": "a.txt", "url": "data:,a" }] });
    let refused = s.client.request(with(&s.session, "r", files)).await;
    assert_eq!(code(&refused), "TURN_IN_PROGRESS");
    assert_eq!(kept(&s.stage).await, 0);
    assert_eq!(s.client.history(&s.session).await, ["wait"]);
}

/// Large frames need a session, and no client may send frames of any size.
#[tokio::test]
async fn large_frames_need_a_session() {
    let s = scene().await;
    let ping = |bytes: usize| json!({ "action": "ping", "x": "x".repeat(bytes) });
    let mut stranger = Client::connect(&s.edge).await;
    stranger.send(&ping(300 * 1024)).await;
    assert_eq!(stranger.close_code().await, Some(1009));

    let mut known = Client::connect(&s.edge).await;
    let found = known.request(json!({ "action": "get_session", "sessionId": s.session.id })).await;
    assert_eq!(found["status"], 200);
    assert_eq!(known.request(ping(10 * 1024 * 1024)).await["type"], "pong");
    // Frames that follow closely are parsed from the end of the large one.
    for (n, bytes) in [1_000, 2 * 1024 * 1024, 0, 70_000, 3 * 1024 * 1024, 1].into_iter().enumerate() {
        let mut ping = ping(bytes);
        ping["requestId"] = json!(format!("p{n}"));
        known.send(&ping).await;
    }
    for n in 0..6 {
        assert_eq!(known.next().await["requestId"], format!("p{n}"));
    }
    known.send_bytes(b"\x81\xff\x00\x00\x00\x00\x02\x00\x00\x00\0\0\0\0").await;
    assert_eq!(known.close_code().await, Some(1009), "32 MiB");
}

/// Buffer space is charged for received bytes, not for the length in a frame's header.
#[tokio::test]
async fn announced_frames_without_data_delay_no_client() {
    let s = scene().await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(&s.edge).await;
        client.open_session().await;
        client.ping().await;
        let head = [&b"\x81\xff"[..], &(20u64 << 20).to_be_bytes(), &[0; 4], b"{"].concat();
        client.send_bytes(&head).await;
        idle.push(client);
    }
    // Unfinished frames of ordinary size, from many connections.
    for _ in 0..100 {
        let mut client = Client::connect(&s.edge).await;
        let head = [&b"\x81\xff"[..], &(255u64 << 10).to_be_bytes(), &[0; 4]].concat();
        client.send_bytes(&[head, vec![b' '; 200 << 10]].concat()).await;
        idle.push(client);
    }
    let mut client = Client::connect(&s.edge).await;
    let session = client.open_session().await;
    for n in 0..2 {
        let large = json!({ "action": "ping", "requestId": format!("p{n}"), "x": "x".repeat(15 << 20) });
        assert_eq!(client.request(large).await["type"], "pong");
    }
    assert_eq!(client.request(json!({ "action": "get_session", "sessionId": session.id })).await["status"], 200);
}

/// A visitor can't make the product fetch addresses of the deployment's own network.
#[tokio::test]
async fn an_attachments_url_must_be_public() {
    let stage = Stage::start().await;
    let allow = [("SMOOTH_AGENT_FETCH_ALLOW", "10.0.0.9:8080")];
    let (edge, allowing, _worker) = tokio::join!(stage.edge(), stage.edge_with(&allow), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    for (n, url) in [
        "http://127.0.0.1/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "https://10.0.0.9:8080/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
        "http://0x7f.1/a.png",
        "http://2130706433/a.png",
        "http://localhost/a.png",
        "http://metadata.internal/a.png",
        "http://intranet/a.png",
        "https://user:secret@example.com/a.png",
        "https://example.com:6379/a.png",
    ]
    .into_iter()
    .enumerate()
    {
        for (kind, entry) in [("images", json!({"url": url})), ("files", json!({"url": url, "name": "a.txt"}))] {
            let mut message = json!({"action": "send_message", "sessionId": session.id, "message": "look"});
            message["requestId"] = json!(format!("{kind}-{n}"));
            message[kind] = json!([entry]);
            assert_eq!(code(&client.request(message).await), "VALIDATION_ERROR", "{kind} {url}");
        }
    }
    let mut client = Client::connect(&allowing).await;
    let listed = json!([{"url": "https://10.0.0.9:8080/a.png"}]);
    let message = json!({
        "action": "send_message", "requestId": "r", "sessionId": session.id, "message": "look", "images": listed,
    });
    assert_eq!(client.request(message).await["status"], 202);
}
