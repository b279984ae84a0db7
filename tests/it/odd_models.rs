//! Models with odd streams, odd endings and odd refusals: each line of the table in `spec/guide/providers.md` that a conversation
//! shows. The gateway refuses every request that breaks the rules of the big providers.

use serde_json::{Value, json};

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    frames::{answer_text, code, kinds, streamed, tool_activity},
    gateway::{Gate, Reply},
    processes::Process,
    schema,
    tools::{Provider, Tool},
};

pub struct Scene {
    pub stage: Stage,
    edge: Edge,
    worker: Process,
    pub client: Client,
    pub session: Session,
}

pub async fn scene() -> Scene {
    scene_on(Stage::start().await).await
}

pub async fn scene_on(stage: Stage) -> Scene {
    let (edge, worker) = tokio::join!(stage.edge(), stage.worker_with(&[("SMOOTH_AGENT_MODEL_SILENCE_SECS", "2")]));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    Scene { stage, edge, worker, client, session }
}

impl Scene {
    /// Runs a turn answered with this reply, then with `ok`.
    pub async fn ask(&mut self, id: &str, reply: Reply) -> Vec<Value> {
        self.stage.gateway.script(reply);
        self.client.ask(&self.session, id, id).await
    }

    /// Returns the payloads of the conversation's events of a type.
    pub async fn stored(&self, kind: &str) -> Vec<Value> {
        let arguments = ["replay", &self.session.conversation, "--format", "cloudevents"];
        let mut replay = self.stage.run("replay", &arguments, &[("RUST_LOG", "error")]);
        assert!(replay.ended().await.success(), "{}", replay.output());
        let all = replay.output();
        let events = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .filter(|event| event["type"] == format!("turnstream.{kind}"))
            .map(|event| event["data"].clone())
            .collect()
    }

    /// Returns the conversation's report, as HTML.
    pub async fn report(&self) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let arguments = ["audit", "report", &self.session.conversation, "--out", path];
        let mut report = self.stage.run("audit", &arguments, &[]);
        assert!(report.ended().await.success(), "{}", report.output());
        std::fs::read_to_string(path).unwrap()
    }

    /// Checks that none of the gateway's own words reached the client, and that no request was refused.
    pub async fn end(self) {
        for frame in &self.client.seen {
            assert!(!frame.to_string().contains("gateway-internal"), "{frame:#}");
        }
        assert_eq!(self.stage.gateway.refusals(), Vec::<String>::new());
        schema::log(&self.stage.nats).await;
        drop((self.edge, self.worker));
    }
}

pub fn event(chunk: Value) -> String {
    format!("data: {chunk}\n\n")
}

pub fn delta(delta: Value) -> String {
    event(json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
}

pub fn finish(reason: &str) -> String {
    event(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

pub fn text(text: &str) -> String {
    delta(json!({ "content": text }))
}

pub fn call(name: &str, arguments: Value) -> String {
    delta(json!({"tool_calls": [{"index": 0, "id": format!("call-of-{name}"), "type": "function",
        "function": {"name": name, "arguments": arguments.to_string()}}]}))
}

pub const DONE: &str = "data: [DONE]\n\n";

/// Returns a streamed reply of these events, in one piece.
pub fn raw(events: &[&str]) -> Reply {
    Reply::bytes(&events.concat(), 1 << 20)
}

/// Streams of one answer, `Hello`, in odd forms.
fn oddities() -> Vec<(&'static str, String)> {
    let hello = || [text("Hel"), text("lo")].concat();
    let stop = finish("stop");
    let whole = json!({"id": "c", "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]});
    let parts =
        json!({"content": [{"type": "text", "text": "Hel"}, {"type": "image_url", "image_url": {}}, {"text": "lo"}]});
    let counting = |n: u32, part: &str| event(json!({"choices": [{"index": n, "delta": {"content": part}}]}));
    let nulls = json!({"id": null, "model": null, "usage": null, "error": null, "choices": [{"index": null, "logprobs": null,
        "finish_reason": null, "delta": {"role": null, "content": "lo", "tool_calls": null, "refusal": null, "audio": null}}]});
    vec![
        ("a byte order mark", format!("\u{feff}{}{stop}{DONE}", hello())),
        ("CR alone", [&hello(), &stop, DONE].concat().replace('\n', "\r")),
        ("CRLF", [&hello(), &stop, DONE].concat().replace('\n', "\r\n")),
        ("content as parts", [&delta(parts), &stop, DONE].concat()),
        (
            "a choice index that counts up",
            [counting(0, "Hel"), counting(1, "lo"), counting(2, ""), stop.clone()].concat(),
        ),
        (
            "numeric ids",
            event(
                json!({"id": 7, "created": "x", "choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}),
            ),
        ),
        (
            "null everywhere",
            [
                text("Hel"),
                event(nulls),
                event(json!({"choices": null})),
                event(json!({"choices": [null]})),
                stop.clone(),
            ]
            .concat(),
        ),
        (
            "comments in data",
            [
                &text("Hel"),
                "data: : processing\n\n",
                ": keep-alive\n\n",
                "data:\n\n",
                "data: ping\n\n",
                &text("lo"),
                &stop,
                DONE,
            ]
            .concat(),
        ),
        (
            "unknown events",
            [&text("Hel"), "event: ping\ndata: {\"type\":\"ping\"}\n\n", "event: x\ndata: <y>\n\n", &text("lo"), &stop]
                .concat(),
        ),
        ("no blank lines between", [&text("Hel"), &text("lo"), &stop, DONE].concat().replace("\n\n", "\n") + "\n"),
        ("a completion that is not streamed", whole.to_string()),
        (
            "an empty error",
            [&text("Hel"), &event(json!({"error": {}, "choices": [{"delta": {"content": "lo"}}]})), &stop, DONE]
                .concat(),
        ),
        ("no end marker", [hello(), stop.clone()].concat()),
        (
            "an error after the end",
            [&hello(), &stop, &event(json!({"error": {"message": "gateway-internal"}})), DONE].concat(),
        ),
        ("rubbish after the end", [&hello(), &stop, "data: {\"choices\":[{\"del\n\n"].concat()),
    ]
}

#[tokio::test]
async fn odd_chunks_remove_nothing_from_an_answer() {
    let mut s = scene().await;
    for (odd, stream) in &oddities() {
        for piece in [1, 7, 1 << 20] {
            let turn = s.ask(&format!("{odd} in pieces of {piece}"), Reply::bytes(stream, piece)).await;
            assert_eq!(kinds(&turn), ["stream_token", "eventual_response"], "{odd}: {turn:#?}");
            assert_eq!((streamed(&turn).as_str(), answer_text(&turn)), ("Hello", "Hello"), "{odd}");
        }
    }
    let turn = s.ask("a break after the end", raw(&[&text("Hello"), &finish("stop")]).breaks()).await;
    assert_eq!(answer_text(&turn), "Hello");
    s.end().await;
}

#[tokio::test]
async fn odd_calls_are_made_as_intended() {
    let arguments = json!({"id": "7"});
    let part = |call: Value| delta(json!({ "tool_calls": call }));
    let fragment = |index: Value, id: Value, name: &str, arguments: Value| json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}});
    let text = arguments.to_string();
    let end = finish("tool_calls");
    let (a, b) = (fragment(json!(0), Value::Null, "a", json!(text)), fragment(json!(0), Value::Null, "b", json!(text)));
    let oddities: Vec<(&str, Vec<&str>, String)> = vec![
        (
            "arguments as an object",
            vec!["a"],
            part(json!([fragment(json!(0), json!("x"), "a", arguments.clone())])) + &end,
        ),
        ("numeric ids and indexes", vec!["a"], part(json!([fragment(json!("0"), json!(7), "a", json!(text))])) + &end),
        ("two calls under one index without ids", vec!["a", "b"], part(json!([a])) + &part(json!([b])) + &end),
        ("a call sent twice", vec!["a"], [part(json!([a])), part(json!([a])), end.clone()].concat()),
        (
            "a call sent again under another index",
            vec!["a"],
            part(json!([
                fragment(json!(0), json!("y"), "a", json!(text)),
                fragment(json!(1), json!("y"), "a", arguments.clone())
            ])) + &end,
        ),
        ("a lone call without a list", vec!["a"], part(a.clone()) + &end),
        (
            "an old function_call",
            vec!["a"],
            delta(json!({"function_call": {"name": "a", "arguments": text}})) + &finish("function_call"),
        ),
        (
            "a placeholder first",
            vec!["a"],
            part(json!([fragment(json!(0), json!("z"), "a", json!("{}"))]))
                + &part(json!([{"index": 0, "function": {"arguments": text}}]))
                + &end,
        ),
        (
            "a call without a name beside one",
            vec!["a"],
            part(json!([{"index": 1, "function": {"arguments": "{}"}}, a])) + &end,
        ),
        ("calls that end with stop", vec!["a"], part(json!([a])) + &finish("stop") + DONE),
    ];
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("a", "done"), Tool::answers("b", "done")]).await;
    let mut s = scene_on(stage).await;
    for (odd, tools, stream) in &oddities {
        let before = provider.calls().len();
        let turn = s.ask(odd, Reply::bytes(stream, 5)).await;
        assert_eq!(answer_text(&turn), "ok", "{odd}");
        let calls = provider.calls();
        let mut made: Vec<&str> = calls[before..].iter().map(|call| call.tool).collect();
        made.sort_unstable();
        assert_eq!(made, *tools, "{odd}: {:#?}", tool_activity(&turn));
        assert!(calls[before..].iter().all(|call| call.arguments == arguments), "{odd}");
    }
    s.end().await;
}

/// A provider's opaque fields, formatted as none of our serialisers would.
const SIGNED: &str =
    r#"{ "google" : {"thought_signature":"CtQ\/+Zz\u00e9=="},"n":1.50,"big":12345678901234567890123 }"#;
const DETAILS: &str = r#"[{"type":"reasoning.encrypted","data":"AA==","z":1,"a":2.0}]"#;

/// Returns a reply with reasoning, a tool call and opaque fields; those of the call come after it.
fn signed(tool: &str) -> Reply {
    let head = call(tool, json!({"id": "7"}));
    let tail = format!(
        r#"data: {{"choices":[{{"delta":{{"tool_calls":[{{"index":0,"extra_content":{SIGNED},"function":{{"signature":"F=="}}}}]}}}}]}}"#
    );
    let details = format!(r#"data: {{"choices":[{{"delta":{{"reasoning_details":{DETAILS}}}}}]}}"#);
    let thoughts = ["I ", "\u{e9}\n"].map(|thought| delta(json!({ "reasoning_content": thought }))).concat();
    raw(&[&thoughts, &details, "\n\n", &head, &tail, "\n\n", &finish("tool_calls"), DONE])
}

/// Refuses requests that return a call without all opaque fields of its provider.
fn wants_all_back(stage: &Stage) {
    stage.gateway.demand(|request| {
        let messages = request["messages"].as_array()?;
        let called = messages.iter().find(|message| message["tool_calls"].is_array())?;
        let expected = |json: &str| serde_json::from_str::<Value>(json).unwrap();
        let call = &called["tool_calls"][0];
        let is_back = called["reasoning_content"] == "I \u{e9}\n"
            && called["reasoning_details"] == expected(DETAILS)
            && call["extra_content"] == expected(SIGNED)
            && call["function"]["signature"] == "F==";
        (!is_back).then(|| format!("Function call is missing a thought_signature: {called}"))
    });
}

#[tokio::test]
async fn opaque_fields_survive_takeover_and_approval() {
    let stage = Stage::start().await;
    let (release, slow) = Tool::held("slow", "done");
    let tools = vec![Tool::answers("wire", "sent").with("confirm", "true"), slow.with("idempotent", "true")];
    let provider = Provider::start(&stage.nats, tools).await;
    wants_all_back(&stage);
    let mut s = scene_on(stage).await;

    s.stage.gateway.script(signed("wire"));
    s.client.begin(&s.session, "r1", "wire it").await;
    s.client.turn_until("r1", "write_confirmation_required").await;
    s.worker.kill().await;
    s.worker = s.stage.worker().await;
    s.client.confirm(&s.session, true).await;
    assert_eq!(answer_text(&s.client.turn("r1").await), "ok");

    s.stage.gateway.script(signed("slow"));
    s.client.begin(&s.session, "r2", "slowly").await;
    provider.wait_for_calls(2).await;
    s.worker.kill().await;
    release.send(true).unwrap();
    s.worker = s.stage.worker().await;
    assert_eq!(answer_text(&s.client.turn("r2").await), "ok");

    let replied = &s.stored("turn.model_replied").await[0];
    let kept = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(kept(&replied["opaque"]), format!(r#"{{"reasoning_content":"I é\n","reasoning_details":{DETAILS}}}"#));
    let of_call = format!(r#"{{"extra_content":{SIGNED},"function":{{"signature":"F=="}}}}"#);
    assert_eq!(kept(&replied["calls"][0]["opaque"]), of_call, "as it came, byte for byte");
    // In the next turn the earlier words go out as plain text.
    assert_eq!(answer_text(&s.client.ask(&s.session, "r3", "thanks").await), "ok");
    let last = s.stage.gateway.requests().pop().unwrap();
    assert!(!last["messages"].to_string().contains("reasoning"), "{last}");
    s.end().await;
}

#[tokio::test]
async fn any_conversation_is_valid_for_every_back_end() {
    let stage = Stage::start().await;
    let _provider =
        Provider::start(&stage.nats, vec![Tool::answers("quiet", " "), Tool::answers("fine", "fine")]).await;
    let agent = json!({"persona": "You are Ada.", "systemPrompt": "Be brief.", "greeting": "Hello!"});
    stage.agent("reference-org", "default", &agent).await;
    let docs = tempfile::tempdir().unwrap();
    std::fs::write(docs.path().join("returns.md"), "# Returns\n\nGoods are taken back within 17 days.\n").unwrap();
    let mut ingest = stage.run("ingest", &["ingest", "--org", "reference-org", docs.path().to_str().unwrap()], &[]);
    assert!(ingest.ended().await.success(), "{}", ingest.output());
    let mut s = scene_on(stage).await;

    // Failed, stopped and empty turns, then an answered one.
    for (id, reply) in [
        ("failed", Reply::status(401)),
        ("cut off", Reply::cut_after(vec!["half".into()])),
        ("empty", Reply::tokens(vec![])),
    ] {
        assert_eq!(code(s.ask(id, reply).await.last().unwrap()), "AGENT_ERROR");
    }
    let gate = Gate::new();
    s.stage.gateway.script(Reply::gated(vec!["never shown".into()], &gate));
    s.client.begin(&s.session, "stopped", "stopped").await;
    s.stage.gateway.wait_for_requests(4).await;
    s.client.send(&json!({"action": "cancel", "sessionId": s.session.id})).await;
    assert_eq!(kinds(&s.client.turn("stopped").await), ["cancelled"]);
    let turn = s.client.ask(&s.session, "r5", "How long are goods taken back?").await;
    assert_eq!(answer_text(&turn), "ok");
    // Arguments that are no object, a name that does not exist, a result without text.
    let calls = [("quiet", "{}"), ("fine", "[1]"), ("no such tool!", "{\"a\":"), ("fine", "")];
    let calls = calls.map(|(name, arguments)| (name.to_owned(), arguments.to_owned())).to_vec();
    let turn = s.ask("calls", Reply::tool_calls(calls)).await;
    assert_eq!(answer_text(&turn), "ok");
    assert_eq!(answer_text(&s.client.ask(&s.session, "last", "thanks").await), "ok");

    let requests = s.stage.gateway.requests();
    let fifth = &requests[4]["messages"];
    let system = fifth[0]["content"].as_str().unwrap();
    assert!(system.contains("You are Ada.") && system.contains("Be brief.") && system.contains("17 days"), "{system}");
    let roles: Vec<&str> = fifth.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles[..3], ["system", "user", "assistant"]);
    assert_eq!(roles.len(), 10, "{fifth:#}");
    s.end().await;
}

#[tokio::test]
async fn a_refused_field_leads_to_another_dialect() {
    let stage = Stage::start().await;
    stage.gateway.demand(|request| {
        if !request["max_tokens"].is_null() {
            return Some("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.".into());
        }
        if !request["stream_options"].is_null() {
            return Some("stream_options: Extra inputs are not permitted".into());
        }
        (request["messages"][0]["role"] == "system").then(|| "System role not supported".into())
    });
    let mut s = scene_on(stage).await;
    for id in ["r1", "r2"] {
        assert_eq!(answer_text(&s.client.ask(&s.session, id, "hello").await), "ok");
    }
    assert_eq!(s.stage.gateway.refusals().len(), 3, "each dialect is learnt once");
    let last = s.stage.gateway.requests().pop().unwrap();
    assert!(last["max_completion_tokens"].is_u64());
    for frame in &s.client.seen {
        assert!(!frame.to_string().contains("max_tokens"), "{frame:#}");
    }
}

#[tokio::test]
async fn an_overloaded_provider_is_asked_again_and_its_error_stays_internal() {
    let mut s = scene().await;
    for status in [529, 408, 425, 520, 530] {
        s.stage.gateway.script(Reply::status(status));
    }
    // Five refusals exceed the retries of one turn.
    let turn = s.ask("r1", Reply::text("here")).await;
    assert_eq!(code(turn.last().unwrap()), "AGENT_ERROR");
    assert_eq!(answer_text(&s.client.ask(&s.session, "r2", "and now?").await), "here");
    for (id, odd) in [
        (
            "an error in a stream",
            raw(&[&text("Hel"), &event(json!({"error": {"message": "gateway-internal key sk-1"}}))]),
        ),
        ("an error event", raw(&["event: error\ndata: gateway-internal upstream\n\n"])),
        ("an error as JSON", Reply::json_error_200()),
        ("a page in a stream", raw(&["<html>gateway-internal</html>"])),
        ("a status", Reply::status(403)),
    ] {
        let turn = s.ask(id, odd).await;
        assert_eq!(code(turn.last().unwrap()), "AGENT_ERROR", "{id}");
    }
    s.end().await;
}
