//! Widgets: the pages that may open sessions, their organisation, and their hosts' statements about users.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage,
        client::{Client, Session},
        encrypted,
        frames::{answer_text, code},
        http::call,
        web::{Page, WebServer},
    },
};

const KEY: &str = "the shop's key";

/// Returns a client of a page of this origin.
pub async fn on_page(edge: &Edge, origin: Option<&str>, query: &str) -> Client {
    let mut handshake = handshake(edge, query, None);
    if let Some(origin) = origin {
        handshake.headers_mut().insert("origin", origin.parse().unwrap());
    }
    Client::try_connect(handshake).await.unwrap()
}

async fn open(client: &mut Client, fields: Value) -> Value {
    let mut action = json!({"action": "create_conversation_session"});
    action.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    client.request(action).await
}

fn session(created: &Value) -> Session {
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

/// Returns a host's signed statement about its user.
pub fn context(user: &str, age: i64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let timestamp = now - age;
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("{user}:{timestamp}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"userId": user, "timestamp": timestamp, "signature": signature})
}

pub fn policies() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policies.json");
    let shop = json!({
        "allowed_origins": ["https://shop.example", "https://*.shop.example"], "public_key": KEY, "organization_id": "shop",
    });
    let all = json!({"shop": shop, "open": {"allowed_origins": ["*"]}, "closed": {}});
    fs::write(&path, all.to_string()).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[tokio::test]
async fn a_policy_decides_which_pages_may_open_sessions() {
    let stage = Stage::start().await;
    let (_folder, path) = policies();
    let strict = [("WIDGET_AUTH_FILE", path.as_str()), ("WIDGET_AUTH_STRICT", "yes")];
    let (mild, strict) = tokio::join!(stage.edge_with(&strict[..1]), stage.edge_with(&strict));
    const SHOP: Option<&str> = Some("https://www.shop.example");
    for (agent, origin, on_mild, on_strict) in [
        (json!("shop"), SHOP, "", ""),
        (json!("shop"), Some("https://shop.example"), "", ""),
        (json!("shop"), Some("https://evil.example"), "ORIGIN_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED"),
        (json!("shop"), Some("https://evil.example/.shop.example"), "ORIGIN_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED"),
        (json!("shop"), None, "ORIGIN_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED"),
        (json!("closed"), SHOP, "ORIGIN_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED"),
        (json!("open"), None, "", ""),
        (json!("open"), Some("null"), "", ""),
        (json!("other"), SHOP, "", "AGENT_NOT_AUTHORIZED"),
        (Value::Null, SHOP, "", "AGENT_NOT_AUTHORIZED"),
        (json!(" "), SHOP, "VALIDATION_ERROR", "VALIDATION_ERROR"),
    ] {
        for (edge, expected) in [(&mild, on_mild), (&strict, on_strict)] {
            let mut client = on_page(edge, origin, "").await;
            let answer = open(&mut client, json!({"agentId": agent})).await;
            assert_eq!(code(&answer), expected, "{agent} from {origin:?}: {answer:#}");
        }
    }
}

#[tokio::test]
async fn a_signed_assertion_counts_once_on_all_edges() {
    let stage = Stage::start().await;
    let (_folder, path) = policies();
    let variables = [("WIDGET_AUTH_FILE", path.as_str())];
    let (a, b) = tokio::join!(stage.edge_with(&variables), stage.edge_with(&variables));
    const SHOP: Option<&str> = Some("https://shop.example");
    let (mut here, mut there) = tokio::join!(on_page(&a, SHOP, ""), on_page(&b, SHOP, ""));
    let first = context("ada", 5);
    let asked = |context: &Value| json!({"agentId": "shop", "authContext": context});
    session(&open(&mut here, asked(&first)).await);
    for client in [&mut here, &mut there] {
        assert_eq!(code(&open(client, asked(&first)).await), "AUTH_CONTEXT_INVALID", "a second time");
        let mut spelled = first.clone();
        spelled["signature"] = json!(first["signature"].as_str().unwrap().to_uppercase());
        assert_eq!(code(&open(client, asked(&spelled)).await), "AUTH_CONTEXT_INVALID", "spelled otherwise");
    }
    let both = context("bo", 6);
    let (one, other) = tokio::join!(open(&mut here, asked(&both)), open(&mut there, asked(&both)));
    let codes = [code(&one), code(&other)];
    assert!(codes == ["", "AUTH_CONTEXT_INVALID"] || codes == ["AUTH_CONTEXT_INVALID", ""], "{codes:?}");

    let mut forged = context("ada", 7);
    forged["userId"] = json!("eve");
    for wrong in [forged, context("ada", 120), context("ada", -120), json!({}), Value::Null] {
        assert_eq!(code(&open(&mut there, asked(&wrong)).await), "AUTH_CONTEXT_INVALID", "{wrong}");
    }
    // A session without a statement is a visitor's; without a policy statements are ignored.
    session(&open(&mut there, json!({"agentId": "shop"})).await);
    session(&open(&mut there, json!({"agentId": "other", "authContext": null})).await);
}

#[tokio::test]
async fn a_session_belongs_to_the_policys_organisation() {
    let stage = Stage::start().await;
    let (_folder, path) = policies();
    let variables = [("WIDGET_AUTH_FILE", path.as_str()), ("AUTH_JWT_HS256_SECRET", SECRET)];
    let (edge, _worker) = tokio::join!(stage.edge_with(&variables), stage.worker());
    const SHOP: Option<&str> = Some("https://shop.example");
    let mut visitor = on_page(&edge, SHOP, "").await;
    let opened = open(&mut visitor, json!({"agentId": "shop", "authContext": context("ada", 1)})).await;
    let own = session(&opened);
    assert_eq!(answer_text(&visitor.ask(&own, "r1", "hello").await), "ok");
    let mut back = on_page(&edge, SHOP, "").await;
    let resumed = open(&mut back, json!({"agentId": "shop", "conversationId": own.conversation})).await;
    assert_eq!(session(&resumed).conversation, own.conversation);

    // A member of another organisation is a visitor here: the token's proof does not count in this organisation.
    let guest = token(json!({"sub": "ada", "org": "globex", "email": "ada@globex.example", "groups": ["staff"]}));
    let mut guest = on_page(&edge, SHOP, &format!("?token={guest}")).await;
    let theirs = session(&open(&mut guest, json!({"agentId": "shop"})).await);
    assert_eq!(answer_text(&guest.ask(&theirs, "r1", "let me in").await), "ok");
    let asked = requested(&stage).await;
    assert_eq!(asked, [(json!("hello"), Value::Null), (json!("let me in"), Value::Null)]);
    let home = session(&open(&mut guest, json!({"agentId": "other"})).await);
    assert_eq!(answer_text(&guest.ask(&theirs, "r2", "still me").await), "ok", "both sessions stay");
    assert_ne!(home.conversation, theirs.conversation);

    // The host reaches the user that it has named, in its own organisation.
    let admin = token(json!({"sub": "root", "role": "admin", "org": "shop"}));
    let event =
        json!({"type": "keepalive", "requestId": "h", "timestamp": 1_800_000_000_000_u64, "data": {"requestId": "h"}});
    let body = json!({"target": {"type": "user", "id": "ada"}, "event": event});
    assert_eq!(call(&edge, "POST", "/admin/publish", Some(&admin), Some(&body)).await, (200, json!({"delivered": 1})));
    visitor.ping().await;
    assert!(visitor.seen.contains(&event));
}

/// Returns message and asker of the shop's requests.
async fn requested(stage: &Stage) -> Vec<(Value, Value)> {
    let client = stage.nats.client().await;
    let (log, context) = (encrypted::log(client.clone()), async_nats::jetstream::new(client));
    let stream = context.get_stream("CHAT_local").await.unwrap();
    let last = stream.cached_info().state.last_sequence;
    let mut found = Vec::new();
    for seq in 1..=last {
        let message = stream.direct_get(seq).await.unwrap();
        if message.subject.starts_with("chat.local.shop.") && message.subject.contains(".turn.requested.") {
            let payload = encrypted::open(&log, &message.subject, message.payload).await;
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            found.push((payload["message"].clone(), payload["asker"].clone()));
        }
    }
    found
}

#[tokio::test]
async fn policies_of_a_service_are_cached_and_failures_are_not() {
    let stage = Stage::start().await;
    let status = Arc::new(AtomicU16::new(200));
    let answer = status.clone();
    let service = WebServer::start(move |path| match path {
        "/policies/shop" => {
            let policy = json!({"allowed_origins": ["https://shop.example"]}).to_string();
            Page { status: answer.load(Ordering::SeqCst), ..Page::new("application/json", policy) }
        }
        "/policies/broken" => Page::new("application/json", "[]"),
        _ => Page::missing(),
    })
    .await;
    let url = service.url("/policies");
    let variables =
        [("WIDGET_AUTH_URL", url.as_str()), ("WIDGET_AUTH_BEARER", "a bearer"), ("WIDGET_AUTH_STRICT", "1")];
    let forgetful = [&variables[..], &[("WIDGET_AUTH_TTL_SECS", "0")]].concat();
    let (edge, forgetful) = tokio::join!(stage.edge_with(&variables), stage.edge_with(&forgetful));
    let mut client = on_page(&edge, Some("https://shop.example"), "").await;
    let mut code_of = async |agent: &str| code(&open(&mut client, json!({"agentId": agent})).await).to_owned();
    let asked = |path: &str| service.paths().iter().filter(|asked| *asked == path).count();
    for _ in 0..3 {
        assert_eq!(code_of("shop").await, "");
        assert_eq!(code_of("a/../b ü").await, "AGENT_NOT_AUTHORIZED");
        assert_eq!(code_of("broken").await, "AGENT_NOT_AUTHORIZED");
        assert_eq!(code_of("..").await, "AGENT_NOT_AUTHORIZED");
    }
    assert_eq!((asked("/policies/shop"), asked("/policies/a%2F..%2Fb%20%C3%BC")), (1, 1), "both answers are cached");
    assert_eq!(asked("/policies/broken"), 3, "a failure is not cached");
    assert_eq!(service.paths().len(), 5);
    assert!(service.heads().iter().all(|head| head.to_lowercase().contains("authorization: bearer a bearer")));

    // A policy past its time is requested again; while the service fails, its last answer holds.
    let mut client = on_page(&forgetful, Some("https://shop.example"), "").await;
    for (answer, expected) in [
        (500, "AGENT_NOT_AUTHORIZED"),
        (200, ""),
        (500, ""),
        (404, "AGENT_NOT_AUTHORIZED"),
        (500, "AGENT_NOT_AUTHORIZED"),
        (200, ""),
    ] {
        status.store(answer, Ordering::SeqCst);
        assert_eq!(code(&open(&mut client, json!({"agentId": "shop"})).await), expected, "{answer}");
    }
}

#[tokio::test]
async fn policies_that_can_not_be_read_stop_the_start() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies.json");
    let path = file.to_str().unwrap();
    for content in [None, Some("{"), Some("[]"), Some(r#"{"shop": {"allowed_origins": "*"}}"#)] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let mut edge = stage.run("edge", &["edge", "--port", "0"], &[("WIDGET_AUTH_FILE", path)]);
        assert!(!edge.ended().await.success(), "{content:?}");
        assert!(edge.output().contains("WIDGET_AUTH_FILE"), "{}", edge.output());
    }
}
