//! A model that refuses, hangs, breaks off or answers nonsense: one `error` frame, a free slot, no word of the gateway's.

use serde_json::json;

use crate::support::{
    Stage,
    client::Client,
    frames::{answer_text, code, kind, kinds, streamed},
    gateway::Reply,
};

fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// Returns the faults, with the gateway's replies to each request that it gets.
fn faults() -> Vec<(&'static str, Vec<Reply>)> {
    let status = |code, times| vec![Reply::status(code); times];
    vec![
        ("401", status(401, 1)),
        ("400", status(400, 1)),
        ("429 again and again", status(429, 4)),
        ("500 again and again", status(500, 4)),
        ("503 again and again", status(503, 4)),
        ("no answer", vec![Reply::hang()]),
        ("silence in mid-stream", vec![Reply::hang_after(words("half an"))]),
        ("silence before the first token", vec![Reply::hang_after(Vec::new())]),
        ("a cut in mid-stream", vec![Reply::cut_after(words("half an"))]),
        ("a cut before the first token", vec![Reply::cut_after(Vec::new())]),
        ("a web page", vec![Reply::garbage()]),
        ("an error with status 200", vec![Reply::json_error_200()]),
        ("an empty answer", vec![Reply::tokens(Vec::new())]),
        ("a blank answer", vec![Reply::text(" \n ")]),
    ]
}

#[tokio::test]
async fn a_failed_model_call_ends_the_turn_with_one_error() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&[("SMOOTH_AGENT_MODEL_SILENCE_SECS", "1")]));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let mut requests = 0;
    for (fault, replies) in faults() {
        requests += replies.len();
        replies.into_iter().for_each(|reply| stage.gateway.script(reply));
        let failed = client.ask(&session, fault, fault).await;
        assert_eq!(code(failed.last().unwrap()), "AGENT_ERROR", "{fault}");
        let before = kinds(&failed[..failed.len() - 1]);
        assert!(before.iter().all(|kind| *kind == "stream_token"), "{fault}: {before:?}");
        assert_eq!(stage.gateway.requests().len(), requests, "{fault}");

        let next = client.ask(&session, &format!("after {fault}"), "and now?").await;
        requests += 1;
        assert_eq!(answer_text(&next), "ok", "after {fault}");
        assert_eq!(client.terminals(fault), 1, "{fault}");
    }
    stage.gateway.wait_for_open_streams(0).await;
    for frame in &client.seen {
        assert!(!frame.to_string().contains("gateway-internal"), "{frame:#}");
    }
    let last_prompt = stage.gateway.requests().pop().unwrap()["messages"].to_string();
    assert!(!last_prompt.contains("half an"), "a failed turn's text is not part of the conversation");
}

#[tokio::test]
async fn a_model_that_recovers_is_asked_again() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    for (n, refusals) in [vec![429], vec![500, 503, 520]].into_iter().enumerate() {
        let asked = stage.gateway.requests().len();
        let tries = refusals.len() + 1;
        refusals.into_iter().for_each(|status| stage.gateway.script(Reply::status(status)));
        stage.gateway.script(Reply::text("here I am"));
        let turn = client.ask(&session, &format!("r{n}"), "hello").await;
        assert_eq!(kinds(&turn), ["stream_token", "eventual_response"]);
        assert_eq!(streamed(&turn), "here I am");
        assert_eq!(stage.gateway.requests().len() - asked, tries);
    }
}

#[tokio::test]
async fn an_unreachable_gateway_ends_the_turn() {
    let stage = Stage::start().await;
    let nowhere = [("SMOOAI_GATEWAY_URL", "http://127.0.0.1:9/v1")];
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&nowhere));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let failed = client.ask(&session, "r1", "hello").await;
    assert_eq!((failed.len(), code(&failed[0])), (1, "AGENT_ERROR"));
    assert!(!failed[0].to_string().contains("127.0.0.1"));
}

/// A model that only ever wants tools is cut off at the cap, and the visitor gets an honest answer.
#[tokio::test]
async fn at_the_iteration_cap_the_turn_ends_with_an_answer() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&[("SMOOTH_AGENT_MAX_ITERATIONS", "3")]));
    stage.gateway.respond_with(|_| Some(Reply::tool_call("nothing", json!({})).with_text("Trying. ")));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let turn = client.ask(&session, "r1", "go on for ever").await;
    assert_eq!(kind(turn.last().unwrap()), "eventual_response");
    assert!(answer_text(&turn).starts_with("Trying."), "{}", answer_text(&turn));
    assert!(answer_text(&turn).contains("stopped"));
    assert_eq!(stage.gateway.requests().len(), 3);
}

/// The answer stays where it and its frames don't fit into one event.
#[tokio::test]
async fn an_answer_without_room_for_its_frames_is_kept_without_them() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    // JSON escapes every quotation mark, which doubles the text.
    let tokens = vec!["\"".repeat(1_024); 240];
    stage.gateway.script(Reply::tokens(tokens.clone()).with_reasoning(&"because ".repeat(7_000)));
    let turn = client.ask(&session, "r1", "quote").await;
    assert_eq!(answer_text(&turn), tokens.concat());
    let mut replay = stage.run("replay", &["replay", &session.conversation, "--format", "frames"], &[]);
    assert!(replay.ended().await.success());
    let output = replay.output();
    assert!(output.contains("1 model calls may have been shown differently"));
    let frames = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<serde_json::Value>>();
    assert_eq!(kinds(&frames), ["immediate_response", "stream_token", "eventual_response"]);
    assert_eq!(streamed(&frames), tokens.concat());
    assert_eq!(answer_text(&client.ask(&session, "r2", "and now?").await), "ok");
}
