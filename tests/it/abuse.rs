//! Malicious clients: slow and endless requests, floods of headers, oversized metadata, deceptive names, and values that would
//! forge lines of the log.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage, WAIT_MAX,
        client::{Client, Session},
        frames::{answer_text, code},
    },
};

/// Sends bytes and returns the edge's whole response, up to the end of the connection.
async fn said_to(edge: &Edge, bytes: &[u8]) -> String {
    let mut tcp = TcpStream::connect(&edge.address).await.unwrap();
    // The edge may refuse before all bytes are sent.
    let _ = tcp.write_all(bytes).await;
    let mut said = Vec::new();
    // A reset ends the connection, too.
    let _ = timeout(WAIT_MAX, tcp.read_to_end(&mut said)).await.expect("the edge ends the connection");
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn an_endless_request_is_disconnected() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let begun = "GET /ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nx-slow: ";
    let body = "POST /internal/identity/resolve HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n{";
    let slow = futures_util::future::join_all((0..100).map(|_| said_to(&edge, begun.as_bytes())));
    let others = async {
        let mut client = Client::connect(&edge).await;
        client.open_session().await;
        client.ping().await;
    };
    let (heads, slow_body, ()) = tokio::join!(slow, said_to(&edge, body.as_bytes()), others);
    assert!(heads.iter().all(|said| !said.contains("101")), "{heads:?}");
    assert!(slow_body.starts_with("HTTP/1.1 400"), "{slow_body}");
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let some: String = (0..150).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(1_000_000));
    for flood in [many, some, large] {
        let request = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{flood}\r\n");
        let said = said_to(&edge, request.as_bytes()).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    }
    let said =
        said_to(&edge, format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(100_000)).as_bytes()).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    Client::connect(&edge).await.ping().await;
}

#[tokio::test]
async fn metadata_is_bounded() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    for (metadata, expected) in [
        (json!({"a": "x".repeat(16_000)}).to_string(), ""),
        (json!({"a": "x".repeat(17_000)}).to_string(), "VALIDATION_ERROR"),
        (
            json!((0..4_000).map(|n| (n.to_string(), json!(n))).collect::<serde_json::Map<_, _>>()).to_string(),
            "VALIDATION_ERROR",
        ),
        (format!("{{\"a\": {deep}}}"), "VALIDATION_ERROR"),
    ] {
        client.send_text(&format!(r#"{{"action": "create_conversation_session", "metadata": {metadata}}}"#)).await;
        assert_eq!(code(&client.next().await), expected, "{} bytes", metadata.len());
    }
}

/// Reverses text direction, ends the line, colours it, and begins a line that looks like a log line.
const EVIL: &str = "Ada\u{202e}\u{0}\u{200b}\r\n\u{1b}[31m9999-01-01 ERROR forged";
const SHOWN: &str = "Ada [31m9999-01-01 ERROR forged";

#[tokio::test]
async fn names_hide_no_characters_and_cannot_forge_log_lines() {
    let stage = Stage::start().await;
    let variables = [
        ("AUTH_JWT_HS256_SECRET", SECRET),
        // No service listens there, so a warning in the log names each requested agent.
        ("WIDGET_AUTH_URL", "http://127.0.0.1:1/"),
        ("RUST_LOG", "turnstream=debug"),
    ];
    let (edge, worker) =
        tokio::join!(stage.edge_with(&variables), stage.worker_with(&[("RUST_LOG", "turnstream=debug")]));
    let claims = json!({"sub": EVIL, "name": EVIL, "email": "ada@example.org", "groups": [EVIL]});
    let mut named = Client::try_connect(handshake(&edge, &format!("?token={}", token(claims)), None)).await.unwrap();
    let mut visitor = Client::connect(&edge).await;
    for client in [&mut named, &mut visitor] {
        let opened = client
            .request(json!({
                "action": "create_conversation_session", "agentId": EVIL, "userName": EVIL, "browserFingerprint": EVIL,
                "supports": [EVIL], "metadata": {EVIL: EVIL}, "conversationId": EVIL,
            }))
            .await;
        let text = |name: &str| opened["data"][name].as_str().unwrap_or_else(|| panic!("{opened:#}")).to_owned();
        let session = Session { id: text("sessionId"), conversation: text("conversationId") };
        let asked = client.ask(&session, "r1", EVIL).await;
        assert_eq!(answer_text(&asked), "ok");
        let page = client.page(&session, json!({})).await;
        let names: Vec<&Value> =
            page["messages"].as_array().unwrap().iter().map(|message| &message["from"]["name"]).collect();
        assert!(names.contains(&&json!(SHOWN)), "{names:?}");
        let rename = json!({"action": "rename_conversation", "conversationId": session.conversation, "title": EVIL});
        assert_eq!(client.request(rename).await["data"]["title"], SHOWN);
        for action in [
            json!({"action": EVIL}),
            json!({"action": "get_session", "sessionId": EVIL}),
            json!({"action": "list_conversations", "cursor": EVIL}),
            json!({"action": "send_message", "sessionId": session.id, "message": "hi", "skill": EVIL}),
        ] {
            assert!(!code(&client.request(action).await).is_empty());
        }
    }
    let log = [edge.process.output(), worker.output()].concat();
    assert!(log.contains("the widget policy service did not answer"), "{log}");
    assert!(!log.contains(['\u{1b}', '\u{202e}', '\u{0}', '\r']), "{log}");
    assert!(!log.lines().any(|line| line.trim_start().starts_with("9999") || line.starts_with("[31m")), "{log}");
}
