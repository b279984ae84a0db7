//! Returning visitors: by their browser, and on another device by a proved address; over plain HTTP from a page.

use std::{fs, time::Instant};

use serde_json::{Value, json};

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage, WAIT_MAX,
        client::{Client, Session},
        frames::{answer_text, code},
        http::send,
        otp::{CODE, OtpService},
    },
};

const PAGE: (&str, &str) = ("origin", "https://shop.example");
/// The setting that lets the page ask an edge without token checks.
const OPEN: [(&str, &str); 1] = [("SMOOTH_AGENT_ALLOWED_ORIGINS", PAGE.1)];

/// Sends a request of a page.
async fn ask(edge: &Edge, path: &str, body: Value) -> (u16, Value) {
    let response = send(edge, "POST", &format!("/internal/{path}"), &[PAGE], Some(&body)).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*", "{path}");
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

async fn probe(edge: &Edge, agent: &str, fingerprint: &str) -> Value {
    let (status, answer) =
        ask(edge, "resume-by-fingerprint", json!({"agentId": agent, "browserFingerprint": fingerprint})).await;
    assert_eq!(status, 200, "{answer:#}");
    answer
}

async fn open(client: &mut Client, fields: Value) -> Session {
    let mut action = json!({"action": "create_conversation_session", "agentId": "shop"});
    action.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let created = client.request(action).await;
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

/// Asks until the browser is known, since it is recorded after its session was opened.
async fn known(edge: &Edge, fingerprint: &str) -> Value {
    let began = Instant::now();
    loop {
        let answer = probe(edge, "shop", fingerprint).await;
        if answer["reason"] != "no_prior_visit" {
            return answer;
        }
        assert!(began.elapsed() < WAIT_MAX);
    }
}

#[tokio::test]
async fn a_returning_browser_finds_its_last_session() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge_with(&OPEN), stage.edge_with(&OPEN), stage.worker());
    let mut client = Client::connect(&a).await;
    assert_eq!(probe(&b, "shop", "f-1").await, json!({"resumable": false, "reason": "no_prior_visit"}));
    let session = open(&mut client, json!({"browserFingerprint": "f-1"})).await;
    assert_eq!(answer_text(&client.ask(&session, "r1", "hello").await), "ok");
    drop(client);

    let found = known(&b, "f-1").await;
    let expected = json!({
        "resumable": true, "reason": "resumable", "sessionId": session.id, "conversationId": session.conversation,
    });
    assert_eq!(found, expected);
    let mut back = Client::connect(&b).await;
    assert_eq!(back.history(&session).await, ["hello", "ok"]);
    assert_eq!(answer_text(&back.ask(&session, "r2", "me again").await), "ok");
    for (agent, fingerprint) in [("shop", "f-2"), ("other", "f-1")] {
        assert_eq!(probe(&a, agent, fingerprint).await["resumable"], false, "{agent} {fingerprint}");
    }
    for wrong in [json!({}), json!({"agentId": "shop"}), json!({"agentId": "shop", "browserFingerprint": 7}), json!([])]
    {
        let (status, refusal) = ask(&a, "resume-by-fingerprint", wrong.clone()).await;
        assert_eq!((status, code(&refusal)), (400, "VALIDATION_ERROR"), "{wrong}");
    }
}

#[tokio::test]
async fn a_fingerprint_is_no_proof() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[("AUTH_JWT_HS256_SECRET", SECRET)]).await;
    let mut visitor = Client::connect(&edge).await;
    let session = open(&mut visitor, json!({"browserFingerprint": "f-1"})).await;
    assert_eq!(known(&edge, "f-1").await["sessionId"], session.id.as_str());
    let ada = token(json!({"sub": "ada", "org": "reference-org", "email": "ada@example.org"}));
    let mut ada = Client::try_connect(handshake(&edge, &format!("?token={ada}"), None)).await.unwrap();
    let hers = open(&mut ada, json!({"conversationId": session.conversation})).await;
    assert_eq!(hers.conversation, session.conversation, "the proved visitor takes over the ownerless conversation");
    assert_eq!(probe(&edge, "shop", "f-1").await, json!({"resumable": false, "reason": "identified"}));
}

#[tokio::test]
async fn the_agents_policy_applies_to_pages() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policies.json");
    let policies = json!({
        "shop": {"allowed_origins": ["https://shop.example"], "organization_id": "acme"},
        "elsewhere": {"allowed_origins": ["https://elsewhere.example"]},
    });
    fs::write(&path, policies.to_string()).unwrap();
    let variables = [("WIDGET_AUTH_FILE", path.to_str().unwrap()), ("WIDGET_AUTH_STRICT", "1")];
    let edge = stage.edge_with(&variables).await;
    for path in ["resume-by-fingerprint", "identity/request-otp", "identity/verify-otp", "identity/resolve"] {
        for (agent, expected) in [("elsewhere", "ORIGIN_NOT_ALLOWED"), ("nobody", "AGENT_NOT_AUTHORIZED")] {
            let (status, refusal) = ask(&edge, path, json!({"agentId": agent})).await;
            assert_eq!((status, code(&refusal)), (403, expected), "{path} {agent}");
        }
        let forged = json!({"agentId": "shop", "authContext": {"userId": "a", "timestamp": 1, "signature": ""}});
        let (status, refusal) = ask(&edge, path, forged).await;
        assert_eq!((status, code(&refusal)), (401, "AUTH_CONTEXT_INVALID"), "{path}");
        let preflight =
            [PAGE, ("access-control-request-method", "POST"), ("access-control-request-headers", "content-type")];
        let allowed = send(&edge, "OPTIONS", &format!("/internal/{path}"), &preflight, None).await;
        let header = |name: &str| allowed.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(allowed.status(), 204);
        assert_eq!(header("access-control-allow-origin"), "*");
        assert!(header("access-control-allow-methods").contains("POST"));
        assert_eq!(header("access-control-allow-headers"), "content-type");
        assert!(allowed.headers().get("access-control-allow-credentials").is_none());
    }
    for (method, path) in [("GET", "resume-by-fingerprint"), ("POST", "identity"), ("POST", "identity/resolve/more")] {
        let refused = send(&edge, method, &format!("/internal/{path}"), &[PAGE], None).await;
        assert_eq!(refused.status(), 404, "{method} {path}");
    }
    let large = json!({"agentId": "shop", "browserFingerprint": "x".repeat(20_000)});
    assert_eq!(ask(&edge, "resume-by-fingerprint", large).await.0, 400);
}

/// Returns the body that a widget sends with each request of the restore.
fn asked(session: &Session, fields: Value) -> Value {
    let mut body = json!({"agentId": "shop", "agentName": "Shop", "sessionId": session.id});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_proved_address_gets_its_conversations_back() {
    let stage = Stage::start().await;
    let otp = OtpService::start(&stage.nats, "reference-org", true).await;
    let tokens = [("AUTH_JWT_HS256_SECRET", SECRET)];
    let (a, b, _worker) = tokio::join!(stage.edge_with(&tokens), stage.edge_with(&tokens), stage.worker());
    let ada = token(json!({"sub": "ada", "org": "reference-org", "email": "Ada@example.org"}));
    let mut ada = Client::try_connect(handshake(&a, &format!("?token={ada}"), None)).await.unwrap();
    let hers = open(&mut ada, json!({})).await;
    ada.ask(&hers, "r1", "where is my lamp?").await;
    let bo = token(json!({"sub": "bo", "org": "reference-org", "email": "bo@example.org"}));
    let mut bo = Client::try_connect(handshake(&a, &format!("?token={bo}"), None)).await.unwrap();
    let his = open(&mut bo, json!({})).await;
    bo.ask(&his, "r1", "a secret of mine").await;

    // Another device, without a token, on another edge.
    let mut device = Client::connect(&b).await;
    let session = open(&mut device, json!({})).await;
    let email = json!({"email": " ada@EXAMPLE.org", "channel": "email"});
    let with_code = |code: &str| json!({"email": "ada@example.org", "code": code});
    let (_, early) = ask(&b, "identity/verify-otp", asked(&session, with_code(CODE))).await;
    assert_eq!(early, json!({"event": "otp_invalid", "error": "NOT_FOUND", "attemptsRemaining": 0}));
    let (status, sent) = ask(&b, "identity/request-otp", asked(&session, email.clone())).await;
    assert_eq!((status, &sent["event"], &sent["channel"]), (200, &json!("otp_sent"), &json!("email")), "{sent:#}");
    assert!(sent["maskedDestination"].is_string());
    assert_eq!(otp.sent()[0]["email"], "ada@example.org");
    let unproved = json!({"resolved": false, "conversations": []});
    assert_eq!(ask(&a, "identity/resolve", asked(&session, email.clone())).await, (200, unproved.clone()));
    let (_, wrong) = ask(&a, "identity/verify-otp", asked(&session, with_code("000000"))).await;
    assert_eq!(wrong["event"], "otp_invalid");
    assert!(wrong["attemptsRemaining"].is_u64());
    let other_address = json!({"email": "bo@example.org", "code": CODE});
    let (_, other) = ask(&a, "identity/verify-otp", asked(&session, other_address)).await;
    assert_eq!(other["event"], "otp_invalid", "a code proves the address that it was sent to");
    assert_eq!(ask(&a, "identity/resolve", asked(&session, email.clone())).await.1, unproved);
    let (_, verified) = ask(&a, "identity/verify-otp", asked(&session, with_code(CODE))).await;
    assert_eq!(verified, json!({"event": "otp_verified"}));

    let began = Instant::now();
    let restored = loop {
        let (status, answer) = ask(&b, "identity/resolve", asked(&session, email.clone())).await;
        assert_eq!((status, &answer["resolved"]), (200, &json!(true)), "{answer:#}");
        if let [conversation] = answer["conversations"].as_array().unwrap().as_slice() {
            break conversation.clone();
        }
        assert!(began.elapsed() < WAIT_MAX, "{answer:#}");
    };
    assert_eq!(
        (&restored["conversationId"], &restored["preview"]),
        (&json!(hers.conversation), &json!("where is my lamp?"))
    );
    assert!(restored["lastActivityAt"].is_string());
    let back =
        Session { id: restored["sessionId"].as_str().unwrap().to_owned(), conversation: hers.conversation.clone() };
    assert_eq!(device.history(&back).await, ["where is my lamp?", "ok"]);
    assert_eq!(answer_text(&device.ask(&back, "r2", "it is me").await), "ok");

    let (_, again) = ask(&a, "identity/resolve", asked(&session, email.clone())).await;
    assert_eq!(again["conversations"][0]["sessionId"], restored["sessionId"], "asking again opens no other session");

    // The proof is of this address and of this session.
    for (session, email) in [(&session, "bo@example.org"), (&back, "ada@example.org")] {
        let (_, answer) = ask(&b, "identity/resolve", asked(session, json!({"email": email}))).await;
        assert_eq!(answer, unproved, "{email}");
    }
    let (status, refusal) = ask(&b, "identity/resolve", asked(&his, json!({"email": "bo@example.org"}))).await;
    assert_eq!((status, code(&refusal)), (404, "SESSION_NOT_FOUND"), "a session is not reachable by other visitors");
}

#[tokio::test]
async fn codes_to_an_address_are_limited() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&OPEN).await;
    let mut client = Client::connect(&edge).await;
    let session = open(&mut client, json!({})).await;
    let email = json!({"email": "ada@example.org"});
    let (status, refusal) = ask(&edge, "identity/request-otp", asked(&session, email.clone())).await;
    assert_eq!((status, code(&refusal)), (502, "OTP_SEND_FAILED"), "no password service is running");
    let otp = OtpService::start(&stage.nats, "reference-org", true).await;
    for _ in 0..4 {
        assert_eq!(ask(&edge, "identity/request-otp", asked(&session, email.clone())).await.0, 200);
    }
    let (status, refusal) = ask(&edge, "identity/request-otp", asked(&session, email.clone())).await;
    assert_eq!((status, code(&refusal)), (429, "RATE_LIMITED"), "of one session");
    // The hour may end once meanwhile, not twice.
    for n in 0..30 {
        let session = open(&mut client, json!({})).await;
        let (status, refusal) = ask(&edge, "identity/request-otp", asked(&session, email.clone())).await;
        if status == 429 {
            assert_eq!(code(&refusal), "RATE_LIMITED");
            assert!(otp.sent().len() <= 20);
            break;
        }
        assert!(status == 200 && n < 25, "no limit is enforced");
    }
    for (fields, status) in [
        (json!({"email": "no address"}), 400),
        (json!({}), 400),
        (json!({"email": "ada@example.org", "channel": "sms"}), 400),
        (json!({"email": "ada@example.org", "channel": 7}), 400),
        (json!({"email": "ada@example.org", "sessionId": uuid::Uuid::new_v4()}), 404),
        (json!({"email": "ada@example.org", "sessionId": ""}), 400),
    ] {
        assert_eq!(ask(&edge, "identity/request-otp", asked(&session, fields.clone())).await.0, status, "{fields}");
    }
}
