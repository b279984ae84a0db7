//! A client's proved identity and the data that it may reach: tokens at the handshake, one check behind every action.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{client::IntoClientRequest, http::Request};

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    encrypted,
    frames::{answer_text, code, kind},
    gateway::Reply,
    schema,
    tools::{Provider, Tool},
};

pub const SECRET: &str = "a secret that is as long as it has to be";
const WITH_TOKENS: [(&str, &str); 1] = [("AUTH_JWT_HS256_SECRET", SECRET)];

/// Returns a token with these claims besides the usual ones.
pub fn token(claims: Value) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let mut all = json!({"org": "acme", "role": "basic", "exp": expires});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    encode(&Header::new(Algorithm::HS256), &all, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn ada() -> String {
    token(json!({"sub": "ada", "email": "Ada@Example.org", "groups": ["sales", "emea"]}))
}

pub fn handshake(edge: &Edge, query: &str, bearer: Option<&str>) -> Request<()> {
    let mut request = format!("ws://{}/ws{query}", edge.address).into_client_request().unwrap();
    if let Some(bearer) = bearer {
        request.headers_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    }
    request
}

async fn as_user(edge: &Edge, token: &str) -> Client {
    Client::try_connect(handshake(edge, &format!("?token={token}"), None)).await.unwrap()
}

/// Returns the frame without the fields that differ between any two answers.
fn plain(mut frame: Value) -> Value {
    for name in ["timestamp", "requestId"] {
        frame.as_object_mut().unwrap().remove(name);
    }
    if let Some(data) = frame["data"].as_object_mut() {
        data.remove("requestId");
    }
    frame
}

#[tokio::test]
async fn a_foreign_conversation_is_answered_like_a_missing_one() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("pay", "paid").with("confirm", "true")]).await;
    let (edge, _worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.worker());
    let mut owner = as_user(&edge, &ada()).await;
    let session = owner.open_session().await;
    assert_eq!(answer_text(&owner.ask(&session, "r1", "hello").await), "ok");
    stage.gateway.script(Reply::tool_call("pay", json!({})));
    owner.begin(&session, "r2", "pay").await;
    owner.turn_until("r2", "write_confirmation_required").await;

    let unknown = Session { id: uuid::Uuid::new_v4().to_string(), conversation: uuid::Uuid::new_v4().to_string() };
    let strangers = [
        ("a colleague", Some(token(json!({"sub": "eve", "email": "eve@example.org"})))),
        ("a visitor without an address", Some(token(json!({"sub": "nobody"})))),
        ("the same address elsewhere", Some(token(json!({"sub": "ada", "org": "globex", "email": "ada@example.org"})))),
        ("an anonymous visitor", None),
    ];
    for (who, token) in strangers {
        let query = token.map_or_else(|| "?v=resume".to_owned(), |token| format!("?v=resume&token={token}"));
        let mut stranger = Client::try_connect(handshake(&edge, &query, None)).await.unwrap();
        for action in [
            json!({"action": "get_session"}),
            json!({"action": "get_conversation_messages"}),
            json!({"action": "get_conversation_messages", "cursor": "garbage"}),
            json!({"action": "send_message", "message": "let me in", "requestId": "s1"}),
            json!({"action": "send_message", "requestId": "s2"}),
            json!({"action": "confirm_tool_action", "approved": true}),
            json!({"action": "resume_session"}),
        ] {
            let with = |session: &Session| {
                let mut action = action.clone();
                action["sessionId"] = json!(session.id);
                action
            };
            let (of_other, of_nobody) =
                (stranger.request(with(&session)).await, stranger.request(with(&unknown)).await);
            assert_eq!(kind(&of_other), "error", "{who}: {action}");
            assert_eq!(plain(of_other), plain(of_nobody), "{who}: {action}");
        }
        stranger.send(&json!({"action": "cancel", "sessionId": session.id})).await;
        let fresh = stranger.resume(&session.conversation).await;
        assert_ne!(fresh.conversation, session.conversation, "{who}");
        assert!(stranger.history(&fresh).await.is_empty(), "{who}");
    }
    assert!(provider.calls().is_empty());

    // The owner finds everything unchanged, on another connection and with any spelling of the address.
    let again = token(json!({"sub": "ada-2", "email": " ada@EXAMPLE.org"}));
    let mut back = Client::try_connect(handshake(&edge, "", Some(&again))).await.unwrap();
    let resumed = back.resume(&session.conversation).await;
    assert_eq!(resumed.conversation, session.conversation);
    back.turn_until("r2", "write_confirmation_required").await;
    assert_eq!(back.history(&session).await, ["hello", "ok", "pay"]);
    assert_eq!(kind(&back.confirm(&session, true).await), "immediate_response");
    assert_eq!(answer_text(&owner.turn("r2").await), "ok");
}

#[tokio::test]
async fn visitors_without_a_token_keep_their_conversations() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.worker());
    let mut visitor = Client::connect(&edge).await;
    let session = visitor.open_session().await;
    assert_eq!(answer_text(&visitor.ask(&session, "r1", "hello").await), "ok");
    let mut back = Client::connect(&edge).await;
    assert_eq!(back.resume(&session.conversation).await.conversation, session.conversation);
    assert_eq!(back.history(&session).await, ["hello", "ok"]);
    // A member of an organisation can't reach a conversation without an organisation.
    let mut somebody = as_user(&edge, &ada()).await;
    let refused = somebody.request(json!({"action": "get_session", "sessionId": session.id})).await;
    assert_eq!(code(&refused), "SESSION_NOT_FOUND");
}

#[tokio::test]
async fn the_log_names_the_user_and_never_the_token() {
    let stage = Stage::start().await;
    let debug = [WITH_TOKENS[0], ("RUST_LOG", "debug")];
    let (edge, worker) = tokio::join!(stage.edge_with(&debug), stage.worker_with(&[("RUST_LOG", "debug")]));
    let (good, bad) = (ada(), format!("{}x", ada()));
    let mut client = as_user(&edge, &good).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    let mut refused = as_user(&edge, &bad).await;
    assert_eq!(code(&refused.next().await), "INVALID_TOKEN");
    let mut anonymous = Client::connect(&edge).await;
    let other = anonymous.open_session().await;
    anonymous.ask(&other, "r1", "hello").await;

    let events = payloads(&stage).await;
    schema::log(&stage.nats).await;
    let asked: Vec<&Value> = events.iter().filter(|event| event["message"] == "hello").map(|e| &e["asker"]).collect();
    assert_eq!(asked, [&json!({"user": "ada", "groups": ["sales", "emea"]}), &Value::Null]);
    let opened: Vec<&Value> = events.iter().filter(|event| event["agentId"].is_string()).collect();
    assert!(opened.iter().any(|event| event["userEmail"] == "Ada@Example.org"), "{opened:#?}");
    let said = [edge.process.output(), worker.output(), events.iter().map(Value::to_string).collect()].concat();
    for token in [good, bad] {
        for part in token.split('.') {
            assert!(!said.contains(part), "a part of a token was logged: {part}");
        }
    }
    assert!(!said.contains(SECRET));
}

/// Returns the payloads of all events in the log.
async fn payloads(stage: &Stage) -> Vec<Value> {
    let client = stage.nats.client().await;
    let (log, stream) =
        (encrypted::log(client.clone()), jetstream::new(client).get_stream("CHAT_local").await.unwrap());
    let state = &stream.cached_info().state;
    let mut payloads = Vec::new();
    for seq in state.first_sequence..=state.last_sequence {
        let message = stream.direct_get(seq).await.unwrap();
        let payload = encrypted::open(&log, &message.subject, message.payload).await;
        payloads.push(serde_json::from_slice(&payload).unwrap());
    }
    payloads
}

#[tokio::test]
async fn a_strict_server_refuses_the_handshake() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[WITH_TOKENS[0], ("SMOOTH_AGENT_AUTH_STRICT", "true")]).await;
    let (good, bad) = (ada(), format!("{}x", ada()));
    for (query, bearer) in [
        (String::new(), None),
        ("?token=".to_owned(), None),
        (format!("?token={bad}"), None),
        (String::new(), Some(bad.as_str())),
        (format!("?token={good}"), Some(bad.as_str())),
    ] {
        let refused = Client::try_connect(handshake(&edge, &query, bearer)).await.err();
        assert_eq!(refused, Some(401), "{query} {bearer:?}");
    }
    for (query, bearer) in [(format!("?token={good}"), None), (String::new(), Some(good.as_str()))] {
        let mut client = Client::try_connect(handshake(&edge, &query, bearer)).await.unwrap();
        client.open_session().await;
    }
}

/// The user named in a frame does not override the one that the token proves.
#[tokio::test]
async fn a_frame_does_not_change_the_user() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let mut ada_client = as_user(&edge, &ada()).await;
    let hers = ada_client.open_session().await;
    let mut eve = as_user(&edge, &token(json!({"sub": "eve", "email": "eve@example.org"}))).await;
    let pretended = json!({
        "action": "create_conversation_session", "conversationId": hers.conversation, "userEmail": "ada@example.org",
    });
    let created = eve.request(pretended.clone()).await;
    assert_ne!(created["data"]["conversationId"], hers.conversation.as_str());
    let mut anonymous = Client::connect(&edge).await;
    let created = anonymous.request(pretended).await;
    assert_ne!(created["data"]["conversationId"], hers.conversation.as_str());
}

#[tokio::test]
async fn a_server_that_can_not_verify_tokens_does_not_start() {
    let stage = Stage::start().await;
    for (variables, says) in [
        ([("SMOOTH_AGENT_AUTH_MODE", "jwt"), ("X", "")], "AUTH_JWT_RS256_PUBLIC_KEY"),
        ([("SMOOTH_AGENT_AUTH_MODE", "smoo"), WITH_TOKENS[0]], "AUTH_JWT_ISSUER"),
        ([("AUTH_JWT_RS256_PUBLIC_KEY", "no key"), ("X", "")], "AUTH_JWT_RS256_PUBLIC_KEY"),
        ([("AUTH_JWT_HS256_SECRET", "short"), ("X", "")], "AUTH_JWT_HS256_SECRET"),
        ([("SMOOTH_AGENT_AUTH_STRICT", "1"), ("X", "")], "SMOOTH_AGENT_AUTH_MODE"),
    ] {
        let mut edge = stage.run("edge", &["edge", "--port", "0"], &variables);
        assert!(!edge.ended().await.success(), "{variables:?}");
        assert!(edge.output().contains(says), "{variables:?}: {}", edge.output());
    }
    let mut trusting = stage.edge_with(&[("SMOOTH_AGENT_AUTH_MODE", "trusted")]).await;
    trusting.process.line(|line| line.contains("WARN") && line.contains("trusted")).await;
}
