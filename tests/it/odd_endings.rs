//! Endings of a model's reply: answers, incomplete replies, and the calls that are made.

use serde_json::{Value, json};

use crate::{
    odd_models::{DONE, call, delta, event, finish, raw, scene, scene_on, text},
    support::{
        Stage,
        frames::{answer, answer_text, code, kinds, streamed, tool_activity},
        tools::{Provider, Tool},
    },
};

#[tokio::test]
async fn each_unusual_ending_is_handled() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("pay", "paid")]).await;
    let mut s = scene_on(stage).await;
    let pay = call("pay", json!({"sum": 5}));

    // 1. An end marker without a finish reason: the text counts, a call is not made.
    let turn = s.ask("marked", raw(&[&text("Hello"), DONE])).await;
    assert_eq!(answer_text(&turn), "Hello");
    let turn = s.ask("marked, with a call", raw(&[&pay, DONE])).await;
    assert!(tool_activity(&turn)[0].contains("Not called"), "{turn:#?}");
    // 2. Neither: the turn fails.
    let turn = s.ask("neither", raw(&[&text("Hel")])).await;
    assert_eq!(code(turn.last().unwrap()), "AGENT_ERROR");
    // 3. `tool_calls` without a call: the text counts; without a text there is no answer.
    let turn = s.ask("no call", raw(&[&text("Hello"), &finish("tool_calls"), DONE])).await;
    assert_eq!(answer_text(&turn), "Hello");
    let turn = s.ask("no call, no text", raw(&[&finish("tool_calls"), DONE])).await;
    assert_eq!(code(turn.last().unwrap()), "AGENT_ERROR");
    assert_eq!(provider.calls().len(), 0);
    // 4. `stop` with a call: the call is made.
    let turn = s.ask("stop", raw(&[&pay, &finish("stop"), DONE])).await;
    assert_eq!((answer_text(&turn), provider.calls().len()), ("ok", 1));
    // 5. An empty reply: there is no answer, unless text was shown before.
    let turn = s.ask("empty", raw(&[&finish("stop"), DONE])).await;
    assert_eq!(code(turn.last().unwrap()), "AGENT_ERROR");
    s.stage.gateway.script(raw(&[&text("Let me pay."), &pay, &finish("tool_calls"), DONE]));
    let turn = s.ask("empty after a call", raw(&[&finish("stop"), DONE])).await;
    assert_eq!(answer_text(&turn), "Let me pay.");
    let endings: Vec<Value> = s.stored("turn.completed").await.iter().map(|e| e["ended"].clone()).collect();
    assert_eq!(endings[0], json!({"ending": "unmarked"}));
    assert_eq!(endings[2], json!({"ending": "whole", "finishReason": "tool_calls"}));
    s.end().await;
}

#[tokio::test]
async fn an_incomplete_answer_says_so() {
    let mut s = scene().await;
    let turn = s.ask("cut", raw(&[&text("Once upon a"), &finish("length"), DONE])).await;
    assert_eq!(answer_text(&turn), "Once upon a\n\n(This answer was cut off before its end.)");
    assert_eq!(streamed(&turn), answer_text(&turn), "the streamed text equals the answer");
    assert_eq!(answer(&turn)["response"]["resolutionStatus"], "in_progress");

    let turn = s.ask("filtered", raw(&[&text("The recipe is"), &finish("content_filter"), DONE])).await;
    assert_eq!(answer_text(&turn), "The recipe is\n\n(This answer was stopped by a content filter.)");
    assert_eq!(answer(&turn)["response"]["resolutionStatus"], "blocked");

    for (id, reason, words) in [
        ("cut before", "length", "cut off before it began"),
        ("filtered before", "content_filter", "withheld by a content filter"),
        ("filtered by Gemini", "SAFETY", "withheld by a content filter"),
    ] {
        let thought = delta(json!({"reasoning_content": "hm"}));
        let turn = s.ask(id, raw(&[&thought, &finish(reason), DONE])).await;
        let last = turn.last().unwrap();
        assert_eq!(code(last), "AGENT_ERROR", "{id}");
        assert!(last["error"]["message"].as_str().unwrap().contains(words), "{last:#}");
    }

    let refused = json!({"error": {"code": "content_filter", "message": "gateway-internal policy"}});
    let turn = s.ask("filtered in the question", raw(&[&event(refused)])).await;
    assert!(turn.last().unwrap()["error"]["message"].as_str().unwrap().contains("content filter"), "{turn:#?}");

    let refusal = [delta(json!({"refusal": "I can't "})), delta(json!({"refusal": "do that."}))].concat();
    let turn = s.ask("refused", raw(&[&refusal, &finish("stop"), DONE])).await;
    assert_eq!((streamed(&turn).as_str(), answer_text(&turn)), ("I can't do that.", "I can't do that."));
    let whole = json!({"choices": [{"message": {"content": null, "refusal": "No."}, "finish_reason": "stop"}]});
    assert_eq!(answer_text(&s.ask("refused at once", raw(&[&whole.to_string()])).await), "No.");
    let turn = s.ask("whole", raw(&[&text("All."), &finish("stop"), DONE])).await;
    assert_eq!(answer_text(&turn), "All.");

    let ends: Vec<Value> = s.stored("turn.completed").await.iter().map(|e| e["ended"].clone()).collect();
    let end = |ending: &str, reason: &str| json!({"ending": ending, "finishReason": reason});
    let expected = [
        end("cut", "length"),
        end("filtered", "content_filter"),
        end("refused", "stop"),
        end("refused", "stop"),
        end("whole", "stop"),
    ];
    assert_eq!(ends, expected);
    let reasons: Vec<Value> = s.stored("turn.failed").await.iter().map(|e| e["reason"].clone()).collect();
    assert_eq!(reasons, ["cut", "filtered", "filtered", "filtered"]);
    let report = s.report().await;
    for words in
        ["cut off</span> (length)", "stopped by a content filter</span> (content_filter)", "a refusal</span> (stop)"]
    {
        assert!(report.contains(words), "{words} is not in the report");
    }
    s.end().await;
}

#[tokio::test]
async fn a_call_of_a_cut_reply_is_never_made() {
    let stage = Stage::start().await;
    let tools = vec![Tool::answers("pay", "paid"), Tool::answers("wire", "sent").with("confirm", "true")];
    let provider = Provider::start(&stage.nats, tools).await;
    let mut s = scene_on(stage).await;
    let half = |name: &str, arguments: &str| {
        delta(json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": name, "arguments": arguments}}]}))
    };
    let cases = [
        ("whole by chance", half("pay", "{\"sum\":5}"), "length"),
        ("half", half("pay", "{\"sum\":5,\"to\":\"Ma"), "length"),
        ("one that would wait for a person", half("wire", "{\"sum\":5}"), "max_tokens"),
        ("filtered", half("pay", "{\"sum\":5}"), "content_filter"),
        ("broken at the provider", half("pay", "{\"sum\":5}"), "error"),
    ];
    for (id, call, reason) in &cases {
        let turn = s.ask(id, raw(&[&text("I pay. "), call, &finish(reason), DONE])).await;
        assert_eq!(kinds(&turn), ["stream_token", "stream_chunk", "stream_token", "eventual_response"], "{id}");
        assert!(tool_activity(&turn)[0].starts_with("error Not called: your reply was"), "{id}: {turn:#?}");
        let request = s.stage.gateway.requests().pop().unwrap();
        let messages = request["messages"].as_array().unwrap();
        let said = messages.last().unwrap()["content"].as_str().unwrap();
        assert!(said.starts_with("Error: Not called"), "{id}: the model is told: {said}");
    }
    assert_eq!(provider.calls().len(), 0);
    // The model is told so, calls again, and that call is made.
    s.stage.gateway.script(raw(&[&half("pay", "{\"sum\":5}"), &finish("length"), DONE]));
    let turn = s.ask("again", raw(&[&half("pay", "{\"sum\":6}"), &finish("tool_calls"), DONE])).await;
    assert_eq!(tool_activity(&turn)[1..], ["call pay", "result paid"]);
    assert_eq!((provider.calls().len(), &provider.calls()[0].arguments), (1, &json!({"sum": 6})));
    let replied = s.stored("turn.model_replied").await;
    assert_eq!(replied[0]["ended"], json!({"ending": "cut", "finishReason": "length"}));
    assert_eq!(s.stored("turn.tool_called").await.len(), 1, "only the call that is made has an intent");
    assert!(s.report().await.contains("cut off</span> (length)"));
    s.end().await;
}
