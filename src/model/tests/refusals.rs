//! Gateways that refuse a part of a request.

use super::*;

/// A prompt in which a call was made, with the opaque fields to give back.
fn with_call() -> ChatRequest {
    let call = ToolCall {
        id: "call_1".into(),
        name: "pay".into(),
        arguments: "{}".into(),
        opaque: Some(r#"{"extra_content":{"a":1}}"#.into()),
    };
    let messages = vec![
        ChatMessage::System("be kind".into()),
        ChatMessage::User("pay".into()),
        ChatMessage::Assistant {
            text: String::new(),
            tool_calls: vec![call],
            opaque: Some(r#"{"reasoning":"hm"}"#.into()),
        },
        ChatMessage::Tool { call_id: "call_1".into(), content: "paid".into() },
    ];
    ChatRequest { messages, ..request() }
}

/// Sends a request twice to a gateway that refuses it once; returns the bodies that were sent.
async fn sent_after(refusal: &str, request: &ChatRequest) -> Vec<Value> {
    let ok = || stream(&[&token("ok"), FINISH, DONE].concat());
    let server = serve(vec![status("400 Bad Request", "", refusal), ok(), ok()]).await;
    let gateway = Gateway::with_timeouts(&server.base_url, None, quick()).unwrap();
    for _ in 0..2 {
        let mut stream = gateway.chat(request).await.unwrap();
        while stream.next().await.unwrap().is_some() {}
    }
    let requests = server.requests.lock().unwrap();
    requests.iter().map(|sent| serde_json::from_str(sent.split_once("\r\n\r\n").unwrap().1).unwrap()).collect()
}

#[tokio::test]
async fn refused_opaque_fields_are_not_returned_again() {
    let sent = sent_after("property 'reasoning' is unsupported", &with_call()).await;
    assert_eq!((sent.len(), &sent[0]["messages"][2]["reasoning"]), (3, &"hm".into()));
    assert_eq!(sent[0]["messages"][2]["tool_calls"][0]["extra_content"]["a"], 1);
    for again in &sent[1..] {
        assert!(!again.to_string().contains("reasoning") && !again.to_string().contains("extra_content"), "{again}");
        assert_eq!(again["messages"][2]["tool_calls"][0]["id"], "call_1");
    }
    let sent = sent_after("messages.2: Invalid 'reasoning'", &with_call()).await;
    assert!(sent[1]["messages"][2]["reasoning"].is_null());
    assert_eq!(sent[2]["messages"][2]["reasoning"], "hm", "another time it may be taken");
}

#[tokio::test]
async fn a_model_without_tools_gets_calls_as_text() {
    let tools = vec![ToolSpec { name: "pay".into(), description: "d".into(), parameters: serde_json::json!({}) }];
    let sent = sent_after("m does not support tools", &ChatRequest { tools, ..with_call() }).await;
    assert_eq!(sent[0]["tools"][0]["function"]["description"], "d");
    for again in &sent[1..] {
        assert!(again["tools"].is_null(), "{again}");
        let told: Vec<&str> =
            again["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
        assert_eq!(told, ["be kind", "pay", "(Called pay with {}.)", "Result: paid"]);
    }
}

#[tokio::test]
async fn refused_call_ids_are_mapped() {
    let sent = sent_after("Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.", &with_call()).await;
    let ids = |sent: &Value| {
        let id = |value: &Value| value.as_str().unwrap().to_owned();
        (id(&sent["messages"][2]["tool_calls"][0]["id"]), id(&sent["messages"][3]["tool_call_id"]))
    };
    assert_eq!(ids(&sent[0]), ("call_1".into(), "call_1".into()));
    for again in &sent[1..] {
        let (call, result) = ids(again);
        assert_eq!((call.len(), &call), (9, &result));
        assert!(call.bytes().all(|byte| byte.is_ascii_alphanumeric()) && call == ids(&sent[1]).0);
    }
}

#[tokio::test]
async fn calls_as_text_name_their_tools() {
    let server = serve(vec![stream(&[&token("ok"), FINISH, DONE].concat())]).await;
    let gateway = Gateway::with_timeouts(&server.base_url, None, quick()).unwrap();
    let mut stream = gateway.chat(&with_call()).await.unwrap();
    while stream.next().await.unwrap().is_some() {}
    let requests = server.requests.lock().unwrap();
    let sent: Value = serde_json::from_str(requests[0].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((sent["tools"].as_array().unwrap().len(), &sent["tools"][0]["function"]["name"]), (1, &"pay".into()));
}
