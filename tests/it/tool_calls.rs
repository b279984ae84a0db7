//! Tools over NATS: whatever a provider does, the model gets a result and the turn goes on.

use serde_json::{Value, json};

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    frames::{answer_text, code, kind, kinds, tool_activity},
    gateway::{Gate, Reply},
    processes::Process,
    tools::{Provider, Tool, offered},
};

struct Scene {
    stage: Stage,
    provider: Provider,
    edge: Edge,
    _worker: Process,
    client: Client,
    session: Session,
}

async fn scene(tools: Vec<Tool>) -> Scene {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, tools).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    Scene { stage, provider, edge, _worker, client, session }
}

pub fn calls(list: &[(&str, Value)]) -> Reply {
    Reply::tool_calls(list.iter().map(|(name, arguments)| (name.to_string(), arguments.to_string())).collect())
}

/// Returns the tool results in the last request to the model, in its order, with the ids of their calls.
pub fn results_for_the_model(stage: &Stage) -> Vec<String> {
    let request = stage.gateway.requests().pop().unwrap();
    let messages = request["messages"].as_array().unwrap();
    let asked: Vec<&Value> =
        messages.iter().filter_map(|m| m["tool_calls"].as_array()).flatten().map(|call| &call["id"]).collect();
    let results: Vec<&Value> = messages.iter().filter(|message| message["role"] == "tool").collect();
    let answered: Vec<&Value> = results.iter().map(|result| &result["tool_call_id"]).collect();
    assert_eq!(asked, answered, "every call has its result, in the model's order");
    results.iter().map(|result| result["content"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn tools_are_offered_as_they_are_declared_and_called_with_the_models_arguments() {
    let described = Tool::answers("look_up", r#"{"found":true}"#).with("description", "Looks things up.");
    let mut s = scene(vec![Tool::answers("a_tool", "a"), described]).await;
    s.stage.gateway.script(Reply::tool_call("look_up", json!({"id": "ü\"7\""})));
    let turn = s.client.ask(&s.session, "r1", "look it up").await;
    assert_eq!(kinds(&turn), ["stream_chunk", "stream_token", "eventual_response"]);
    assert_eq!(tool_activity(&turn), ["call look_up", r#"result {"found":true}"#]);
    assert_eq!(turn[0]["node"], "look_up");
    assert_eq!(s.provider.calls()[0].arguments, json!({"id": "ü\"7\""}));
    assert_eq!(results_for_the_model(&s.stage), [r#"{"found":true}"#]);
    let request = &s.stage.gateway.requests()[0];
    assert_eq!(offered(request), ["a_tool", "look_up"]);
    assert_eq!(request["tools"][1]["function"]["description"], "Looks things up.");
    assert_eq!(request["tools"][1]["function"]["parameters"]["type"], "object");
}

#[tokio::test]
async fn calls_of_one_reply_run_in_parallel_and_keep_the_models_order() {
    let (release, slow) = Tool::held("slow", "slow result");
    let mut s = scene(vec![slow, Tool::answers("fast", "fast result")]).await;
    s.stage.gateway.script(calls(&[("slow", json!({})), ("fast", json!({"id": "1"})), ("fast", json!({"id": "2"}))]));
    s.client.begin(&s.session, "r1", "do all").await;
    s.provider.wait_for_calls(3).await;
    let mut activity = Vec::new();
    while activity.len() < 5 {
        activity.extend(tool_activity(&s.client.turn_until("r1", "stream_chunk").await));
    }
    assert_eq!(activity[..3], ["call slow", "call fast", "call fast"]);
    assert_eq!(activity[3..], ["result fast result", "result fast result"]);
    release.send(true).unwrap();
    let rest = s.client.turn("r1").await;
    assert_eq!(tool_activity(&rest), ["result slow result"]);
    assert_eq!(results_for_the_model(&s.stage), ["slow result", "fast result", "fast result"]);
    let calls = s.provider.calls();
    let ids: std::collections::HashSet<&String> = calls.iter().map(|call| &call.id).collect();
    assert_eq!((calls.len(), ids.len()), (3, 3), "every call has an idempotency key of its own");
}

#[tokio::test]
async fn a_calls_failure_is_told_to_the_model() {
    let mut s = scene(vec![
        Tool::fails("refuses", 403, "not on a Sunday"),
        Tool::is_silent("mute_reader").with("timeout_ms", "300").with("idempotent", "true"),
        Tool::is_silent("mute_writer").with("timeout_ms", "300"),
        Tool::answers("fine", "fine"),
    ])
    .await;
    s.stage.gateway.script(Reply::tool_calls(
        [
            ("nonexistent", "{}"),
            ("refuses", "{}"),
            ("mute_reader", "{}"),
            ("mute_writer", "{}"),
            ("fine", "not json"),
            ("fine", "[1]"),
            ("fine", ""),
        ]
        .map(|(name, arguments)| (name.to_owned(), arguments.to_owned()))
        .to_vec(),
    ));
    let turn = s.client.ask(&s.session, "r1", "try everything").await;
    assert_eq!(answer_text(&turn), "ok");
    let results = results_for_the_model(&s.stage);
    let expected =
        ["no tool", "not on a Sunday", "in time", "outcome", "not a JSON object", "not a JSON object", "fine"];
    for (result, expected) in results.iter().zip(expected) {
        assert!(result.contains(expected), "{result} where {expected} was expected");
        assert_eq!(result.starts_with("Error"), expected != "fine", "{result}");
    }
    assert_eq!(results.len(), expected.len());
    let called = |name| s.provider.calls().iter().filter(|call| call.tool == name).count();
    assert_eq!((called("mute_writer"), called("mute_reader"), called("fine")), (1, 1, 1));
    let errors = tool_activity(&turn).iter().filter(|activity| activity.starts_with("error")).count();
    assert_eq!(errors, 6);
}

#[tokio::test]
async fn a_provider_lost_before_the_call_is_an_error_result() {
    let s = scene(vec![Tool::answers("fleeting", "never")]).await;
    let Scene { stage, provider, edge: _edge, _worker, mut client, session } = s;
    let gate = Gate::new();
    let call = [("fleeting".to_owned(), "{}".to_owned())].to_vec();
    stage.gateway.script(Reply::gated(vec!["I ask. ".into()], &gate).with_calls(call));
    client.begin(&session, "r1", "call it").await;
    stage.gateway.wait_for_requests(1).await;
    assert_eq!(stage.gateway.requests()[0]["tools"][0]["function"]["name"], "fleeting", "it was offered");
    provider.stop(&stage.nats).await;
    gate.open();
    let turn = client.turn("r1").await;
    assert_eq!(answer_text(&turn), "ok");
    assert!(results_for_the_model(&stage)[0].starts_with("Error"));
}

#[tokio::test]
async fn a_tool_is_offered_when_its_provider_starts_and_no_longer_after_its_end() {
    let stage = Stage::start().await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("newcomer", "hi")]).await;
    worker.line(|line| line.contains("tools of NATS services") && line.contains("newcomer")).await;
    client.ask(&session, "r2", "hello").await;
    provider.stop(&stage.nats).await;
    worker.line(|line| line.contains("tools of NATS services") && line.ends_with("tools=\"\"")).await;
    client.ask(&session, "r3", "hello").await;
    let requests = stage.gateway.requests();
    let offered: Vec<usize> = requests.iter().map(|request| offered(request).len()).collect();
    assert_eq!(offered, [0, 1, 0]);
}

#[tokio::test]
async fn a_rejected_tool_is_not_called_and_the_model_is_told() {
    let mut s = scene(vec![Tool::answers("delete_all", "gone").with("confirm", "true")]).await;
    s.stage.gateway.script(Reply::tool_call("delete_all", json!({})));
    s.stage.gateway.script(Reply::text("as you wish"));
    s.client.begin(&s.session, "r1", "delete it").await;
    s.client.turn_until("r1", "stream_chunk").await;
    let rejected = s.client.confirm(&s.session, false).await;
    assert_eq!(
        (rejected["message"].as_str(), rejected["data"]["approved"].as_bool()),
        (Some("Tool action rejected"), Some(false))
    );
    let rest = s.client.turn("r1").await;
    assert_eq!(answer_text(&rest), "as you wish");
    assert!(tool_activity(&rest)[0].starts_with("error"));
    assert!(results_for_the_model(&s.stage)[0].contains("rejected"));
    assert!(s.provider.calls().is_empty());
    assert_eq!(code(&s.client.confirm(&s.session, true).await), "NO_PENDING_CONFIRMATION");
}

/// Two gated calls and a free one: the free one runs first, then each gated one waits for its own approval.
#[tokio::test]
async fn gated_calls_park_one_after_the_other_and_a_double_click_approves_only_one() {
    let (release, pay) = Tool::held("pay", "paid");
    let mut s = scene(vec![
        pay.with("confirm", "true"),
        Tool::answers("ship", "shipped").with("confirm", "true"),
        Tool::answers("check", "checked"),
    ])
    .await;
    s.stage.gateway.script(calls(&[("pay", json!({})), ("check", json!({})), ("ship", json!({}))]));
    s.client.begin(&s.session, "r1", "pay and ship").await;
    let first = s.client.turn_until("r1", "write_confirmation_required").await;
    assert_eq!(tool_activity(&first), ["call check", "result checked"]);
    assert_eq!(first.last().unwrap()["data"]["data"]["toolId"], "pay");

    let confirm = json!({"action": "confirm_tool_action", "sessionId": s.session.id, "approved": true});
    for id in ["click-1", "click-2"] {
        let mut click = confirm.clone();
        click["requestId"] = id.into();
        s.client.send(&click).await;
    }
    assert_eq!(kind(&s.client.answer("click-1").await), "immediate_response");
    assert_eq!(code(&s.client.answer("click-2").await), "NO_PENDING_CONFIRMATION");
    release.send(true).unwrap();
    let second = s.client.turn_until("r1", "write_confirmation_required").await;
    assert_eq!(second.last().unwrap()["data"]["data"]["toolId"], "ship");
    assert_eq!(tool_activity(&second), ["call pay", "result paid"]);
    let called: Vec<&str> = s.provider.calls().iter().map(|call| call.tool).collect();
    assert_eq!(called, ["check", "pay"]);

    let mut other = Client::connect(&s.edge).await;
    assert_eq!(kind(&other.confirm(&s.session, true).await), "immediate_response");
    let rest = s.client.turn("r1").await;
    assert_eq!(tool_activity(&rest), ["call ship", "result shipped"]);
    assert_eq!(results_for_the_model(&s.stage), ["paid", "checked", "shipped"]);
    assert_eq!(s.provider.calls().len(), 3);
    assert_eq!(s.client.terminals("r1"), 1);
}

/// Approvals of one prompt from two edges at the same instant.
#[tokio::test]
async fn of_two_concurrent_decisions_exactly_one_counts() {
    let mut s = scene(vec![Tool::answers("pay", "paid").with("confirm", "true")]).await;
    let second_edge = s.stage.edge().await;
    let mut other = Client::connect(&second_edge).await;
    for round in 0..10 {
        s.stage.gateway.script(Reply::tool_call("pay", json!({})));
        let session = s.client.open_session().await;
        let id = format!("r{round}");
        s.client.begin(&session, &id, "pay").await;
        s.client.turn_until(&id, "stream_chunk").await;
        let calls_before = s.provider.calls().len();
        let (yes, no) = tokio::join!(s.client.confirm(&session, true), other.confirm(&session, false));
        let approved = match (kind(&yes), kind(&no)) {
            ("immediate_response", "error") => true,
            ("error", "immediate_response") => false,
            both => panic!("not exactly one counts: {both:?}"),
        };
        let refused = if approved { &no } else { &yes };
        assert_eq!(code(refused), "NO_PENDING_CONFIRMATION");
        let rest = s.client.turn(&id).await;
        assert_eq!(answer_text(&rest), "ok");
        assert_eq!(s.provider.calls().len() - calls_before, usize::from(approved));
    }
}

/// A worker dies between a call and its result: an idempotent tool runs again under the same idempotency key, any other one
/// is never repeated.
#[tokio::test]
async fn a_call_without_a_result_is_repeated_only_if_idempotent() {
    let stage = Stage::start().await;
    let (release, reader) = Tool::held("reader", "read");
    let reader = reader.with("idempotent", "true");
    let provider = Provider::start(&stage.nats, vec![reader, Tool::is_silent("writer")]).await;
    let (edge, mut first) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(calls(&[("reader", json!({})), ("writer", json!({}))]));
    client.begin(&session, "r1", "do both").await;
    provider.wait_for_calls(2).await;
    first.kill().await;
    release.send(true).unwrap();
    let _second = stage.worker().await;
    let turn = client.turn("r1").await;
    assert_eq!(answer_text(&turn), "ok");
    let results = results_for_the_model(&stage);
    assert_eq!(results[0], "read");
    assert!(results[1].contains("unknown"), "{}", results[1]);
    let ids = |tool| -> Vec<String> {
        provider.calls().into_iter().filter(|call| call.tool == tool).map(|call| call.id).collect()
    };
    let (reads, writes) = (ids("reader"), ids("writer"));
    assert_eq!((reads.len(), writes.len()), (2, 1));
    assert_eq!(reads[0], reads[1], "the same idempotency key");
    assert_eq!(client.terminals("r1"), 1);
}
