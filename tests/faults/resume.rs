//! A client that comes back sees the whole stream: nothing missing, nothing twice, from every cursor.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    WAIT_MAX,
    client::{Client, Speaks, cursor, message_action},
    frames::{answer_text, code, is_terminal, kind, kinds, streamed, tool_activity},
    gateway::{Gate, Reply},
    provider::{Provider, Tool},
    schema,
    stage::Stage,
};

const WORDS: &str = "one two three four five six";

fn tokens(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

async fn resuming(address: &str) -> Client {
    Client::connect(address, Speaks::Resume).await.unwrap()
}

/// Returns a client that has seen the first `count` tokens of `r1`, on a session of its own.
async fn begun(stage: &Stage, address: &str, gate: &Gate, count: usize) -> (Client, String, Vec<Value>) {
    stage.gateway.script(Reply::gated(tokens(WORDS), gate));
    let mut client = resuming(address).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "count").await;
    let mut seen = Vec::new();
    for _ in 0..count {
        gate.release(1);
        seen.extend(client.turn_until("r1", "stream_token").await);
    }
    (client, session, seen)
}

/// Waits until the LIVE stream has so many frames, then purges them.
async fn forget_frames(stage: &Stage, at_least: u64) {
    let context = jetstream::new(stage.nats.client().await);
    let mut live = context.get_stream("LIVE_local").await.unwrap();
    let captured = async { while live.info().await.unwrap().state.messages < at_least {} };
    timeout(WAIT_MAX, captured).await.expect("frames are captured in time");
    live.purge().await.unwrap();
}

/// Expects one terminal frame over all of the client's connections, whose text is the visible one.
fn expect_whole(before: &[Value], after: &[Value], answer: &str) {
    let all = [before, after].concat();
    assert_eq!(all.iter().filter(|frame| is_terminal(frame)).count(), 1, "{all:#?}");
    let since = all.iter().rposition(|frame| frame["node"] == "turn_restarted").unwrap_or(0);
    assert_eq!(streamed(&all[since..]), answer, "{all:#?}");
    assert_eq!(answer_text(&all), answer);
}

/// Expects that every sent frame has arrived, and that `r1` has this number of frames.
async fn expect_nothing_more(client: &mut Client, frames: usize) {
    client.ping().await;
    assert_eq!(client.frames_of("r1").len(), frames, "{:#?}", client.seen);
}

#[tokio::test]
async fn before_the_first_token() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let gate = Gate::new();
    let (client, session, before) = begun(&stage, &a.address, &gate, 0).await;
    stage.gateway.wait_for_open_streams(1).await;
    drop(client);

    let mut client = resuming(&b.address).await;
    let resumed = client.resume_session(&session, None).await.unwrap();
    assert_eq!(resumed["data"]["turn"]["requestId"], "r1");
    gate.open();
    expect_whole(&before, &client.turn("r1").await, WORDS);
    let frames = client.frames_of("r1").len();
    expect_nothing_more(&mut client, frames).await;
}

#[tokio::test]
async fn before_any_worker_claimed_the_turn() {
    let stage = Stage::start().await;
    let (a, b) = tokio::join!(stage.edge(), stage.edge());
    let gate = Gate::new();
    let (client, session, before) = begun(&stage, &a.address, &gate, 0).await;
    drop(client);

    let mut client = resuming(&b.address).await;
    let resumed = client.resume_session(&session, None).await.unwrap();
    assert_eq!(resumed["data"]["turn"], json!({"requestId": "r1", "state": "queued"}));
    let _worker = stage.worker().await;
    gate.open();
    expect_whole(&before, &client.turn("r1").await, WORDS);
}

/// The client had the 202 and nothing else of a turn that is over when the client comes back.
#[tokio::test]
async fn after_a_turn_with_only_its_acceptance_received() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    stage.gateway.script(Reply::tokens(tokens(WORDS)));
    let mut client = resuming(&edge.address).await;
    let session = client.open_session().await;
    let accepted = client.request(message_action(&session, "r1", "count")).await.unwrap();
    let seq = accepted["seq"].as_str().expect("the first frame of a turn has a cursor");
    drop(client);
    let mut other = resuming(&edge.address).await;
    other.resume_session(&session, None).await.unwrap();
    let _worker = stage.worker().await;
    other.turn("r1").await;

    for lost in [false, true] {
        if lost {
            forget_frames(&stage, 1).await;
        }
        let mut client = resuming(&edge.address).await;
        let resumed = client.resume_session(&session, Some(seq)).await.unwrap();
        assert_eq!(resumed["data"]["turn"], Value::Null);
        expect_whole(&[], &client.turn("r1").await, WORDS);
    }
}

#[tokio::test]
async fn in_the_middle_of_the_stream() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let gate = Gate::new();
    let (mut other, session, before) = begun(&stage, &a.address, &gate, 2).await;
    let seq = cursor(&before);
    // The client that stays sees the frames that the other one misses, so they are known to be published.
    for _ in 0..2 {
        gate.release(1);
        other.turn_until("r1", "stream_token").await;
    }

    for address in [&a.address, &b.address] {
        let mut client = resuming(address).await;
        let resumed = client.resume_session(&session, Some(&seq)).await.unwrap();
        assert_eq!(resumed["data"]["turn"], json!({"requestId": "r1", "state": "running"}));
        let missed = [client.turn_until("r1", "stream_token").await, client.turn_until("r1", "stream_token").await];
        assert_eq!(streamed(&missed.concat()), "three four ");
        // A second resume with the cursor of the frames seen meanwhile: nothing comes again.
        let seq = cursor(&client.frames_of("r1"));
        client.resume_session(&session, Some(&seq)).await.unwrap();
        expect_nothing_more(&mut client, 2).await;
        drop(client);
    }
    let mut client = resuming(&b.address).await;
    client.resume_session(&session, Some(&seq)).await.unwrap();
    gate.open();
    expect_whole(&before, &client.turn("r1").await, WORDS);
    other.turn("r1").await;
    expect_whole(&[], &other.frames_of("r1"), WORDS);
}

#[tokio::test]
async fn while_parked_the_prompt_is_shown_again() {
    let stage = Stage::start().await;
    let tool = Tool { name: "restart", metadata: &[("confirm", "true")], takes: Default::default() };
    let provider = Provider::start(&stage.nats.url(), vec![tool]).await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let asking = Reply::tool_call("restart", json!({"id": "db-1"})).with_text("Let me look first. ");
    stage.gateway.script(asking.delay_per_token(Duration::from_millis(20)));
    stage.gateway.script(Reply::text("it runs again"));
    let mut client = resuming(&a.address).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "restart it").await;
    let first = client.turn_until("r1", "stream_token").await;
    let rest = client.turn_until("r1", "stream_chunk").await;
    assert_eq!(kinds(&rest), ["stream_token", "write_confirmation_required", "stream_chunk"]);

    // One client left off before the prompt, one after it: both get the missed frames, and the prompt.
    let mut early = resuming(&b.address).await;
    let resumed = early.resume_session(&session, Some(&cursor(&first))).await.unwrap();
    assert_eq!(resumed["data"]["turn"], json!({"requestId": "r1", "state": "parked"}));
    let missed = early.turn_until("r1", "stream_chunk").await;
    assert_eq!(kinds(&missed), ["stream_token", "write_confirmation_required", "stream_chunk"]);
    assert_eq!(streamed(&first) + &streamed(&missed), "Let me look first. ");
    let mut late = resuming(&b.address).await;
    late.resume_session(&session, Some(&cursor(&rest))).await.unwrap();
    let again = late.turn_until("r1", "write_confirmation_required").await;
    assert_eq!(again[0]["data"], rest[rest.len() - 2]["data"]);

    late.confirm(&session, true).await.unwrap();
    for client in [&mut client, &mut early, &mut late] {
        let end = client.turn("r1").await;
        assert_eq!(tool_activity(&end)[0], "result done");
        assert_eq!((streamed(&end).as_str(), answer_text(&end)), ("it runs again", "it runs again"));
        let frames = client.frames_of("r1").len();
        expect_nothing_more(client, frames).await;
    }
    assert_eq!(provider.calls("restart").into_values().collect::<Vec<_>>(), [1]);

    // A client that left off at the prompt and comes back after the end.
    let mut away = resuming(&b.address).await;
    away.resume_session(&session, Some(&cursor(&rest))).await.unwrap();
    let end = away.turn("r1").await;
    assert_eq!(tool_activity(&end)[0], "result done");
    assert_eq!((streamed(&end).as_str(), answer_text(&end)), ("it runs again", "it runs again"));
}

#[tokio::test]
async fn after_the_end() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let gate = Gate::new();
    let (mut client, session, before) = begun(&stage, &a.address, &gate, 2).await;
    gate.open();
    let rest = client.turn("r1").await;
    drop(client);

    let mut client = resuming(&b.address).await;
    let resumed = client.resume_session(&session, Some(&cursor(&before))).await.unwrap();
    assert_eq!(resumed["data"]["turn"], Value::Null);
    expect_whole(&before, &client.turn("r1").await, WORDS);
    let frames = client.frames_of("r1").len();
    expect_nothing_more(&mut client, frames).await;

    let mut client = resuming(&b.address).await;
    client.resume_session(&session, Some(&cursor(&rest))).await.unwrap();
    expect_nothing_more(&mut client, 0).await;
}

/// The server looks at one subject of the stream of frames, whether the turn runs or has ended.
#[tokio::test]
async fn missed_frames_are_requested_by_their_exact_subject() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let nats = stage.nats.client().await;
    let mut asked = nats.subscribe("$JS.API.DIRECT.GET.LIVE_local").await.unwrap();
    for ends_first in [false, true] {
        let gate = Gate::new();
        let (mut client, session, before) = begun(&stage, &edge.address, &gate, 2).await;
        if ends_first {
            gate.open();
            client.turn("r1").await;
        }
        drop(client);
        let mut client = resuming(&edge.address).await;
        client.resume_session(&session, Some(&cursor(&before))).await.unwrap();
        gate.open();
        expect_whole(&before, &client.turn("r1").await, WORDS);
        let mut queries: Vec<Value> = Vec::new();
        let first = timeout(WAIT_MAX, asked.next()).await.expect("the stream is asked").unwrap();
        queries.push(serde_json::from_slice(&first.payload).unwrap());
        while let Some(Some(message)) = asked.next().now_or_never() {
            queries.push(serde_json::from_slice(&message.payload).unwrap());
        }
        let own = format!(".{session}");
        let is_exact = |query: &Value| query["next_by_subj"].as_str().is_some_and(|subject| subject.ends_with(&own));
        assert!(queries.iter().all(is_exact), "{queries:?}");
    }
}

#[tokio::test]
async fn without_live_frames_the_rest_comes_from_the_log() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let gate = Gate::new();
    let (mut other, session, before) = begun(&stage, &a.address, &gate, 2).await;
    let seq = cursor(&before);
    gate.release(1);
    other.turn_until("r1", "stream_token").await;
    forget_frames(&stage, 3).await;

    let mut running = resuming(&b.address).await;
    running.resume_session(&session, Some(&seq)).await.unwrap();
    let mut from_nothing = resuming(&b.address).await;
    from_nothing.resume_session(&session, None).await.unwrap();
    gate.open();
    expect_whole(&before, &running.turn("r1").await, WORDS);
    expect_whole(&[], &from_nothing.turn("r1").await, WORDS);
    other.turn("r1").await;
    forget_frames(&stage, 1).await;

    let mut late = resuming(&b.address).await;
    late.resume_session(&session, Some(&seq)).await.unwrap();
    expect_whole(&before, &late.turn("r1").await, WORDS);
}

/// The text that the client saw is void, although the marker that says so is lost too.
#[tokio::test]
async fn without_live_frames_a_second_run_is_shown_as_one() {
    let stage = Stage::start().await;
    let (a, b, mut worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let gate = Gate::new();
    let (client, session, before) = begun(&stage, &a.address, &gate, 2).await;
    drop(client);
    let second = Gate::new();
    stage.gateway.script(Reply::gated(tokens("an answer of another kind"), &second));
    worker.kill().await;
    let _worker = stage.worker().await;
    stage.gateway.wait_for_requests(2).await;
    second.release(1);
    forget_frames(&stage, 4).await;

    let mut running = resuming(&b.address).await;
    running.resume_session(&session, Some(&cursor(&before))).await.unwrap();
    second.open();
    expect_whole(&before, &running.turn("r1").await, "an answer of another kind");
    forget_frames(&stage, 1).await;
    let mut late = resuming(&b.address).await;
    late.resume_session(&session, Some(&cursor(&before))).await.unwrap();
    expect_whole(&before, &late.turn("r1").await, "an answer of another kind");
}

/// The model's text before a tool call belongs to the answer too, and a tool that was called is shown as called.
#[tokio::test]
async fn without_live_frames_every_model_call_and_tool_is_shown() {
    let stage = Stage::start().await;
    let tool = Tool { name: "look", metadata: &[], takes: Default::default() };
    let _provider = Provider::start(&stage.nats.url(), vec![tool]).await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let looking = Reply::tool_call("look", json!({})).with_text("Let me look first. ");
    stage.gateway.script(looking.delay_per_token(Duration::from_millis(20)));
    let gate = Gate::new();
    let mut client = {
        stage.gateway.script(Reply::gated(tokens(WORDS), &gate));
        resuming(&a.address).await
    };
    let session = client.open_session().await;
    client.begin(&session, "r1", "count").await;
    let before = client.turn_until("r1", "stream_token").await;
    gate.release(1);
    while tool_activity(&client.turn_until("r1", "stream_chunk").await) != ["result done"] {}
    client.turn_until("r1", "stream_token").await;
    forget_frames(&stage, 1).await;

    let mut running = resuming(&b.address).await;
    running.resume_session(&session, Some(&cursor(&before))).await.unwrap();
    gate.open();
    let expect_the_rest = |rest: &[Value]| {
        assert_eq!(streamed(&before) + &streamed(rest), format!("Let me look first. {WORDS}"), "{rest:#?}");
        assert_eq!(tool_activity(rest), ["call look", "result done"]);
        let order = kinds(rest);
        assert_eq!(order, ["stream_token", "stream_chunk", "stream_token", "eventual_response"], "{rest:#?}");
    };
    expect_the_rest(&running.turn("r1").await);
    client.turn("r1").await;
    forget_frames(&stage, 1).await;
    let mut late = resuming(&b.address).await;
    late.resume_session(&session, Some(&cursor(&before))).await.unwrap();
    expect_the_rest(&late.turn("r1").await);
}

/// The client has seen a tool's call and not its result; the person for whom the turn waits comes back.
#[tokio::test]
async fn without_live_frames_tool_activity_continues_where_it_stopped() {
    let stage = Stage::start().await;
    let look = Tool { name: "look", metadata: &[], takes: Default::default() };
    let pay = Tool { name: "pay", metadata: &[("confirm", "true")], takes: Default::default() };
    let _provider = Provider::start(&stage.nats.url(), vec![look, pay]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    stage.gateway.script(Reply::tool_call("look", json!({})));
    stage.gateway.script(Reply::tool_call("pay", json!({})));
    stage.gateway.script(Reply::text(WORDS));
    let mut client = resuming(&edge.address).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "pay").await;
    let before = client.turn_until("r1", "stream_chunk").await;
    assert_eq!(tool_activity(&before), ["call look"]);
    client.turn_until("r1", "write_confirmation_required").await;
    client.turn_until("r1", "stream_chunk").await;
    forget_frames(&stage, 4).await;

    let mut back = resuming(&edge.address).await;
    back.resume_session(&session, Some(&cursor(&before))).await.unwrap();
    let mut rest = back.turn_until("r1", "write_confirmation_required").await;
    assert_eq!(tool_activity(&rest), ["result done"]);
    rest.extend(back.turn_until("r1", "stream_chunk").await);
    let approved = back.confirm(&session, true).await.unwrap();
    assert_eq!(kind(&approved), "immediate_response");
    rest.extend(back.turn("r1").await);
    assert_eq!(tool_activity(&rest), ["result done", "call pay", "result done"]);
    expect_whole(&before, &rest, WORDS);
}

#[tokio::test]
async fn only_for_connections_that_requested_it() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge.address, Speaks::Standard).await.unwrap();
    let session = client.open_session().await;
    client.begin(&session, "r1", "hello").await;
    // The client refuses every frame with a `seq`.
    assert_eq!(answer_text(&client.turn("r1").await), "ok");
    let refused = client.resume_session(&session, None).await.unwrap();
    assert_eq!(code(&refused), "UNSUPPORTED_ACTION");

    let mut client = resuming(&edge.address).await;
    for seq in ["garbage", "", "1.2.3", "00000000000000000000000000000000.x.0.0.0.0.0"] {
        let refused = client.resume_session(&session, Some(seq)).await.unwrap();
        assert_eq!(code(&refused), "VALIDATION_ERROR", "{seq}");
    }
    let unknown = client.resume_session("00000000-0000-8000-8000-000000000000", None).await.unwrap();
    assert_eq!(code(&unknown), "SESSION_NOT_FOUND");
    let resumed = client.resume_session(&session, None).await.unwrap();
    assert_eq!((kind(&resumed), &resumed["data"]["turn"]), ("immediate_response", &Value::Null));
}

#[tokio::test]
async fn a_second_tab_sees_the_same() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge(), stage.edge(), stage.worker());
    let gate = Gate::new();
    let (mut first, session, _) = begun(&stage, &a.address, &gate, 1).await;
    let (mut same_edge, mut other_edge) = (resuming(&a.address).await, resuming(&b.address).await);
    for tab in [&mut same_edge, &mut other_edge] {
        tab.resume_session(&session, None).await.unwrap();
    }
    gate.open();
    for tab in [&mut first, &mut same_edge, &mut other_edge] {
        tab.turn("r1").await;
        expect_whole(&[], &tab.frames_of("r1"), WORDS);
    }
    // A turn that begins later is seen in every tab that watches the session.
    first.begin(&session, "r2", "and now?").await;
    for tab in [&mut first, &mut same_edge, &mut other_edge] {
        assert_eq!(answer_text(&tab.turn("r2").await), "ok");
    }
    schema::log(&stage.nats).await;
}
