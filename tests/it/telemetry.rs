//! Traces: spans of turns, from the log, at a real receiver of OTLP over HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use warp::Filter;

use crate::support::{
    Stage,
    client::Client,
    frames::{answer_text, kinds},
    gateway::{Gate, Reply},
    tools::{Provider, Tool},
};

/// A collector, which keeps all spans and refuses the first request.
struct Collector {
    url: String,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    async fn start() -> Self {
        let requests = Arc::<Mutex<Vec<Value>>>::default();
        let (kept, refused) = (requests.clone(), Arc::new(Mutex::new(false)));
        let route = warp::path!("v1" / "traces").and(warp::post()).and(warp::header::exact("x-tenant", "acme"));
        let route = route.and(warp::body::json()).map(move |body: Value| {
            if !std::mem::replace(&mut *refused.lock().unwrap(), true) {
                return warp::reply::with_status("busy", warp::http::StatusCode::SERVICE_UNAVAILABLE);
            }
            kept.lock().unwrap().push(body);
            warp::reply::with_status("{}", warp::http::StatusCode::OK)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(warp::serve(route).incoming(listener).run());
        Self { url, requests }
    }

    /// Returns the spans received so far, decoded strictly, and forgets them.
    fn spans(&self) -> Vec<Received> {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        let resources = requests.iter().flat_map(|request| request["resourceSpans"].as_array().unwrap());
        let scopes = resources.flat_map(|resource| {
            assert_eq!(text_of(&resource["resource"]["attributes"], "service.name").as_deref(), Some("turnstream"));
            resource["scopeSpans"].as_array().unwrap()
        });
        scopes.flat_map(|scope| scope["spans"].as_array().unwrap()).map(Received::decode).collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Received {
    trace: String,
    id: String,
    parent: Option<String>,
    name: String,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, Value>,
    is_error: bool,
}

impl Received {
    fn decode(span: &Value) -> Self {
        let hex = |field: &str, digits: usize| {
            let id = span[field].as_str().unwrap_or_else(|| panic!("{field}: {span}")).to_owned();
            assert!(id.len() == digits && id.bytes().all(|b| b.is_ascii_hexdigit()), "{field}: {id}");
            id
        };
        let time = |field: &str| span[field].as_str().unwrap().parse::<u64>().unwrap();
        let attributes = span["attributes"].as_array().unwrap().iter();
        let attributes = attributes.map(|attribute| {
            let value = attribute["value"].as_object().unwrap();
            assert_eq!(value.len(), 1, "{attribute}");
            let (kind, value) = value.iter().next().unwrap();
            let value =
                if kind == "intValue" { json!(value.as_str().unwrap().parse::<i64>().unwrap()) } else { value.clone() };
            (attribute["key"].as_str().unwrap().to_owned(), value)
        });
        let received = Self {
            trace: hex("traceId", 32),
            id: hex("spanId", 16),
            parent: span.get("parentSpanId").map(|_| hex("parentSpanId", 16)),
            name: span["name"].as_str().unwrap().to_owned(),
            start: time("startTimeUnixNano"),
            end: time("endTimeUnixNano"),
            attributes: attributes.collect(),
            is_error: span["status"]["code"] == 2,
        };
        assert!(received.start <= received.end && received.start > 0, "{received:?}");
        received
    }
}

fn text_of(attributes: &Value, key: &str) -> Option<String> {
    let found = attributes.as_array()?.iter().find(|attribute| attribute["key"] == key)?;
    found["value"]["stringValue"].as_str().map(str::to_owned)
}

async fn export(stage: &Stage, collector: &Collector, options: &[&str], more: &[(&str, &str)]) -> String {
    let arguments = [&["telemetry"], options].concat();
    let base = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme"),
        ("RUST_LOG", "error"),
    ];
    let mut process = stage.run("telemetry", &arguments, &[&base, more].concat());
    assert!(process.ended().await.success(), "{}", process.output());
    process.output()
}

/// A turn with a tool and an approval, one that a killed worker had begun, a failed one, and a cancelled one.
async fn talk(stage: &Stage) {
    let (edge, worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("restart", json!({"id": "db-secret"})).with_text("Let me see. "));
    stage.gateway.script(Reply::text("it runs again"));
    client.begin(&session, "r1", "restart the database").await;
    client.turn_until("r1", "write_confirmation_required").await;
    client.confirm(&session, true).await;
    client.turn("r1").await;
    let gate = Gate::new();
    stage.gateway.script(Reply::gated(vec!["one ".into(), "two".into()], &gate));
    stage.gateway.script(Reply::text("whole"));
    client.begin(&session, "r2", "count").await;
    gate.release(1);
    client.turn_until("r2", "stream_token").await;
    worker.signal(libc::SIGTERM);
    let _second = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r2").await), "whole");
    stage.gateway.script(Reply::status(400));
    client.ask(&session, "r3", "fail").await;
    stage.gateway.script(Reply::hang_after(vec!["one ".into()]));
    client.begin(&session, "r4", "wait").await;
    client.turn_until("r4", "stream_token").await;
    client.send(&json!({"action": "cancel", "sessionId": session.id})).await;
    assert_eq!(kinds(&client.turn("r4").await).last().copied(), Some("cancelled"));
}

#[tokio::test]
async fn turns_are_traces_and_exporting_again_gives_the_same() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    talk(&stage).await;
    let collector = Collector::start().await;
    let said = export(&stage, &collector, &["--since", "1"], &[]).await;
    assert!(said.contains("of 4 turns; 0 turns have not ended"), "{said}");
    let spans = collector.spans();
    export(&stage, &collector, &[], &[]).await;
    assert_eq!(collector.spans(), spans, "exported twice, the same");

    let ids: BTreeSet<_> = spans.iter().map(|span| (&span.trace, &span.id)).collect();
    assert_eq!(ids.len(), spans.len());
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 4, "a turn is a trace, whoever worked on it");
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_none()).collect();
    assert_eq!(roots.len(), 4);
    for span in &spans {
        let root = roots.iter().find(|root| root.trace == span.trace).unwrap();
        assert!(span.parent.as_ref().is_none_or(|parent| *parent == root.id), "{span:?}");
    }
    let errors: Vec<_> = roots.iter().map(|root| root.attributes.get("error.type").cloned()).collect();
    assert_eq!(errors, [None, None, Some(json!("model")), Some(json!("cancelled"))]);
    let named =
        |name: &str| spans.iter().filter(|span| span.trace == roots[0].trace && span.name.starts_with(name)).count();
    assert_eq!(
        [named("invoke_agent "), named("chat"), named("execute_tool restart"), named("wait approval")],
        [1, 2, 1, 1]
    );
    expect_the_log(&stage, &spans).await;
    let all = format!("{spans:?}");
    assert!(!all.contains("db-secret") && !all.contains("it runs again"), "text is exported only where configured");
    let capture = [("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")];
    export(&stage, &collector, &[], &capture).await;
    let with_text = collector.spans();
    let same = |spans: &[Received]| spans.iter().map(|span| span.id.clone()).collect::<Vec<_>>();
    assert_eq!(same(&with_text), same(&spans));
    let all = format!("{with_text:?}");
    assert!(all.contains("db-secret") && all.contains("it runs again") && all.contains("restart the database"));
}

/// Checks that each span names an event that is in the log, and tells the same tokens.
async fn expect_the_log(stage: &Stage, spans: &[Received]) {
    let mut replay = stage.run("replay", &["replay", "--since", "1", "--format", "ndjson"], &[("RUST_LOG", "error")]);
    assert!(replay.ended().await.success());
    let events: Vec<Value> = replay.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut tokens = 0;
    for span in spans {
        let seq = &span.attributes["turnstream.event.seq"];
        let event = events.iter().find(|event| event["seq"] == *seq).unwrap_or_else(|| panic!("no event {seq}"));
        let name = span.attributes["turnstream.event.name"].as_str().unwrap();
        assert!(event["subject"].as_str().unwrap().contains(name), "{name}: {event}");
        // The next event of the chain names the digest of this one.
        let prev = seq.to_string();
        let next = events.iter().find(|next| next["headers"]["ce-prev"] == prev.as_str());
        if let Some(next) = next {
            assert_eq!(next["headers"]["ce-prevdigest"], span.attributes["turnstream.event.digest"]);
        }
        let is_inference = span.attributes.get("gen_ai.operation.name") == Some(&json!("chat"));
        if is_inference && !span.attributes.contains_key("error.type") {
            assert!(span.attributes["gen_ai.response.time_to_first_chunk"].as_f64().is_some(), "{span:?}");
            tokens += span.attributes["gen_ai.usage.output_tokens"].as_i64().unwrap();
        }
    }
    let completed = events.iter().filter(|event| event["subject"].as_str().unwrap().ends_with("turn.completed"));
    let logged: i64 = completed.map(|event| event["payload"]["usage"]["completionTokens"].as_i64().unwrap()).sum();
    assert_eq!(tokens, logged);
}
