//! The client against a real HTTP server that sends the bytes that a test gives it.

mod endings;
mod refusals;

use super::*;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The server's answer to one request.
enum Answer {
    /// Writes these bytes piece by piece and closes the connection.
    Bytes(Vec<Vec<u8>>),
    /// Writes these bytes, then keeps the connection open and silent until the client leaves.
    Hold(Vec<u8>),
}

struct Server {
    base_url: String,
    requests: Arc<Mutex<Vec<String>>>,
    /// Notified when the client has closed a held connection.
    left: Arc<tokio::sync::Notify>,
}

/// Answers one request after the other, each on a connection of its own, in the given order.
async fn serve(answers: Vec<Answer>) -> Server {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
        requests: Arc::default(),
        left: Arc::default(),
    };
    let (requests, left) = (server.requests.clone(), server.left.clone());
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let request = read_request(&mut socket).await;
            requests.lock().unwrap().push(request);
            match answer {
                Answer::Bytes(pieces) => {
                    for piece in pieces {
                        socket.write_all(&piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    socket.shutdown().await.unwrap();
                }
                Answer::Hold(bytes) => {
                    socket.write_all(&bytes).await.unwrap();
                    let mut byte = [0];
                    // Both a clean close and a reset mean that the client left.
                    let _ = socket.read(&mut byte).await;
                    left.notify_one();
                }
            }
        }
    });
    server
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = socket.read(&mut part).await.unwrap();
        assert!(read > 0, "the client left before its request was whole");
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if body.len() == length {
            return text.into_owned();
        }
    }
}

fn status(line: &str, headers: &str, body: &str) -> Answer {
    let head = format!("HTTP/1.1 {line}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Answer::Bytes(vec![head.into_bytes(), body.as_bytes().to_vec()])
}

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n";
const CHUNKED_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    x-litellm-response-cost: 0.002\r\ntransfer-encoding: chunked\r\n\r\n";

fn stream(events: &str) -> Answer {
    Answer::Bytes(vec![STREAM_HEAD.as_bytes().to_vec(), events.as_bytes().to_vec()])
}

fn token(text: &str) -> String {
    let chunk = serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {chunk}\n\n")
}

const FINISH: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn quick() -> Timeouts {
    Timeouts { first_retry: Duration::from_millis(5), ..Timeouts::default() }
}

fn request() -> ChatRequest {
    ChatRequest {
        model: "m".into(),
        messages: vec![ChatMessage::User("hi".into())],
        tools: vec![],
        max_tokens: 8,
        metadata: None,
    }
}

async fn ask_with(server: &Server, timeouts: Timeouts) -> Result<(ModelReply, Vec<ReplyDelta>), ModelError> {
    let gateway = Gateway::with_timeouts(&server.base_url, Some("secret".into()), timeouts);
    let mut stream = gateway.unwrap().chat(&request()).await?;
    let mut all = Vec::new();
    while let Some(deltas) = stream.next().await? {
        assert!(!deltas.is_empty());
        all.extend(deltas);
    }
    Ok((stream.into_reply(), all))
}

async fn ask(server: &Server) -> Result<(ModelReply, Vec<ReplyDelta>), ModelError> {
    ask_with(server, quick()).await
}

fn texts(deltas: &[ReplyDelta]) -> String {
    let texts = deltas.iter().map(|delta| match delta {
        ReplyDelta::Text(text) | ReplyDelta::Reasoning(text) => text.as_str(),
    });
    texts.collect()
}

#[tokio::test]
async fn a_reply_arrives_whole_across_packet_boundaries() {
    let events = [&token("gr\u{fc}n"), &token("\u{1f980}"), FINISH, USAGE, DONE].concat();
    let mut pieces = vec![CHUNKED_HEAD.as_bytes().to_vec()];
    for piece in events.as_bytes().chunks(7) {
        let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
        pieces.push(framed);
    }
    pieces.push(b"0\r\n\r\n".to_vec());
    let server = serve(vec![Answer::Bytes(pieces)]).await;

    let (reply, deltas) = ask(&server).await.unwrap();
    assert_eq!(reply.text, "gr\u{fc}n\u{1f980}");
    assert_eq!(texts(&deltas), reply.text);
    assert_eq!(reply.finish_reason.as_deref(), Some("stop"));
    assert_eq!(
        reply.usage,
        Some(TokenUsage { prompt_tokens: 5, completion_tokens: 2, cost_usd: Some(0.002), ..TokenUsage::default() })
    );
    let requests = server.requests.lock().unwrap();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
    assert!(head.contains("authorization: Bearer secret\r\n"));
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn tokens_of_one_packet_are_returned_together() {
    let server = serve(vec![stream(&[&token("ha"), &token("ha"), FINISH, DONE].concat())]).await;
    let (_, deltas) = ask(&server).await.unwrap();
    assert_eq!(deltas, [ReplyDelta::Text("haha".into())]);
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    let server = serve(vec![stream(&[FINISH, DONE].concat())]).await;
    let gateway = Gateway::new(&server.base_url, None).unwrap();
    let mut stream = gateway.chat(&request()).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), None);
    let head = server.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(!head.contains("authorization"));
    assert!(matches!(Gateway::new(&server.base_url, Some("a\nb".into())), Err(GatewayConfigError::Key)));
}

#[tokio::test]
async fn transient_refusals_are_retried_until_an_answer() {
    let server = serve(vec![
        status("429 Too Many Requests", "retry-after: 0.01\r\n", ""),
        status("529 Overloaded", "retry-after-ms: 1\r\n", "busy"),
        Answer::Bytes(vec![]),
        stream(&[&token("ok"), FINISH, DONE].concat()),
    ])
    .await;
    let (reply, _) = ask(&server).await.unwrap();
    assert_eq!(reply.text, "ok");
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 4);
    let body = |request: &String| request.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert!(requests.iter().all(|r| body(r) == body(&requests[0])));
}

#[tokio::test]
async fn after_three_retries_the_refusal_is_final() {
    let answers = (0..4).map(|_| status("502 Bad Gateway", "", "upstream x-7 is down"));
    let server = serve(answers.collect()).await;
    let error = ask(&server).await.unwrap_err();
    assert!(matches!(error, ModelError::Status { code: 502, .. }));
    assert!(error.detail().contains("x-7"));
    assert!(!error.to_string().contains("x-7"));
    assert_eq!(server.requests.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn other_refusals_are_final_at_once() {
    let server = serve(vec![
        status("401 Unauthorized", "", "{\"error\":{}}"),
        status("302 Found", "location: http://127.0.0.1:1/\r\n", ""),
    ])
    .await;
    for code in [401, 302] {
        match ask(&server).await.unwrap_err() {
            ModelError::Status { code: seen, .. } => assert_eq!(seen, code),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_unreachable_gateway_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
        requests: Arc::default(),
        left: Arc::default(),
    };
    drop(listener);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let error = ask(&server).await.unwrap_err();
    assert!(matches!(error, ModelError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn a_malformed_body_is_an_error() {
    for (kind, body, is_page) in [
        ("text/html", "<html>Welcome</html>", true),
        ("text/event-stream", "<html>Welcome</html>", true),
        ("application/json", "{\"error\":\"no\"}", false),
        ("application/json", "{\"object\":\"error\",\"message\":\"no\"}", false),
    ] {
        let server = serve(vec![status("200 OK", &format!("content-type: {kind}\r\n"), body)]).await;
        let error = ask(&server).await.unwrap_err();
        match &error {
            ModelError::NotTheApi { .. } | ModelError::Truncated { .. } => assert!(is_page, "{error:?}"),
            ModelError::Reported { .. } => assert!(!is_page, "{error:?}"),
            other => panic!("{other:?}"),
        }
        assert!(!error.detail().is_empty());
    }
}

#[tokio::test]
async fn a_completion_that_is_not_streamed_is_a_reply() {
    let body = r#"{"id":"r","choices":[{"message":{"role":"assistant","content":"hi","tool_calls":[{"id":"c","type":"function",
        "function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    for kind in ["content-type: application/json\r\n", "content-type: text/event-stream\r\n", ""] {
        let server = serve(vec![status("200 OK", kind, body)]).await;
        let (reply, deltas) = ask(&server).await.unwrap();
        assert_eq!((texts(&deltas).as_str(), reply.tool_calls.len()), ("hi", 1));
        assert_eq!(reply.usage.unwrap().prompt_tokens, 5);
    }
}

/// An answer with its body in pieces of this size, which ends in order, or breaks.
fn chunked(body: &[u8], piece: usize, breaks: bool) -> Answer {
    let mut pieces = vec![CHUNKED_HEAD.as_bytes().to_vec()];
    for piece in body.chunks(piece) {
        pieces.push([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    pieces.push(if breaks { b"ff\r\n".to_vec() } else { b"0\r\n\r\n".to_vec() });
    Answer::Bytes(pieces)
}

#[tokio::test]
async fn line_ends_marks_and_comments_remove_no_text() {
    let events = [
        ": OPENROUTER PROCESSING\n\n",
        "event: ping\ndata: alive\n\n",
        "data: : comment\n\n",
        "data:\n\n",
        "data: data: {\"choices\":[]}\n\n",
        "data: ping\n\n",
        "data: 5\n\n",
        &token("gr\u{fc}n "),
        "event: something.new\ndata: {\"type\":\"x\",\"delta\":\"y\"}\n\n",
        &token("\u{1f980}").trim_end().replace("data:", "id: 3\ndata:"),
        "\n",
        &token(" and"),
        FINISH.trim_end(),
        "\ndata: [DONE]\n\n",
    ]
    .concat();
    for ends in ["\n", "\r\n", "\r"] {
        for mark in ["", "\u{feff}"] {
            let stream = format!("{mark}{}", events.replace('\n', ends));
            for piece in [1, 2, 3, 5, 4096] {
                let server = serve(vec![chunked(stream.as_bytes(), piece, false)]).await;
                let (reply, deltas) = ask(&server).await.unwrap();
                assert_eq!(reply.text, "gr\u{fc}n \u{1f980} and", "{ends:?} {mark:?} {piece}");
                assert_eq!(texts(&deltas), reply.text);
            }
        }
    }
}

#[tokio::test]
async fn a_stream_without_its_end_is_truncated() {
    let hi = token("hi");
    let half = &FINISH[..FINISH.len() / 2];
    for events in [hi.clone(), DONE.to_owned(), [&hi, half].concat(), String::new()] {
        let server = serve(vec![stream(&events)]).await;
        let error = ask(&server).await.unwrap_err();
        assert!(matches!(error, ModelError::Truncated { .. }), "{error:?}");
    }
    let server = serve(vec![chunked(hi.as_bytes(), 4096, true)]).await;
    let error = ask(&server).await.unwrap_err();
    assert!(matches!(error, ModelError::Truncated { .. }), "{error:?}");
}

#[tokio::test]
async fn after_a_finish_reason_any_end_of_stream_is_accepted() {
    let ended = [&token("hi"), FINISH].concat();
    for end in [
        "",
        "data: [DONE]",
        "data: {\"cho",
        "data: {\"error\":{}}\n\n",
        "data: {\"error\":\"late\"}\n\n",
        "data: <html>\n\n",
    ] {
        for breaks in [false, true] {
            let server = serve(vec![chunked([&ended, end].concat().as_bytes(), 4096, breaks)]).await;
            let reply = ask(&server).await.unwrap().0;
            assert_eq!((reply.text.as_str(), reply.ending), ("hi", FinishReason::Whole), "{end}");
        }
    }
    let idle = Timeouts { idle: Duration::from_millis(50), ..quick() };
    let server = serve(vec![Answer::Hold([STREAM_HEAD, &ended].concat().into_bytes())]).await;
    assert_eq!(ask_with(&server, idle).await.unwrap().0.text, "hi");
}

#[tokio::test]
async fn invalid_utf8_costs_only_its_own_bytes() {
    let mut body = STREAM_HEAD.as_bytes().to_vec();
    body.extend_from_slice(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\xff\"}}]}\n\n");
    body.extend_from_slice([&token("b"), FINISH, DONE].concat().as_bytes());
    let server = serve(vec![Answer::Bytes(vec![body])]).await;
    assert_eq!(ask(&server).await.unwrap().0.text, "a\u{fffd}b");
}

#[tokio::test]
async fn a_content_filter_is_told_from_other_refusals() {
    let filter = r#"{"error":{"code":"content_filter","message":"filtered by policy-7"}}"#;
    let server = serve(vec![
        status("400 Bad Request", "", filter),
        stream(&format!("data: {filter}\n\n")),
        status("400 Bad Request", "", "too long"),
    ])
    .await;
    for is_filtered in [true, true, false] {
        let error = ask(&server).await.unwrap_err();
        assert_eq!(matches!(error, ModelError::Filtered { .. }), is_filtered, "{error:?}");
        assert!(!error.to_string().contains("policy-7"));
    }
}

#[tokio::test]
async fn an_end_marker_ends_a_reply_without_a_finish_reason() {
    let server = serve(vec![stream(&[&token("hi"), DONE].concat())]).await;
    let reply = ask(&server).await.unwrap().0;
    assert_eq!((reply.text.as_str(), reply.ending, reply.finish_reason), ("hi", FinishReason::Unmarked, None));
}

#[tokio::test]
async fn a_learned_dialect_is_used_from_then_on() {
    let refusal = |body: &str| status("400 Bad Request", "", body);
    let ok = || stream(&[&token("ok"), FINISH, DONE].concat());
    let server = serve(vec![
        refusal("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        refusal("stream_options: Extra inputs are not permitted"),
        ok(),
        ok(),
    ])
    .await;
    let gateway = Gateway::with_timeouts(&server.base_url, None, quick()).unwrap();
    for gateway in [gateway.clone(), gateway.with_key("other").unwrap()] {
        let mut stream = gateway.chat(&request()).await.unwrap();
        while stream.next().await.unwrap().is_some() {}
    }
    let requests = server.requests.lock().unwrap();
    let sent = |n: usize| serde_json::from_str::<Value>(requests[n].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((requests.len(), sent(0)["max_tokens"].as_u64()), (4, Some(8)));
    assert!(sent(1)["max_tokens"].is_null() && !sent(1)["stream_options"].is_null());
    for n in [2, 3] {
        assert_eq!(sent(n)["max_completion_tokens"], 8);
        assert!(sent(n)["max_tokens"].is_null() && sent(n)["stream_options"].is_null(), "request {n}");
    }
}

#[tokio::test]
async fn deltas_before_an_error_are_returned_first() {
    for (tail, not_the_api) in
        [("data: {\"error\":{\"message\":\"overloaded\"}}\n\n", false), ("data: <html>\n\n", true)]
    {
        let server = serve(vec![stream(&[&token("hi"), tail].concat())]).await;
        let gateway = Gateway::with_timeouts(&server.base_url, None, quick()).unwrap();
        let mut stream = gateway.chat(&request()).await.unwrap();
        let first = stream.next().await.unwrap().unwrap();
        assert_eq!(first, [ReplyDelta::Text("hi".into())]);
        for _ in 0..2 {
            match stream.next().await.unwrap_err() {
                ModelError::NotTheApi { .. } => assert!(not_the_api),
                ModelError::Reported { .. } => assert!(!not_the_api),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn silence_before_and_within_an_answer_ends_the_call() {
    let server = serve(vec![
        Answer::Hold(vec![]),
        Answer::Hold([STREAM_HEAD, &token("hi")].concat().into_bytes()),
        Answer::Hold([STREAM_HEAD, &token("hi")].concat().into_bytes()),
    ])
    .await;
    let short = Duration::from_millis(50);
    let head = Timeouts { head: short, ..quick() };
    let error = ask_with(&server, head).await.unwrap_err();
    assert!(matches!(error, ModelError::Timeout { .. }), "{error:?}");
    let idle = Timeouts { idle: short, ..quick() };
    let error = ask_with(&server, idle).await.unwrap_err();
    assert!(matches!(error, ModelError::Stalled { .. }), "{error:?}");
    let reply = Timeouts { reply: short, ..quick() };
    let error = ask_with(&server, reply).await.unwrap_err();
    assert!(matches!(error, ModelError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn dropping_the_stream_aborts_the_request() {
    let server = serve(vec![Answer::Hold([STREAM_HEAD, &token("hi")].concat().into_bytes())]).await;
    let gateway = Gateway::new(&server.base_url, None).unwrap();
    let mut stream = gateway.chat(&request()).await.unwrap();
    assert!(stream.next().await.unwrap().is_some());
    drop(stream);
    let left = server.left.notified();
    tokio::time::timeout(Duration::from_secs(10), left).await.expect("the connection was not closed");
}

#[tokio::test]
async fn an_abandoned_wait_loses_no_delta() {
    let events = [&token("a"), &token("b"), &token("c"), FINISH, DONE].concat();
    let server = serve(vec![stream(&events)]).await;
    let gateway = Gateway::new(&server.base_url, None).unwrap();
    let mut stream = gateway.chat(&request()).await.unwrap();
    let mut seen = String::new();
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_secs(10));
        // Polls once and drops the future, as a `select!` loop does at its worst.
        let polled = futures_util::FutureExt::now_or_never(stream.next());
        tokio::task::yield_now().await;
        match polled {
            None => continue,
            Some(Ok(Some(deltas))) => seen.push_str(&texts(&deltas)),
            Some(Ok(None)) => break,
            Some(Err(error)) => panic!("{error:?}"),
        }
    }
    assert_eq!(seen, "abc");
}
