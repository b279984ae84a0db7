//! Outages of NATS, and shutdowns of processes.

use std::time::Duration;

use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tokio::time::{sleep, timeout};

use crate::support::{
    WAIT_MAX,
    client::{Client, Speaks, message_action},
    frames::{answer_text, code, is_terminal, kind},
    gateway::Reply,
    log::Log,
    probe::Probe,
    proxy::Proxy,
    stage::{Product, Stage},
};

#[tokio::test]
async fn ready_turns_red_without_nats_and_green_again() {
    let mut stage = Stage::start().await;
    let mut edge = stage.edge().await;
    let mut probe = Probe::connect(&edge.address).await;
    assert_eq!(probe.ask().await, (200, "ready".into()));
    stage.nats.kill().await;
    probe.until(503).await;
    stage.nats.restart().await;
    // The streams in memory are recreated also after the comparison at the start.
    edge.process.line(|line| line.contains("a memory stream is missing")).await;
    probe.until(200).await;
    let streams = async_nats::jetstream::new(stage.nats.client().await);
    for name in ["LIVE_local", "KV_WORKERS"] {
        timeout(WAIT_MAX, async { while streams.get_stream(name).await.is_err() {} }).await.expect(name);
    }
}

#[tokio::test]
async fn ready_turns_red_before_a_stopping_edge_ends() {
    let stage = Stage::start().await;
    let mut edge = stage.edge().await;
    // A client that does not react to the close keeps the edge for a moment.
    let _client = Client::connect(&edge.address, Speaks::Standard).await.unwrap();
    let mut probe = Probe::connect(&edge.address).await;
    assert_eq!(probe.ask().await.0, 200);
    edge.process.signal(libc::SIGTERM);
    edge.process.line(|line| line.contains("stopping")).await;
    let (status, said) = probe.ask().await;
    assert_eq!((status, said.contains("stopping")), (503, true), "{said}");
    assert!(edge.process.ended().await.success());
}

/// An edge that does not know a session can't report it missing while NATS is unreachable.
#[tokio::test]
async fn without_nats_no_false_not_found_is_sent() {
    let mut stage = Stage::start().await;
    let (first, second, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let mut client = Client::connect(&first.address, Speaks::Standard).await.unwrap();
    let session = client.open_session().await;
    let conversation = client.request(json!({"action": "get_session", "sessionId": session})).await.unwrap();
    let conversation = conversation["data"]["conversationId"].clone();
    stage.nats.kill().await;
    let actions = [
        json!({"action": "get_session", "sessionId": session}),
        json!({"action": "get_conversation_messages", "sessionId": session}),
        message_action(&session, "r1", "hello"),
        json!({"action": "confirm_tool_action", "sessionId": session, "approved": true}),
        json!({"action": "resume_session", "sessionId": session}),
        json!({"action": "create_conversation_session", "conversationId": conversation}),
    ];
    let asked = actions.into_iter().map(|action| async {
        let mut client = Client::connect(&second.address, Speaks::Resume).await.unwrap();
        (client.request(action.clone()).await.unwrap(), action)
    });
    for (answer, action) in join_all(asked).await {
        assert_eq!(code(&answer), "STORAGE_ERROR", "{action}: {answer}");
    }
    stage.nats.restart().await;
    let mut client = Client::connect(&second.address, Speaks::Standard).await.unwrap();
    client.begin(&session, "r1", "hello").await;
    assert_eq!(answer_text(&client.turn("r1").await), "ok");
}

/// Every message that is sent around the outage is accepted truly or refused honestly, and is in the log once.
#[tokio::test]
async fn a_202_around_an_outage_is_never_false() {
    const CLIENTS: usize = 6;
    const SENT_EVERY: Duration = Duration::from_millis(150);
    let mut stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    stage.gateway.respond_with(|_| Some(Reply::text("it takes a while").delay_per_token(Duration::from_millis(40))));
    let send = |address: String| async move {
        let mut client = Client::connect(&address, Speaks::Standard).await.unwrap();
        let session = client.open_session().await;
        let mut refused = 0;
        for n in 0..12 {
            let id = format!("r{n}");
            loop {
                let answer = client.request(message_action(&session, &id, "hello")).await.unwrap();
                if kind(&answer) != "error" {
                    break;
                }
                assert_eq!(code(&answer), "STORAGE_ERROR", "{answer}");
                refused += 1;
            }
            assert_eq!(answer_text(&client.turn(&id).await), "it takes a while");
            sleep(SENT_EVERY).await;
        }
        (client, session, refused)
    };
    let clients = join_all((0..CLIENTS).map(|n| send(if n % 2 == 0 { a.address.clone() } else { b.address.clone() })));
    let outages = async {
        for _ in 0..2 {
            stage.gateway.wait_for_requests(stage.gateway.requests().len() + CLIENTS).await;
            stage.nats.kill().await;
            stage.nats.restart().await;
        }
    };
    let (clients, ()) = tokio::join!(clients, outages);
    let log = Log::read(&stage.nats.client().await).await;
    assert_eq!(log.violations(), Vec::<String>::new());
    for (client, session, refused) in clients {
        for n in 0..12 {
            let id = format!("r{n}");
            let turn = log.turn(&session, &id).expect("a 202 is in the log");
            assert_eq!(turn.violations(), Vec::<String>::new());
            let ends = client.frames_of(&id).iter().filter(|frame| kind(frame) == "eventual_response").count();
            assert_eq!(ends, 1);
        }
        let ended = client.seen.iter().filter(|frame| is_terminal(frame)).count();
        assert_eq!(ended, 12 + refused, "each turn ends once, each refusal is one");
    }
}

/// A host's attestation of its user can be used once, and the ack of that use is lost.
#[tokio::test]
async fn a_lost_answer_does_not_use_up_a_signed_assertion() {
    const KEY: &str = "the shop's key";
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policies.json");
    let shop = json!({ "allowed_origins": ["*"], "public_key": KEY, "organization_id": "shop" });
    std::fs::write(&path, json!({ "shop": shop }).to_string()).unwrap();
    let proxy = Proxy::start(&stage.nats.url()).await;
    let through = Product { nats_url: proxy.url(), ..stage.product.clone() };
    let policies = [("WIDGET_AUTH_FILE", path.to_str().unwrap())];
    let mut edge = through.run("edge", &["edge", "--port", "0"], &policies);
    let address = edge.line_after("listening on http://").await;
    let mut client = Client::connect(&address, Speaks::Standard).await.unwrap();
    let timestamp = chrono::Utc::now().timestamp();
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("ada@example.org:{timestamp}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let context = json!({ "userId": "ada@example.org", "timestamp": timestamp, "signature": signature });
    let open = json!({ "action": "create_conversation_session", "agentId": "shop", "authContext": context });
    proxy.hold_answers_after("$KV.ONCE.");
    let lost = async {
        proxy.holds().await;
        proxy.cut();
        proxy.let_go();
    };
    let (opened, ()) = tokio::join!(client.request(open.clone()), lost);
    let opened = opened.unwrap();
    assert_eq!(opened["status"], 200, "{opened}");
    let again = client.request(open).await.unwrap();
    assert_eq!(code(&again), "AUTH_CONTEXT_INVALID", "the assertion counts once");
}
