//! The demo gateway over HTTP.

use super::*;
use tokio::sync::oneshot;

struct Demo {
    url: String,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
}

async fn start() -> Demo {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, async {
        stopped.await.ok();
    }));
    Demo { url, stop: Some(stop), server }
}

async fn post(demo: &Demo, path: &str, body: String) -> reqwest::Response {
    let url = format!("{}{path}", demo.url);
    reqwest::Client::new().post(url).body(body).send().await.unwrap()
}

fn request(text: &str, stream: bool) -> String {
    json!({
        "model": "any-model", "stream": stream, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": text}],
        "tools": [{"type": "function", "function": {"name": "look"}}],
    })
    .to_string()
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn an_answer_streams_word_by_word_and_ends_properly() {
    let demo = start().await;
    let response = post(&demo, CHAT, request("hello", true)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let body = response.text().await.unwrap();
    let events: Vec<&str> = body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let words: Vec<&str> = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(words, ["Hello! ", "How ", "can ", "I ", "help ", "you?"]);
    let (usage, rest) = chunks.split_last().unwrap();
    assert_eq!(usage["usage"]["prompt_tokens"], 1);
    assert_eq!(usage["usage"]["completion_tokens"], 6);
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["model"] == "any-model"));
}

#[tokio::test]
async fn a_call_arrives_whole_in_both_forms() {
    let demo = start().await;
    let ask = r#"call look {"at": "me"}"#;
    let whole = post(&demo, CHAT, request(ask, false)).await;
    let whole: Value = serde_json::from_str(&whole.text().await.unwrap()).unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(function["name"], "look");
    assert_eq!(function["arguments"], r#"{"at":"me"}"#);
    assert!(whole["usage"]["total_tokens"].as_u64().unwrap() > 0);

    let streamed = post(&demo, CHAT, request(ask, true)).await;
    let streamed = streamed.text().await.unwrap();
    assert!(streamed.contains("\"finish_reason\":\"tool_calls\""));
    assert!(streamed.contains("\"name\":\"look\""));
}

#[tokio::test]
async fn refusals_have_the_apis_shape() {
    let demo = start().await;
    for (path, body, status) in [
        (CHAT, "{".to_owned(), 400),
        (CHAT, json!({"model": "m", "messages": []}).to_string(), 400),
        ("/v1/embeddings", "{}".to_owned(), 404),
        ("/", "{}".to_owned(), 404),
    ] {
        let response = post(&demo, path, body).await;
        assert_eq!(response.status(), status, "{path}");
        let body = response.text().await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"]["message"].is_string());
    }
    let url = format!("{}{CHAT}", demo.url);
    let response = reqwest::get(url).await.unwrap();
    assert_eq!(response.status(), 405);
}

#[tokio::test]
async fn the_gateway_ends_with_its_streams() {
    let mut demo = start().await;
    let mut response = post(&demo, CHAT, request("who are you?", true)).await;
    assert!(response.chunk().await.unwrap().is_some());
    demo.stop.take().unwrap().send(()).unwrap();
    demo.server.await.unwrap();
    while let Ok(Some(_)) = response.chunk().await {}
}
