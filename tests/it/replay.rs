//! Replays: the frames rebuilt from the log alone equal the frames that clients got.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::Request},
};

use crate::support::{
    Edge, Stage, WAIT_MAX,
    client::{Client, Session, message_frame},
    frames::{answer_text, kind, kinds, streamed},
    gateway::{Gate, Reply},
    http,
    otp::OtpService,
    tools::{Provider, Tool},
};

const WORKER: [(&str, &str); 2] =
    [("SMOOTH_AGENT_PREAMBLE_MODEL", "fast"), ("SMOOTH_AGENT_AUTH_TOOLS", "change_address")];

async fn run(stage: &Stage, arguments: &[&str]) -> (bool, String) {
    let mut process = stage.run(arguments[0], arguments, &[("RUST_LOG", "error")]);
    (process.ended().await.success(), process.output())
}

async fn replayed(stage: &Stage, arguments: &[&str]) -> Vec<Value> {
    let (ended, output) = run(stage, arguments).await;
    assert!(ended, "{output}");
    output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Returns frames without the fields that a replay need not reproduce.
fn without_time(frames: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let strip = |mut frame: Value| {
        frame.as_object_mut().unwrap().remove("timestamp");
        frame
    };
    frames.into_iter().map(strip).collect()
}

/// Returns the frames of turns that a client got; the others are answers to its other actions.
fn of_turns(client: &Client) -> Vec<Value> {
    let is_answer = |frame: &&Value| match kind(frame) {
        "immediate_response" => frame["status"] != 202,
        kind => kind == "pong",
    };
    without_time(client.seen.iter().filter(|frame| !is_answer(frame)).cloned())
}

/// Compares frame by frame, so that a difference can be read.
fn assert_same(replayed: &[Value], received: &[Value]) {
    for (n, (replayed, received)) in replayed.iter().zip(received).enumerate() {
        assert_eq!(replayed, received, "frame {n}");
    }
    assert_eq!(replayed.len(), received.len());
}

fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

/// A conversation with every kind of frame that a client can get.
struct Story {
    stage: Stage,
    client: Client,
    session: Session,
}

impl Story {
    /// Runs the next turn with these replies of the model.
    async fn turn(&mut self, id: &str, replies: Vec<Reply>) -> Vec<Value> {
        replies.into_iter().for_each(|reply| self.stage.gateway.script(reply));
        self.client.ask(&self.session, id, id).await
    }

    /// Runs a turn that waits for a person, up to its prompt and the call that follows.
    async fn parked(&mut self, id: &str, call: Reply) -> Value {
        self.stage.gateway.script(call);
        self.client.begin(&self.session, id, id).await;
        let shown = self.client.turn_until(id, "stream_chunk").await;
        shown[shown.len() - 2]["data"]["data"].clone()
    }

    /// Runs turns in which the model speaks and calls tools.
    async fn speaks(&mut self) {
        let (gate, long) = (Gate::new(), words(&"Grüße \u{1F980}, ha ha \"\\ und so weiter ".repeat(20)));
        self.stage.gateway.script(Reply::gated(long.clone(), &gate).with_reasoning("first this, then 漢字"));
        self.client.begin(&self.session, "a long answer", "a long answer").await;
        // Each token is a frame of its own.
        for _ in &long {
            gate.release(1);
            self.client.turn_until("a long answer", "stream_token").await;
        }
        self.client.turn("a long answer").await;
        let spaced = ["It ", "is 4.", " ", " \n"].map(str::to_owned).to_vec();
        assert_eq!(answer_text(&self.turn("white space", vec![Reply::tokens(spaced)]).await), "It is 4.");
        let suggests = words("Done. Anything else? <suggested_replies>[\"No\"]</suggested_replies>");
        self.turn("suggested replies", vec![Reply::tokens(suggests)]).await;
        let calls = ["look", "seek", "fail"].map(|name| (name.to_owned(), json!({ "id": name }).to_string()));
        let both = Reply::tool_calls(calls.to_vec()).with_text("Let me see. ").with_reasoning("which one?");
        self.turn("tools", vec![both, Reply::text("Found.").with_reasoning("both")]).await;
        let note = Reply::tool_call("look", json!({})).with_text("All is well. ");
        self.turn("an answer before a tool", vec![note, Reply::tokens(words(" \n "))]).await;
        self.turn("a cut", vec![Reply::cut_after(words("half an")).with_reasoning("hm")]).await;
        self.turn("a blank answer", vec![Reply::text(" \n ")]).await;
        self.turn("a refusal", vec![Reply::status(400)]).await;
    }

    /// Runs turns that wait for people.
    async fn waits(&mut self) {
        let act = || Reply::tool_call("act", json!({ "id": "x" })).with_text("May I? ").with_reasoning("better ask");
        self.parked("approved", act()).await;
        self.client.confirm(&self.session, true).await;
        self.client.turn("approved").await;
        self.parked("declined", act()).await;
        self.client.confirm(&self.session, false).await;
        self.client.turn("declined").await;
        let fields = json!({ "fields": ["email"], "reason": "to write to you" });
        let prompt = self.parked("a form", Reply::tool_call("request_identity_intake", fields)).await;
        let submit = json!({
            "action": "submit_interaction", "sessionId": self.session.id, "interactionId": prompt["interactionId"],
            "kind": prompt["kind"], "values": { "email": "ada@example.org" },
        });
        assert_eq!(self.client.request(submit).await["status"], 200);
        self.client.turn("a form").await;
        let demands = Reply::tool_call("change_address", json!({}));
        let asked = self.turn("a password", vec![demands, Reply::text("Enter the code.")]).await;
        assert!(kinds(&asked).contains(&"otp_sent"), "{asked:#?}");
    }

    /// Runs a turn without streaming and a turn with a file.
    async fn asks_otherwise(&mut self) {
        let replies = [
            Reply::tool_call("look", json!({})).with_text("Looking. ").with_reasoning("hm"),
            Reply::tool_call("act", json!({})),
            Reply::text("quiet"),
        ];
        replies.into_iter().for_each(|reply| self.stage.gateway.script(reply));
        let mut quiet = message_frame(&self.session, "quietly", "quietly");
        quiet["stream"] = json!(false);
        assert_eq!(self.client.request(quiet).await["status"], 202);
        self.client.turn_until("quietly", "write_confirmation_required").await;
        self.client.confirm(&self.session, true).await;
        self.client.turn("quietly").await;
        let mut file = message_frame(&self.session, "a file", "a file");
        file["files"] = json!([{ "name": "a.txt", "url": "data:text/plain;base64,aGVsbG8=" }]);
        assert_eq!(self.client.request(file).await["status"], 202);
        self.client.turn("a file").await;
    }

    /// Runs a turn that is held after its second token.
    async fn held(&mut self, id: &str) -> Gate {
        let gate = Gate::new();
        self.stage.gateway.script(Reply::gated(words("one two three four"), &gate).with_reasoning("count"));
        self.client.begin(&self.session, id, id).await;
        for _ in 0..2 {
            gate.release(1);
            self.client.turn_until(id, "stream_token").await;
        }
        gate
    }

    /// Runs a turn that is cancelled while the model speaks, until its worker has recorded the shown frames.
    async fn is_cancelled(&mut self) {
        let mut released = self.stage.nats.client().await.subscribe("chat.*.*.*.turn.released").await.unwrap();
        let _gate = self.held("cancelled").await;
        self.client.send(&json!({ "action": "cancel", "sessionId": self.session.id })).await;
        assert_eq!(kind(self.client.turn("cancelled").await.last().unwrap()), "cancelled");
        timeout(WAIT_MAX, released.next()).await.expect("the worker records its frame trace").unwrap();
    }
}

/// Checks that the client got a frame of every kind.
fn expect_every_kind(received: &[Value]) {
    for wanted in [
        "immediate_response",
        "stream_token",
        "stream_reasoning",
        "stream_preamble",
        "stream_chunk",
        "write_confirmation_required",
        "interaction_required",
        "otp_verification_required",
        "otp_sent",
        "eventual_response",
        "error",
        "cancelled",
    ] {
        assert!(received.iter().any(|frame| kind(frame) == wanted), "the client got no {wanted}");
    }
}

#[tokio::test]
async fn frames_from_the_log_equal_the_clients_frames() {
    let stage = Stage::start().await;
    let tools = vec![
        Tool::answers("look", "seen"),
        Tool::answers("seek", "found \u{2028}"),
        Tool::fails("fail", 500, "broken"),
        Tool::answers("act", "done").with("confirm", "true"),
        Tool::answers("change_address", "changed"),
    ];
    let _provider = Provider::start(&stage.nats, tools).await;
    let _otp = OtpService::start(&stage.nats, "reference-org", true).await;
    let config = json!({ "tools": [{ "name": "change_address", "authLevel": "end_user" }, { "name": "*" }] });
    stage.agent("reference-org", "default", &config).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker_with(&WORKER));
    let mut client = Client::connect(&edge).await;
    let created = json!({ "action": "create_conversation_session", "supports": ["identity_form"] });
    let created = client.request(created).await;
    let text = |name: &str| created["data"][name].as_str().unwrap().to_owned();
    let session = Session { id: text("sessionId"), conversation: text("conversationId") };
    let gate = Gate::new();
    let slow = gate.clone();
    stage.gateway.respond_with(move |request| match request["model"] == "fast" {
        true => Some(Reply::text("One moment.")),
        false => {
            let asked = &request["messages"].as_array().unwrap().last().unwrap()["content"];
            (asked == "with a preamble").then(|| Reply::gated(words("Here it is."), &slow))
        }
    });
    let mut story = Story { stage, client, session };
    story.client.begin(&story.session, "with a preamble", "with a preamble").await;
    story.client.turn_until("with a preamble", "stream_preamble").await;
    gate.open();
    story.client.turn("with a preamble").await;
    story.speaks().await;
    story.waits().await;
    story.asks_otherwise().await;
    story.is_cancelled().await;
    // The worker stops in mid-answer, and another one gives the answer anew.
    let _gate = story.held("handed over").await;
    worker.signal(libc::SIGTERM);
    worker.ended().await;
    story.stage.gateway.script(Reply::text("one two three four five").with_reasoning("again"));
    let _worker = story.stage.worker_with(&WORKER).await;
    let rest = story.client.turn("handed over").await;
    assert_eq!(
        (kinds(&rest), answer_text(&rest)),
        (vec!["stream_chunk", "eventual_response"], "one two three four five")
    );
    story.turn("the last one", vec![Reply::text("fine")]).await;
    story.client.ping().await;

    let Story { stage, client, session } = story;
    let received = of_turns(&client);
    expect_every_kind(&received);
    let frames = replayed(&stage, &["replay", &session.conversation, "--format", "frames"]).await;
    assert!(frames.iter().all(|frame| frame["timestamp"].is_i64()));
    assert_same(&without_time(frames.clone()), &received);
    assert_eq!(replayed(&stage, &["replay", "--session", &session.id, "--format", "frames"]).await, frames);
    let fast = ["replay", &session.conversation, "--format", "frames", "--speed", "1000000"];
    assert_eq!(replayed(&stage, &fast).await, frames);
}

/// Events from before the frame trace: each call's text is shown as one frame.
#[tokio::test]
async fn a_text_without_a_frame_trace_is_one_frame_with_a_note() {
    let stage = Stage::start().await;
    let clear = [("SMOOTH_AGENT_MASTER_KEY", "")];
    let (edge, _worker) = tokio::join!(stage.edge_with(&clear), stage.worker_with(&clear));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    // The same turn again, in a conversation of its own, without the field.
    let log = async_nats::jetstream::new(stage.nats.client().await);
    let copy = uuid::Uuid::new_v4().to_string();
    let mut prev = 0;
    for event in replayed(&stage, &["replay", &session.conversation, "--format", "ndjson"]).await {
        let mut payload = event["payload"].clone();
        payload.as_object_mut().unwrap().remove("shown");
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in event["headers"].as_object().unwrap() {
            headers.insert(name.as_str(), value.as_str().unwrap());
        }
        headers.insert("Nats-Msg-Id", format!("copy-{}", event["seq"]));
        headers.insert("ce-subject", copy.as_str());
        headers.insert("ce-prev", prev.to_string());
        if payload["epoch"].is_u64() {
            payload["epoch"] = json!(prev);
        }
        if payload["item"].is_u64() {
            payload["item"] = json!(prev);
        }
        // No worker takes a request that names a pool without workers.
        let subject = event["subject"].as_str().unwrap().replace(&session.conversation, &copy);
        let subject = subject.replace("requested.default", "requested.nobody");
        let published = log.publish_with_headers(subject, headers, payload.to_string().into()).await.unwrap();
        prev = published.await.unwrap().sequence;
    }
    let mut process = stage.run("replay", &["replay", &copy, "--format", "frames"], &[("RUST_LOG", "error")]);
    assert!(process.ended().await.success());
    let output = process.output();
    let (said, frames): (Vec<_>, Vec<_>) = output.lines().partition(|line| !line.starts_with('{'));
    assert_eq!(said, ["1 model calls may have been shown differently: the log lacks their frame traces"]);
    let frames: Vec<Value> = frames.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds(&frames), ["immediate_response", "stream_token", "eventual_response"]);
    assert_eq!((streamed(&frames).as_str(), frames.len()), ("ok", 3));
}

#[tokio::test]
async fn sessions_organisations_and_spans_are_replayed() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let first = client.open_session().await;
    client.ask(&first, "r1", "first question").await;
    let second = client.resume(&first.conversation).await;
    client.ask(&second, "r2", "second question").await;
    let other = client.open_session().await;
    client.ask(&other, "r3", "third question").await;

    // A session: only its own turn, of the conversation's two.
    let (_, of_session) = run(&stage, &["replay", "--session", &second.id]).await;
    assert!(of_session.contains("second question") && !of_session.contains("first question"), "{of_session}");
    assert_eq!(of_session.matches("opens session").count(), 1, "{of_session}");
    let frames = replayed(&stage, &["replay", "--session", &second.id, "--format", "frames"]).await;
    assert!(frames.iter().all(|frame| frame["requestId"] == "r2") && frames.len() == 3, "{frames:#?}");

    // An organisation: each line names its conversation.
    let (_, of_org) = run(&stage, &["replay", "--org", "reference-org"]).await;
    for (question, session) in [("first", &first), ("second", &second), ("third", &other)] {
        let line = of_org.lines().find(|line| line.contains(&format!("asks “{question} question”"))).unwrap();
        assert!(line.contains(&session.conversation), "{line}");
    }
    let stored = replayed(&stage, &["replay", "--org", "reference-org", "--format", "ndjson"]).await;
    let (found, said) = run(&stage, &["replay", "--org", "another"]).await;
    assert!(!found && said.contains("there is no conversation of `another`"), "{said}");

    // A span, by sequences and by times: the same events.
    let (from, to) = (&stored[3], &stored[7]);
    let of = |field: &str, event: &Value| event[field].to_string().trim_matches('"').to_owned();
    for field in ["seq", "storedAt"] {
        let (since, until) = (of(field, from), of(field, to));
        for whose in [vec!["--org", "reference-org"], vec![]] {
            let span = ["replay", "--format", "ndjson", "--since", &since, "--until", &until];
            assert_eq!(replayed(&stage, &[&span[..], &whose].concat()).await, stored[3..=7], "{field} {whose:?}");
        }
    }
    let (found, said) = run(&stage, &["replay", "--since", "2100-01-01T00:00:00Z"]).await;
    assert!(!found && said.contains("there is no later event"), "{said}");

    // The states of several conversations, each equal to the one replayed alone.
    let (_, states) = run(&stage, &["replay", "--org", "reference-org", "--state"]).await;
    let states: Value = serde_json::from_str(&states).unwrap();
    assert_eq!(states.as_object().unwrap().len(), 2);
    for session in [&first, &other] {
        let (_, state) = run(&stage, &["replay", &session.conversation, "--state"]).await;
        assert_eq!(serde_json::from_str::<Value>(&state).unwrap(), states[&session.conversation]);
        assert_eq!(state, serde_json::to_string_pretty(&states[&session.conversation]).unwrap(), "sorted keys");
    }

    for (arguments, words) in [
        (vec!["replay"], "required"),
        (vec!["replay", "--org", "reference-org", "--format", "frames"], "frames need one conversation or session"),
        (vec!["replay", &first.conversation, "--speed", "2"], "--speed is for"),
        (vec!["replay", &first.conversation, "--state", "--since", "3"], "cannot be used with"),
        (vec!["replay", "--session", &first.conversation], "there is no session"),
        (vec!["replay", &first.conversation, "--serve", "0.0.0.0:0"], "loopback"),
    ] {
        let (done, said) = run(&stage, &arguments).await;
        assert!(!done && said.contains(words), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_following_replay_continues_with_new_events() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let mut replay = stage.run("replay", &["replay", &session.conversation, "--format", "frames", "--follow"], &[]);
    for id in ["r1", "r2"] {
        let asked = client.ask(&session, id, "hello").await;
        let end = replay.line(|line| line.contains("eventual_response") && line.contains(id)).await;
        let end = serde_json::from_str(&end).unwrap();
        assert_eq!(without_time([end]), without_time([asked.last().unwrap().clone()]));
    }
}

/// The WebSocket of a replay page.
struct Page(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Page {
    async fn say(&mut self, word: Value) {
        self.0.send(Message::text(word.to_string())).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let message = timeout(WAIT_MAX, self.0.next()).await.expect("a message in time").unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    /// Reads until the replay has stopped; returns the moments, then the position.
    async fn hear_all(&mut self) -> (Vec<Value>, Value) {
        let mut moments = Vec::new();
        loop {
            let word = self.hear().await;
            match &word["standing"] {
                Value::Null => moments.push(word),
                standing if standing["plays"] == false => return (moments, standing.clone()),
                _ => {}
            }
        }
    }
}

/// Returns the handshake of a page at an address, under a host name and from a page of an origin.
fn handshake(address: &str, host: &str, origin: Option<&str>) -> Request<()> {
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert("host", host.parse().unwrap());
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_page_shows_the_replay_and_controls_it() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::text("one two three"));
    client.ask(&session, "r1", "count").await;
    let arguments = ["replay", &session.conversation, "--serve", "127.0.0.1:0", "--speed", "full"];
    let mut process = stage.run("replay", &arguments, &[]);
    let address = process.line_after("showing the replay on http://").await;
    let own = format!("http://{address}");
    let (socket, _) = connect_async(handshake(&address, &address, Some(&own))).await.unwrap();
    let mut page = Page(socket);
    let (moments, standing) = page.hear_all().await;
    assert_eq!((&standing["n"], &standing["of"]), (&json!(moments.len()), &json!(moments.len())));
    assert_eq!(moments[0]["asked"], json!({ "name": "Visitor", "message": "count" }));
    let shown: Vec<Value> = moments.iter().filter_map(|moment| moment.get("frame").cloned()).collect();
    let frames = replayed(&stage, &["replay", &session.conversation, "--format", "frames"]).await;
    assert_eq!(shown, frames);

    // From the beginning, a step at a time, at another speed.
    page.say(json!({ "do": "speed", "speed": 0.001 })).await;
    assert_eq!(page.hear_all().await.1["speed"], 0.001);
    page.say(json!({ "do": "restart" })).await;
    page.say(json!({ "do": "pause" })).await;
    let (again, standing) = page.hear_all().await;
    assert_eq!(again[0], json!({ "restarted": true }));
    let at = standing["n"].as_u64().unwrap() as usize;
    assert_eq!((again.len() - 1, &again[1..]), (at, &moments[..at]), "the messages before the pause");
    assert!(at < moments.len(), "at this speed it takes minutes");
    page.say(json!({ "do": "step" })).await;
    assert_eq!(page.hear_all().await.0, [moments[at].clone()]);
    for word in [json!({ "do": "nothing" }), json!(7), json!({ "do": "speed", "speed": -1 })] {
        page.say(word).await;
    }
    assert_eq!(page.hear_all().await.1["speed"], 0.001, "a speed that is none changes nothing");
    page.say(json!({ "do": "speed", "speed": "full" })).await;
    page.hear_all().await;
    page.say(json!({ "do": "play" })).await;
    assert_eq!(page.hear_all().await.0, moments[at + 1..]);
}

/// Other origins' pages in the same browser must not read the conversation.
#[tokio::test]
async fn a_replay_is_served_only_to_its_own_page() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    client.ask(&session, "r1", "hello").await;
    let mut process = stage.run("replay", &["replay", &session.conversation, "--serve", "127.0.0.1:0"], &[]);
    let address = process.line_after("showing the replay on http://").await;
    let (own, port) = (format!("http://{address}"), address.rsplit_once(':').unwrap().1.to_owned());
    let (local, rebound) = (format!("localhost:{port}"), format!("evil.example:{port}"));
    for (host, origin, is_served) in [
        (&address, Some(own.as_str()), true),
        (&address, None, true),
        (&local, Some(&*format!("http://{local}")), true),
        (&address, Some("https://evil.example"), false),
        (&address, Some(&*format!("http://127.0.0.1:1{port}")), false),
        (&address, Some("null"), false),
        (&rebound, None, false),
        (&rebound, Some(&*format!("http://{rebound}")), false),
    ] {
        match connect_async(handshake(&address, host, origin)).await {
            Ok(_) => assert!(is_served, "{host} {origin:?}"),
            Err(Error::Http(refusal)) => assert!(refusal.status() == 403 && !is_served, "{host} {origin:?}"),
            Err(other) => panic!("{host} {origin:?}: {other}"),
        }
    }
    let page = Edge { process, address };
    let html = http::send(&page, "GET", "/", &[], None).await;
    assert!(html.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    assert!(html.text().await.unwrap().contains("Turnstream replay"));
    assert_eq!(http::send(&page, "GET", "/", &[("host", &rebound)], None).await.status(), 403);
}
