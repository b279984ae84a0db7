//! Handshakes and routes: errors are reported, and an invalid token does not make its bearer anonymous.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    identity::{SECRET, handshake, token},
    support::{Edge, Stage, client::Client, frames::code, http::send},
};

const WITH_TOKENS: [(&str, &str); 1] = [("AUTH_JWT_HS256_SECRET", SECRET)];
/// Seconds for which a token is accepted after its expiry, since clocks differ.
const SKEW_SECS: u64 = 30;

async fn status(edge: &Edge, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    send(edge, method, path, headers, None).await.status().as_u16()
}

#[tokio::test]
async fn an_invalid_token_is_reported_and_grants_no_identity() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    for bad in ["garbage".to_owned(), token(json!({"sub": "ada", "exp": 1})), format!("{}x", token(json!({})))] {
        for (query, bearer) in [(format!("?token={bad}"), None), (String::new(), Some(bad.as_str()))] {
            let mut client = Client::try_connect(handshake(&edge, &query, bearer)).await.unwrap();
            assert_eq!(code(&client.next().await), "INVALID_TOKEN", "{query}");
            assert_eq!(client.close_code().await, Some(4401), "{query}");
        }
    }
    let good = token(json!({"sub": "ada"}));
    for query in [format!("?token={good}&token={good}"), "?token=&token=x".into(), "?v=resume&v=1".into()] {
        assert_eq!(Client::try_connect(handshake(&edge, &query, None)).await.err(), Some(400), "{query}");
    }
    let mut twice = handshake(&edge, "", Some(&good));
    twice.headers_mut().append("authorization", format!("Bearer {good}").parse().unwrap());
    assert_eq!(Client::try_connect(twice).await.err(), Some(400));
    let mut client = Client::try_connect(handshake(&edge, &format!("?token={good}"), None)).await.unwrap();
    client.ping().await;
}

#[tokio::test]
async fn a_token_that_expires_closes_its_connection() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // The token has expired, and is accepted for two more seconds.
    let ending = token(json!({"sub": "ada", "exp": now - SKEW_SECS + 2}));
    let mut client = Client::try_connect(handshake(&edge, &format!("?token={ending}"), None)).await.unwrap();
    client.open_session().await;
    assert_eq!(code(&client.next().await), "INVALID_TOKEN");
    assert_eq!(client.close_code().await, Some(4401));
}

#[tokio::test]
async fn a_proxys_claims_are_read_from_its_header_alone() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[("SMOOTH_AGENT_AUTH_MODE", "trusted"), ("SMOOTH_AGENT_AUTH_STRICT", "1")]).await;
    let claims = URL_SAFE_NO_PAD.encode(json!({"sub": "root", "org": "acme", "role": "admin"}).to_string());
    assert_eq!(Client::try_connect(handshake(&edge, &format!("?token={claims}"), None)).await.err(), Some(401));
    let mut client = Client::try_connect(handshake(&edge, "", Some(&claims))).await.unwrap();
    client.open_session().await;
}

#[tokio::test]
async fn names_too_long_for_a_subject_are_refused() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let mut other = Client::connect(&edge).await;
    for claims in
        [json!({"org": "x".repeat(1_400)}), json!({"org": "ü".repeat(700)}), json!({"sub": "s".repeat(3_000)})]
    {
        let long = token(claims);
        let mut client = Client::try_connect(handshake(&edge, &format!("?token={long}"), None)).await.unwrap();
        assert_eq!(code(&client.next().await), "INVALID_TOKEN");
    }
    // Names in a frame are bounded too, or replaced by their hash.
    for agent in ["x".repeat(5_000), "ü".repeat(3_000), "漢".repeat(2_000)] {
        let created = other.request(json!({
            "action": "create_conversation_session", "agentId": agent, "browserFingerprint": agent,
        }));
        assert_eq!(created.await["status"], 200);
    }
    assert_eq!(status(&edge, "GET", "/ready", &[]).await, 200, "the edge has kept its connection");
}

#[tokio::test]
async fn silent_clients_are_pinged_and_then_closed() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[("SMOOTH_AGENT_PING_SECS", "1"), ("SMOOTH_AGENT_SESSION_WAIT_SECS", "60")]).await;
    let mut polite = Client::connect(&edge).await;
    polite.open_session().await;
    let mut pings = 0;
    while pings < 4 {
        match polite.message().await {
            Some(Ok(Message::Ping(_))) => pings += 1,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    polite.ping().await;

    // This client never answers: the test does not read its socket, so no pong goes out.
    let silent = crate::support::http::raw_handshake(&edge).await;
    let said = silent.read_until_closed().await;
    assert!(said.contains("pings are not answered"), "{said:?}");
}

#[tokio::test]
async fn a_connection_without_a_session_does_not_stay() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[("SMOOTH_AGENT_SESSION_WAIT_SECS", "1"), ("SMOOTH_AGENT_PING_SECS", "60")]).await;
    let (mut idle, mut busy) = (Client::connect(&edge).await, Client::connect(&edge).await);
    busy.open_session().await;
    assert_eq!(idle.close_code().await, Some(1008));
    busy.ping().await;
}

#[tokio::test]
async fn routes_answer_with_the_usual_statuses() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    for path in ["/nowhere", "/ws/more", "/healthy", "/favicon.ico", "/admin", "/internal"] {
        assert_eq!(status(&edge, "GET", path, &[]).await, 404, "{path}");
    }
    for path in ["/health", "/ready", "/", "/audit"] {
        let (head, get) = (send(&edge, "HEAD", path, &[], None).await, send(&edge, "GET", path, &[], None).await);
        assert_eq!(
            (head.status(), head.headers().get("content-length")),
            (get.status(), get.headers().get("content-length")),
            "{path}"
        );
        assert_eq!(head.text().await.unwrap(), "", "{path}");
        let options = send(&edge, "OPTIONS", path, &[], None).await;
        assert_eq!(options.status(), 204, "{path}");
        assert!(options.headers()["allow"].to_str().unwrap().contains("HEAD"), "{path}");
        assert_eq!(status(&edge, "POST", path, &[]).await, 405, "{path}");
    }
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    assert_eq!(status(&edge, "GET", "/ws", &[]).await, 426);
    assert_eq!(status(&edge, "GET", "/ws", &upgrade).await, 400, "the key is missing");
    let short = [&upgrade[..], &[("sec-websocket-key", "c2hvcnQ=")]].concat();
    assert_eq!(status(&edge, "GET", "/ws", &short).await, 400);
    let old = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "8")];
    assert_eq!(status(&edge, "GET", "/ws", &old).await, 426);
    assert_eq!(status(&edge, "POST", "/ws", &upgrade).await, 405);
    tokio::time::timeout(Duration::from_secs(30), Client::connect(&edge)).await.unwrap().ping().await;
}
