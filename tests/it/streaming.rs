//! The model's text reaches the client unchanged.

use serde_json::{Value, json};

use crate::support::{
    Stage,
    client::{Client, message_frame},
    frames::{answer, answer_text, kinds, streamed},
    gateway::Reply,
    tools::{Provider, Tool},
};

/// Returns an event stream of the API: the deltas, a finish reason, the usage, the end.
fn stream_bytes(deltas: &[Value], usage: Value) -> Vec<u8> {
    let chunk = |choices: Value, usage: &Value| json!({"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": choices, "usage": usage});
    let mut text = String::from(": a comment\n\n");
    for delta in deltas {
        let choice = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
        text += &format!("data: {}\n\n", chunk(choice, &Value::Null));
    }
    let end = json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]);
    text += &format!("data: {}\n\ndata: {}\n\n", chunk(end, &Value::Null), chunk(json!([]), &usage));
    (text + "data: [DONE]\n\n").into_bytes()
}

fn contents(tokens: &[&str]) -> Vec<Value> {
    tokens.iter().map(|token| json!({"content": token})).collect()
}

#[tokio::test]
async fn text_arrives_whole_across_packets_and_repetitions() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let tokens =
        ["ha", "ha", "ha", " Grüße ", "\u{1F980}\u{1F980}", " \u{2028}\"\\", "\u{0} 漢字", "e\u{301}", " ", "ha"];
    let text: String = tokens.concat();
    let bytes = stream_bytes(&contents(&tokens), Value::Null);
    for (n, size) in [1, 2, 3, 7, 1000].into_iter().enumerate() {
        stage.gateway.script(Reply::raw(bytes.chunks(size).map(<[u8]>::to_vec).collect()));
        let turn = client.ask(&session, &format!("r{n}"), "laugh").await;
        assert_eq!(streamed(&turn), text, "in pieces of {size}");
        assert_eq!(answer_text(&turn), text);
    }
    assert_eq!(client.history(&session).await[1], text);
}

#[tokio::test]
async fn usage_and_cost_are_the_gateways_and_summed_over_the_turn() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("look", "seen")]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let reply = |usage: Value| Reply::raw(vec![stream_bytes(&contents(&["fine"]), usage)]);
    for (id, usage, expected) in [
        (
            "with a cost",
            json!({"prompt_tokens": 12, "completion_tokens": 3, "cost": 0.25}),
            json!({"promptTokens": 12, "completionTokens": 3, "costUsd": 0.25}),
        ),
        (
            "without a cost",
            json!({"prompt_tokens": 12, "completion_tokens": 3}),
            json!({"promptTokens": 12, "completionTokens": 3}),
        ),
        ("unknown", Value::Null, Value::Null),
    ] {
        stage.gateway.script(reply(usage));
        let turn = client.ask(&session, id, "hello").await;
        assert_eq!(answer(&turn)["usage"], expected, "{id}");
        assert_eq!(answer(&turn).get("usage").is_some(), !expected.is_null());
        assert!(answer(&turn).get("citations").is_none(), "there is no knowledge to cite");
        assert_eq!(answer(&turn)["needsEscalation"], false);
    }
    let call = json!({"tool_calls": [{"index": 0, "id": "c", "type": "function",
                                      "function": {"name": "look", "arguments": "{}"}}]});
    let asking = stream_bytes(&[call], json!({"prompt_tokens": 100, "completion_tokens": 10, "cost": 0.5}));
    stage.gateway.script(Reply::raw(vec![asking]));
    stage.gateway.script(reply(json!({"prompt_tokens": 120, "completion_tokens": 5, "cost": 0.25})));
    let turn = client.ask(&session, "two calls", "look").await;
    assert_eq!(answer(&turn)["usage"], json!({"promptTokens": 220, "completionTokens": 15, "costUsd": 0.75}));
    let request = stage.gateway.requests().pop().unwrap();
    assert_eq!((&request["stream"], &request["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
    assert_eq!(request["max_tokens"], 8192);
    assert!(request.get("temperature").is_none());
}

#[tokio::test]
async fn reasoning_is_streamed_separately_from_the_answer() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::text("It is 4.").with_reasoning("two and two"));
    let turn = client.ask(&session, "r1", "2 + 2?").await;
    assert_eq!(kinds(&turn), ["stream_reasoning", "stream_token", "eventual_response"]);
    assert_eq!(answer_text(&turn), "It is 4.");
    assert_eq!(client.history(&session).await, ["2 + 2?", "It is 4."]);
}

#[tokio::test]
async fn a_client_that_wants_no_stream_gets_prompts_and_the_end() {
    let stage = Stage::start().await;
    let tools = vec![Tool::answers("look", "seen"), Tool::answers("act", "done").with("confirm", "true")];
    let _provider = Provider::start(&stage.nats, tools).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("look", json!({})).with_text("Looking. ").with_reasoning("hm"));
    stage.gateway.script(Reply::tool_call("act", json!({})));
    stage.gateway.script(Reply::text("it is done"));
    let mut quiet = message_frame(&session, "r1", "look and act");
    quiet["stream"] = json!(false);
    assert_eq!(client.request(quiet).await["status"], 202);
    let parked = client.turn_until("r1", "write_confirmation_required").await;
    assert_eq!(parked.len(), 1, "{parked:#?}");
    client.confirm(&session, true).await;
    let rest = client.turn("r1").await;
    assert_eq!(kinds(&rest), ["eventual_response"]);
    assert_eq!(answer_text(&rest), "it is done");
    assert_eq!(kinds(&client.ask(&session, "r2", "and now?").await), ["stream_token", "eventual_response"]);
}

/// An empty final text falls back to the text streamed before the tool ran.
#[tokio::test]
async fn text_before_a_tool_call_is_the_answer_of_an_empty_reply() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("note", "noted")]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("note", json!({})).with_text("All is well."));
    stage.gateway.script(Reply::tokens(Vec::new()));
    let turn = client.ask(&session, "r1", "how are things?").await;
    assert_eq!(answer_text(&turn), "All is well.");
}
