//! The gateway itself, seen by an ordinary HTTP client.

use super::*;
use serde_json::json;

/// Sends a request and returns the response after its head.
async fn ask(gateway: &FakeGateway, message: &str) -> reqwest::Response {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let messages = json!([{"role": "user", "content": message}]);
    let request = json!({"model": "m-1", "messages": messages});
    let url = format!("{}/chat/completions", gateway.base_url());
    let client = reqwest::Client::new();
    client.post(url).json(&request).send().await.unwrap()
}

/// Returns the data of all events up to the end or the break of the body.
async fn events(mut response: reqwest::Response) -> Vec<String> {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
    }
    let body = String::from_utf8(body).unwrap();
    let data = body.split("\n\n").filter_map(|e| e.strip_prefix("data: "));
    data.map(str::to_owned).collect()
}

fn text_of(events: &[String]) -> String {
    let chunks = events.iter().filter_map(|data| serde_json::from_str(data).ok());
    let texts = chunks.filter_map(|chunk: Value| {
        let content = &chunk["choices"][0]["delta"]["content"];
        content.as_str().map(str::to_owned)
    });
    texts.collect()
}

fn owned(tokens: &[&str]) -> Vec<String> {
    tokens.iter().map(|token| token.to_string()).collect()
}

#[tokio::test]
async fn rule_then_queue_then_ok() {
    let gateway = FakeGateway::start().await;
    gateway.script(Reply::text("first in the queue").with_reasoning("let me see"));
    gateway.script(Reply::text("").delay_per_token(Duration::from_millis(1)));
    gateway.respond_with(|request| {
        let asked = request["messages"][0]["content"] == "rule";
        asked.then(|| Reply::text("by rule"))
    });
    let first = events(ask(&gateway, "a").await).await;
    assert_eq!(text_of(&first), "first in the queue");
    assert_eq!(first.last().unwrap(), "[DONE]");
    assert!(first[first.len() - 2].contains("\"completion_tokens\":4"));
    assert!(first[first.len() - 3].contains("\"finish_reason\":\"stop\""));
    assert!(first[1].contains("\"reasoning_content\":\"let \""));
    let ruled = events(ask(&gateway, "rule").await).await;
    assert_eq!(text_of(&ruled), "by rule");
    assert_eq!(text_of(&events(ask(&gateway, "b").await).await), "");
    assert_eq!(text_of(&events(ask(&gateway, "c").await).await), "ok");
    gateway.wait_for_requests(4).await;
    assert_eq!(gateway.requests()[1]["messages"][0]["content"], "rule");
    gateway.wait_for_open_streams(0).await;
}

#[tokio::test]
async fn calls_come_in_fragments() {
    let gateway = FakeGateway::start().await;
    let call = Reply::tool_call("look", json!({"at": "\u{1f980}"}));
    gateway.script(call.with_text("I look. "));
    let events = events(ask(&gateway, "a").await).await;
    assert_eq!(text_of(&events), "I look. ");
    let arguments: String = events
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| {
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            call["function"]["arguments"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(arguments, "{\"at\":\"\u{1f980}\"}");
}

#[tokio::test]
async fn an_unstreamed_reply_says_so() {
    let gateway = FakeGateway::start().await;
    for (reply, status, content_type) in [
        (Reply::status(503), 503, "application/json"),
        (Reply::garbage(), 200, "text/html"),
        (Reply::json_error_200(), 200, "application/json"),
    ] {
        gateway.script(reply);
        let response = ask(&gateway, "a").await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], content_type);
    }
}

#[tokio::test]
async fn a_gate_lets_tokens_through_one_by_one() {
    let gateway = FakeGateway::start().await;
    let gate = Gate::new();
    gateway.script(Reply::gated(owned(&["one", "two", "three"]), &gate));
    let mut response = ask(&gateway, "a").await;
    let mut seen = String::new();
    for token in ["one", "two"] {
        assert!(!seen.contains(token));
        gate.release(1);
        while !seen.contains(token) {
            let bytes = response.chunk().await.unwrap().unwrap();
            seen.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
    assert!(!seen.contains("three"));
    gate.open();
    assert_eq!(events(response).await.last().unwrap(), "[DONE]");
}

#[tokio::test]
async fn breaks_and_silence_come_after_the_tokens() {
    let gateway = FakeGateway::start().await;
    gateway.script(Reply::cut_after(owned(&["half ", "an"])));
    let cut = events(ask(&gateway, "a").await).await;
    assert_eq!(text_of(&cut), "half an");
    gateway.wait_for_open_streams(0).await;

    gateway.script(Reply::hang_after(owned(&["half"])));
    let response = ask(&gateway, "b").await;
    gateway.wait_for_open_streams(1).await;
    assert_eq!(gateway.open_streams(), 1);
    drop(response);
    gateway.wait_for_open_streams(0).await;

    gateway.script(Reply::hang());
    tokio::select! {
        _ = ask(&gateway, "c") => panic!("a hanging gateway answered"),
        () = gateway.wait_for_requests(3) => assert_eq!(gateway.open_streams(), 1),
    }
    gateway.wait_for_open_streams(0).await;
}

#[tokio::test]
async fn a_raw_reply_is_sent_as_it_is() {
    let gateway = FakeGateway::start().await;
    gateway.script(Reply::raw(vec![b"data: o".to_vec(), b"ne\n\ndata: two\n\n".to_vec()]));
    assert_eq!(events(ask(&gateway, "a").await).await, ["one", "two"]);
}

#[tokio::test]
async fn a_scripted_reply_breaks_at_its_place() {
    let gateway = FakeGateway::start().await;
    gateway.script(Reply::bytes("data: one\n\ndata: two\n\n", 3));
    assert_eq!(events(ask(&gateway, "a").await).await, ["one", "two"]);
    gateway.script(Reply::bytes("data: one\n\ndata: tw", 1 << 20).breaks());
    let mut response = ask(&gateway, "b").await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: one\n\ndata: tw");
    assert!(response.chunk().await.is_err());
}

#[test]
fn the_rules_of_the_big_providers_are_enforced() {
    let user = json!({"role": "user", "content": "a"});
    let said = json!({"role": "assistant", "content": "b"});
    let system = json!({"role": "system", "content": "s"});
    let call = |name: &str, arguments: &str| {
        let call = json!({"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}});
        json!({"role": "assistant", "content": null, "tool_calls": [call]})
    };
    let result = json!({"role": "tool", "content": "r", "tool_call_id": "1"});
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let good = tool("t", json!({"type": "object", "properties": {"a": {"type": "string"}}}));
    let refusal =
        |messages: &[&Value], tools: &[&Value]| rules::refusal(&json!({"messages": messages, "tools": tools}));
    let called = call("t", "{}");
    assert_eq!(refusal(&[&system, &user, &called, &result, &said, &user], &[&good]), None);
    let blank = json!({"role": "user", "content": " "});
    for broken in [
        &[&user, &system][..],
        &[&system, &system, &user],
        &[&user, &user],
        &[&said, &user],
        &[&user, &called, &said],
        &[&user, &called],
        &[&user, &result],
        &[&blank],
        &[&user, &call("t", "[1]"), &result],
        &[&user, &call("t", "{\"a\":"), &result],
        &[&user, &call("a b", "{}"), &result],
    ] {
        assert!(refusal(broken, &[&good]).is_some(), "{broken:?}");
    }
    assert!(refusal(&[&user, &called, &result], &[]).is_some(), "calls without tools");
    for schema in [
        json!({}),
        json!({"type": "object"}),
        json!({"type": "object", "properties": {}, "anyOf": []}),
        json!({"type": "object", "properties": {"$a": {}}}),
        json!({"type": "object", "properties": {"a": {"type": ["string", "null"]}}}),
        json!({"type": "object", "properties": {"a": {"$ref": "#/x"}}}),
        json!({"type": "object", "properties": {"a": {"type": "array"}}}),
        json!({"type": "object", "properties": {"a": {}}}),
        json!({"type": "object", "properties": {"a": {"type": "integer", "enum": [1]}}}),
        json!({"type": "object", "properties": {"a": {"type": "string", "enum": [""]}}}),
        json!({"type": "object", "properties": {"a": {"type": "string", "format": "email"}}}),
        json!({"type": "object", "properties": {"a": {"type": "string", "nullable": true}}}),
        json!({"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}),
        json!({"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "number"}], "title": "A"}}}),
        Value::Null,
    ] {
        assert!(refusal(&[&user], &[&tool("t", schema.clone())]).is_some(), "{schema}");
    }
    assert!(refusal(&[&user], &[&tool("a.b", json!({"type": "object", "properties": {}}))]).is_some());
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_or_a_demand_is_refused() {
    let gateway = FakeGateway::start().await;
    gateway.demand(|request| (request["messages"][0]["content"] == "no").then(|| "not so".into()));
    for (message, status) in [(" ", 400), ("no", 400), ("yes", 200)] {
        assert_eq!(ask(&gateway, message).await.status(), status, "{message}");
    }
    assert_eq!(gateway.refusals().len(), 2);
}

#[tokio::test]
async fn other_endpoints_are_answered_by_the_rule_alone() {
    let gateway = FakeGateway::start().await;
    let ask = async || {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("{}/embeddings", gateway.base_url());
        let sent = reqwest::Client::new().post(url).body(json!({"input": ["a"]}).to_string());
        sent.header("content-type", "application/json").send().await.unwrap()
    };
    assert_eq!(ask().await.status(), 404);
    gateway.respond_with(|request| Some(Reply::json(&request["input"])));
    assert_eq!(ask().await.text().await.unwrap(), r#"["a"]"#);
    assert!(gateway.requests().is_empty(), "other endpoints are not recorded as model requests");
}
