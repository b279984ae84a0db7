//! Metrics: every one that the page lists is there after a run of everything, and equals the log.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_parse::{Sample, Scrape, Value as Metric};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::support::{
    Edge, Stage, WAIT_MAX,
    client::{Client, Session},
    frames::{answer_text, code, kind},
    gateway::{Gate, Reply},
    http,
    processes::Process,
    tools::{Provider, Tool},
};

const OPERATIONS: (&str, &str) = ("SMOOTH_AGENT_OPERATIONS", "127.0.0.1:0");

/// A process's operations address.
async fn operations(process: &mut Process) -> String {
    process.line_after("operations on http://").await
}

/// Returns the metrics of a process, by name.
async fn scrape(address: &str) -> Vec<Sample> {
    let response = http::get(&format!("http://{address}/metrics")).await;
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(media_type.starts_with("application/openmetrics-text"), "{media_type}");
    let text = response.text().await.unwrap();
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap().samples
}

/// Adds up the samples of a name with these labels.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(*value))
    };
    samples.iter().filter(fits).map(number).sum()
}

fn number(sample: &Sample) -> f64 {
    match &sample.value {
        Metric::Counter(n) | Metric::Gauge(n) | Metric::Untyped(n) => *n,
        Metric::Histogram(_) | Metric::Summary(_) => 0.0,
    }
}

/// Returns the names of `spec/metrics.md`, histograms by their count.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../spec/metrics.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let (name, kind) = (cells.next()?.trim_end_matches('`'), cells.next()?);
        Some(if kind.starts_with("histogram") { format!("{name}_count") } else { name.to_owned() })
    });
    rows.collect()
}

/// Everything that leaves a trace in the metrics: turns of each outcome, tools, waits, retries, refusals.
async fn run_everything(stage: &Stage, edge: &Edge) -> (Client, Session) {
    let mut client = Client::connect(edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("look_up", json!({})).with_text("Let me see. "));
    stage.gateway.script(Reply::text("found it"));
    assert_eq!(answer_text(&client.ask(&session, "r1", "look it up").await), "found it");
    stage.gateway.script(Reply::tool_call("break", json!({})));
    stage.gateway.script(Reply::text("it broke"));
    client.ask(&session, "r2", "break it").await;
    stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-1"})));
    stage.gateway.script(Reply::text("done"));
    client.begin(&session, "r3", "restart").await;
    client.turn_until("r3", "write_confirmation_required").await;
    client.confirm(&session, true).await;
    client.turn("r3").await;
    stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-2"})));
    stage.gateway.script(Reply::text("not done"));
    client.ask(&session, "r4", "restart the other").await;
    stage.gateway.script(Reply::status(503));
    stage.gateway.script(Reply::json(&priced()));
    client.ask(&session, "r5", "try").await;
    stage.gateway.script(Reply::status(400));
    let failed = client.ask(&session, "r6", "fail").await;
    assert_eq!(failed.last().map(code), Some("AGENT_ERROR"), "{failed:?}");
    let gate = Gate::new();
    stage.gateway.script(Reply::gated(vec!["one ".into(), "two".into()], &gate));
    client.begin(&session, "r7", "count").await;
    gate.release(1);
    client.turn_until("r7", "stream_token").await;
    client.send(&json!({"action": "cancel", "sessionId": session.id, "requestId": "c"})).await;
    let cancelled = client.turn("r7").await;
    assert_eq!(cancelled.last().map(kind), Some("cancelled"));
    client.send(&json!({"action": "dance", "requestId": "d"})).await;
    client.answer("d").await;
    assert_eq!(http::send(edge, "GET", "/ws", &[], None).await.status(), 426);
    let mut other = Client::connect(edge).await;
    other.ping().await;
    drop(other);
    (client, session)
}

/// An answer of a gateway that reports a cost, and parts of the tokens.
fn priced() -> Value {
    let usage = json!({
        "prompt_tokens": 12, "completion_tokens": 5, "cost": 0.25,
        "prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 3}
    });
    let message = json!({"role": "assistant", "content": "at last"});
    json!({"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
}

/// Returns the log's events: their names and payloads.
async fn events(stage: &Stage) -> Vec<(String, Value)> {
    let mut replay =
        stage.run("replay", &["replay", "--since", "1", "--format", "cloudevents"], &[("RUST_LOG", "error")]);
    assert!(replay.ended().await.success(), "{}", replay.output());
    let lines = replay.output();
    let parsed = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let named = parsed.map(|event| {
        let name = event["type"].as_str().unwrap().strip_prefix("turnstream.").unwrap().to_owned();
        (name, event["data"].clone())
    });
    named.collect()
}

/// Scrapes until a condition holds: gauges are read from NATS now and then.
async fn until(addresses: &[&str], holds: impl Fn(&[Sample]) -> bool) -> Vec<Sample> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let mut all = Vec::new();
        for address in addresses {
            all.extend(scrape(address).await);
        }
        if holds(&all) || Instant::now() > deadline {
            return all;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn every_metric_is_there_and_equals_the_log() {
    let stage = Stage::start().await;
    let tools = vec![
        Tool::answers("look_up", "42"),
        Tool::fails("break", 500, "broken"),
        Tool::answers("restart", "done").with("confirm", "true"),
    ];
    let _provider = Provider::start(&stage.nats, tools).await;
    let worker = [OPERATIONS, ("SMOOTH_AGENT_HUMAN_WAIT_SECS", "2"), ("SMOOTH_AGENT_METRICS_ORGS", "5")];
    let edge = [OPERATIONS, ("SMOOTH_AGENT_METRICS_ORGS", "5")];
    let (mut edge, mut worker) = tokio::join!(stage.edge_with(&edge), stage.worker_with(&worker));
    let addresses = [operations(&mut edge.process).await, operations(&mut worker).await];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let (_client, _session) = run_everything(&stage, &edge).await;
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/ed25519.pem");
    let mut signed = stage.run("sign", &["audit", "checkpoint", "--once"], &[("SMOOTH_AGENT_AUDIT_KEY_FILE", key)]);
    assert!(signed.ended().await.success(), "{}", signed.output());

    // A histogram's own name has its buckets; its sum and count are series beside it.
    let is_sum = |sample: &&Sample| sample.metric.ends_with("_seconds_sum");
    let names = |samples: &[Sample]| samples.iter().filter(|s| !is_sum(s)).map(name_of).collect::<BTreeSet<_>>();
    let documented = documented();
    let optional = BTreeSet::from(["turnstream_stream_max_bytes".to_owned()]);
    let samples = until(&addresses, |samples| {
        documented.difference(&names(samples)).all(|missing| optional.contains(missing))
            && sum(samples, "turnstream_index_lag", &[]) == 0.0
    })
    .await;
    let found = names(&samples);
    let missing: Vec<_> = documented.difference(&found).filter(|name| !optional.contains(*name)).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
    let unknown: Vec<_> = found.difference(&documented).collect();
    assert!(unknown.is_empty(), "not in spec/metrics.md: {unknown:?}");
    expect_the_log(&samples, &events(&stage).await);
    expect_the_run(&samples);
}

/// Returns a sample's name as the page has it.
fn name_of(sample: &Sample) -> String {
    match sample.value {
        Metric::Histogram(_) => format!("{}_count", sample.metric),
        _ => sample.metric.clone(),
    }
}

fn expect_the_log(samples: &[Sample], events: &[(String, Value)]) {
    let mut by_name: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, _) in events {
        *by_name.entry(name).or_default() += 1.0;
    }
    for (name, count) in &by_name {
        assert_eq!(sum(samples, "turnstream_appends_total", &[("event", name)]), *count, "{name}");
    }
    let all: f64 = by_name.values().sum();
    assert_eq!(sum(samples, "turnstream_appends_total", &[]), all);
    for (outcome, event) in
        [("completed", "turn.completed"), ("failed", "turn.failed"), ("cancelled", "turn.cancelled")]
    {
        assert_eq!(sum(samples, "turnstream_turns_total", &[("outcome", outcome)]), by_name[event], "{outcome}");
    }
    let of = |wanted: &str| events.iter().filter(|(name, _)| name == wanted).map(|(_, data)| data).collect::<Vec<_>>();
    let tokens = |data: &Value, field: &str| data["usage"][field].as_f64().unwrap_or_default();
    let fields = [
        ("input", "promptTokens"),
        ("output", "completionTokens"),
        ("cached", "cachedTokens"),
        ("reasoning", "reasoningTokens"),
    ];
    for (direction, field) in fields {
        let completed: f64 = of("turn.completed").into_iter().map(|data| tokens(data, field)).sum();
        assert!(completed > 0.0);
        let labels = [("direction", direction), ("organisation", "reference-org")];
        assert_eq!(sum(samples, "turnstream_tokens_total", &labels), completed, "{direction}");
    }
    let cost: f64 = of("turn.completed").into_iter().map(|data| tokens(data, "costUsd")).sum();
    assert!((sum(samples, "turnstream_cost_usd_total", &[]) - cost).abs() < 1e-9);
    let errors = of("turn.tool_returned").into_iter().filter(|data| data["isError"] == true).count() as f64;
    assert_eq!(sum(samples, "turnstream_tool_calls_total", &[("outcome", "error")]), errors);
    let timed = of("turn.completed").into_iter().filter(|data| data["timing"]["firstTokenMs"].is_u64()).count();
    assert_eq!(timed, by_name["turn.completed"] as usize, "every answer has the time of its first token");
}

fn expect_the_run(samples: &[Sample]) {
    for (name, labels, expected) in [
        ("turnstream_turns_total", vec![("outcome", "completed"), ("pool", "default")], 5.0),
        ("turnstream_turns_total", vec![("outcome", "failed"), ("code", "model")], 1.0),
        ("turnstream_turns_total", vec![("outcome", "cancelled"), ("code", "user")], 1.0),
        ("turnstream_turns_requested_total", vec![], 7.0),
        ("turnstream_waits_total", vec![("kind", "approval")], 2.0),
        ("turnstream_waits_ended_total", vec![("resolution", "approved")], 1.0),
        ("turnstream_waits_ended_total", vec![("resolution", "expired")], 1.0),
        ("turnstream_tool_calls_total", vec![("tool", "look_up"), ("outcome", "ok")], 1.0),
        ("turnstream_gateway_requests_total", vec![("status", "503")], 1.0),
        ("turnstream_gateway_requests_total", vec![("status", "400")], 1.0),
        ("turnstream_gateway_retries_total", vec![], 1.0),
        ("turnstream_errors_total", vec![("code", "UNSUPPORTED_ACTION")], 1.0),
        ("turnstream_handshakes_refused_total", vec![("status", "426")], 1.0),
        ("turnstream_connections", vec![], 1.0),
        ("turnstream_connections_opened_total", vec![], 2.0),
        ("turnstream_connections_closed_total", vec![("reason", "client")], 1.0),
        ("turnstream_turns_running", vec![], 0.0),
        ("turnstream_storage_writable", vec![], 2.0),
        ("turnstream_ready", vec![], 2.0),
        ("turnstream_nats_violations_total", vec![], 0.0),
    ] {
        assert_eq!(sum(samples, name, &labels), expected, "{name} {labels:?}");
    }
}

#[tokio::test]
async fn a_command_that_repeats_has_an_operations_address() {
    let stage = Stage::start().await;
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/ed25519.pem");
    let arguments = ["audit", "checkpoint", "--every", "1h", "--operations", "127.0.0.1:0"];
    let mut signer = stage.run("audit", &arguments, &[("SMOOTH_AGENT_AUDIT_KEY_FILE", key)]);
    let address = operations(&mut signer).await;
    let samples = scrape(&address).await;
    assert_eq!(sum(&samples, "turnstream_build_info", &[("role", "signer"), ("region", "local")]), 1.0);
    let ready = http::get(&format!("http://{address}/ready")).await;
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().as_str()), (200, "ready"));
}

#[tokio::test]
async fn a_turn_is_one_line_in_the_log() {
    let stage = Stage::start().await;
    let (edge, mut worker) =
        tokio::join!(stage.edge(), stage.worker_with(&[("SMOOTH_AGENT_LOG", "json"), ("NO_COLOR", "")]));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    assert_eq!(answer_text(&client.ask(&session, "r1", "hello").await), "ok");
    let line = worker.line(|line| line.contains("a turn ended")).await;
    let said: Value = serde_json::from_str(&line).unwrap();
    for (field, expected) in [
        ("level", json!("INFO")),
        ("org", json!("reference-org")),
        ("conversation", json!(session.conversation)),
        ("request_id", json!("r1")),
        ("pool", json!("default")),
        ("outcome", json!("completed")),
        ("model_calls", json!(1)),
        ("tool_calls", json!(0)),
    ] {
        assert_eq!(said[field], expected, "{field}: {line}");
    }
    assert!(!line.contains(&session.id), "who knows a session's id may write in the conversation: {line}");
    let ended = events(&stage).await.into_iter().find(|(name, _)| name == "turn.completed").unwrap().1;
    assert_eq!(said["turn"], ended["turn"]);
    assert_eq!(said["input_tokens"], ended["usage"]["promptTokens"]);
    assert!(said["duration_ms"].is_u64() && said["first_token_ms"].is_u64(), "{line}");
    let output = worker.output();
    assert!(!output.contains('\u{1b}'), "a file gets no colours");
    let unreadable: Vec<_> = output
        .lines()
        .filter(|line| !line.starts_with("working") && serde_json::from_str::<Value>(line).is_err())
        .collect();
    assert!(unreadable.is_empty(), "{unreadable:?}");
}
