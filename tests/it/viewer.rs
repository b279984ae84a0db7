//! Conversations for auditors: reports, and the content of the page at `/audit`, from the log of a whole deployment.

use serde_json::{Value, json};
use turnstream::knowledge::Acl;

use crate::{
    admin::{elsewhere, expect, of_role},
    identity::{SECRET, handshake, token},
    knowledge,
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::{answer_text, code},
        gateway::Reply,
        http::send,
        tools::{Provider, Tool},
    },
};

const WITH_TOKENS: [(&str, &str); 1] = [("AUTH_JWT_HS256_SECRET", SECRET)];
/// A visitor's attempt at markup injection, with a mark that reverses text direction.
const EVIL: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&lt;\u{202e}";

/// A visitor's question with an approval, tools, documents and two workers, then a form, then a turn that is cancelled.
struct Scene {
    stage: Stage,
    edge: Edge,
    session: Session,
    revision: u64,
    keys: Vec<String>,
}

async fn open(client: &mut Client) -> Session {
    let created = client
        .request(json!({
            "action": "create_conversation_session", "agentId": "support", "userName": "Ada <b>", "supports": ["choice_chips"],
        }))
        .await;
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

async fn scene() -> Scene {
    let stage = Stage::start().await;
    let tools = vec![
        Tool::answers("look", r#"{"seen": "</pre><script>"}"#).with("idempotent", "true"),
        Tool::answers("pay", "paid").with("confirm", "true"),
    ];
    let provider = Provider::start(&stage.nats, tools).await;
    let config = json!({
        "persona": format!("You are kind. {EVIL}"), "model": "m-1", "tools": [{"name": "look"}, {"name": "pay", "confirm": true}, {"name": "request_*"}],
    });
    let revision = stage.agent("acme", "support", &config).await;
    knowledge::put(&stage, "acme", "bills.md", Acl::Public, "Bills are paid with the tool pay.").await;
    let (edge, mut worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.worker());
    let ada = token(json!({"sub": "ada", "email": "ada@example.org", "groups": ["sales"]}));
    let mut client = Client::try_connect(handshake(&edge, &format!("?token={ada}"), None)).await.unwrap();
    let session = open(&mut client).await;
    let calls = [("look", json!({"bill": EVIL})), ("pay", json!({"id": "bill-7"}))];
    let calls = calls.map(|(name, arguments)| (name.to_owned(), arguments.to_string()));
    stage.gateway.script(Reply::tool_calls(calls.into()).with_text("One moment. "));
    client.begin(&session, "r1", &format!("Please pay my bills {EVIL}")).await;
    client.turn_until("r1", "write_confirmation_required").await;
    worker.kill().await;
    client.confirm(&session, true).await;
    stage.gateway.script(Reply::text("It is paid."));
    let _worker = stage.worker().await;
    assert_eq!(answer_text(&client.turn("r1").await), "It is paid.");

    let options = json!([{"label": "M"}, {"label": "L"}]);
    let choices = json!({"questions": [{"question": "Which size?", "header": "Size", "options": options}]});
    stage.gateway.script(Reply::tool_call("request_choices", choices));
    client.begin(&session, "r2", "a shirt").await;
    let parked = client.turn_until("r2", "interaction_required").await;
    let prompt = &parked.last().unwrap()["data"]["data"];
    let values = json!({"answers": [{"header": "Size", "options": ["L"]}]});
    let submit = json!({
        "action": "submit_interaction", "sessionId": session.id, "interactionId": prompt["interactionId"],
        "kind": prompt["kind"], "values": values,
    });
    assert_eq!(client.request(submit).await["message"], "Interaction submitted");
    client.turn("r2").await;

    stage.gateway.script(Reply::hang());
    client.begin(&session, "r3", "never mind").await;
    client.send(&json!({"action": "cancel", "sessionId": session.id, "requestId": "c"})).await;
    client.turn("r3").await;
    let keys = provider.calls().into_iter().map(|call| call.id).collect();
    Scene { stage, edge, session, revision, keys }
}

impl Scene {
    async fn get(&self, what: &str, status: u16) -> Value {
        let path = format!("audit/conversations/{}/{what}", self.session.conversation);
        expect(&self.edge, "GET", &path, &of_role("curator"), None, status).await
    }

    async fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut process = self.stage.run(arguments[0], arguments, &[("RUST_LOG", "error")]);
        (process.ended().await.success(), process.output())
    }

    /// Returns the conversation's events as the log holds them.
    async fn stored(&self) -> Vec<Value> {
        let (_, lines) = self.run(&["replay", &self.session.conversation, "--format", "ndjson"]).await;
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Appends a message that no edge and no worker wrote: the conversation's last event, changed.
    async fn forge(&self, change: impl Fn(&mut Value)) -> u64 {
        let mut event = self.stored().await.pop().unwrap();
        change(&mut event);
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in event["headers"].as_object().unwrap() {
            headers.insert(name.as_str(), value.as_str().unwrap());
        }
        headers.insert("Nats-Msg-Id", uuid::Uuid::new_v4().to_string());
        let log = async_nats::jetstream::new(self.stage.nats.client().await);
        let subject = event["subject"].as_str().unwrap().to_owned();
        let sent = log.publish_with_headers(subject, headers, event["payload"].to_string().into()).await.unwrap();
        sent.await.unwrap().sequence
    }
}

fn steps<'a>(turn: &'a Value, kind: &str) -> Vec<&'a Value> {
    turn["steps"].as_array().unwrap().iter().filter(|step| step["step"] == kind).collect()
}

#[tokio::test]
async fn a_report_shows_the_whole_conversation() {
    let scene = scene().await;
    let (report, stored) = (scene.get("report", 200).await, scene.stored().await);
    for (name, value) in [
        ("organisation", json!("acme")),
        ("region", json!("local")),
        ("owner", json!("ada@example.org")),
        ("agentId", json!("support")),
    ] {
        assert_eq!(report[name], value, "{name}");
    }
    let totals = &report["totals"];
    let counted =
        ["turns", "completed", "cancelled", "failed", "modelCalls", "toolCalls", "asked"].map(|name| &totals[name]);
    assert_eq!(counted.map(|n| n.as_u64().unwrap()), [3, 2, 1, 0, 4, 2, 2], "{totals}");
    assert!(totals["usage"]["promptTokens"].as_u64().unwrap() > 0);
    let last = stored.last().unwrap();
    assert_eq!((&report["chain"]["isIntact"], &report["chain"]["lastSeq"]), (&json!(true), &last["seq"]));
    let config = &report["configurations"][0];
    assert_eq!((&config["agent"], &config["revision"]), (&json!("support"), &json!(scene.revision)));
    assert_eq!(config["config"]["persona"], format!("You are kind. {EVIL}"));

    let turn = &report["turns"][0];
    assert_eq!(turn["message"], format!("Please pay my bills {EVIL}"));
    assert_eq!((&turn["session"], &turn["asker"]["user"]), (&json!(scene.session.id), &json!("ada")));
    assert_eq!((&turn["agentConfig"]["revision"], &turn["outcome"]), (&json!(scene.revision), &json!("completed")));
    let claims = steps(turn, "claimed");
    assert_eq!(claims.len(), 2);
    assert_ne!(claims[0]["worker"], claims[1]["worker"]);
    assert_eq!([&claims[0]["isTakeover"], &claims[1]["isTakeover"]], [false, false], "a parked turn has no owner");
    let replied = steps(turn, "model_replied")[0];
    assert_eq!((&replied["text"], &replied["grounding"][0]["id"]), (&json!("One moment. "), &json!("bills.md")));
    let called = steps(turn, "tool_called");
    let keys: Vec<&str> = called.iter().map(|call| call["idempotencyKey"].as_str().unwrap()).collect();
    assert_eq!(keys, scene.keys);
    let requested = called.iter().map(|call| &call["request"]);
    let flags: Vec<_> = requested.map(|call| (&call["confirm"], &call["idempotent"])).collect();
    assert_eq!(flags, [(&json!(false), &json!(true)), (&json!(true), &json!(false))]);
    assert_eq!(called[1]["request"]["arguments"], json!({"id": "bill-7"}).to_string());
    let results: Vec<_> = steps(turn, "tool_returned").iter().map(|step| step["result"].clone()).collect();
    assert_eq!(results, [r#"{"seen": "</pre><script>"}"#, "paid"]);
    let decided = steps(turn, "decided")[0];
    assert_eq!((&decided["resolution"], &decided["by"]), (&json!("approved"), &json!(scene.session.id)));
    assert_eq!(decided["byName"], "Ada <b>");
    assert!(decided["tookMs"].as_i64().unwrap() >= 0);
    assert_eq!(steps(turn, "completed")[0]["citations"][0]["id"], "bills.md");

    let form = &report["turns"][1];
    assert_eq!(steps(form, "decided")[0]["values"]["answers"][0]["options"], json!(["L"]));
    assert_eq!(steps(&report["turns"][2], "cancelled")[0]["by"], scene.session.id.as_str());
    let events = report["events"].as_array().unwrap();
    assert_eq!(events.len(), stored.len());
    for (told, stored) in events.iter().zip(&stored) {
        let headers = &stored["headers"];
        assert_eq!((&told["seq"], &told["id"]), (&stored["seq"], &headers["ce-id"]));
        assert_eq!((&told["prev"], &told["source"]), (&headers["ce-prev"], &headers["ce-source"]));
    }
    for (told, next) in events.iter().zip(&stored[1..]) {
        assert_eq!(told["digest"], next["headers"]["ce-prevdigest"]);
    }

    // The command's report is the same, with read permission on the log alone.
    let (written, said) = scene.run(&["audit", "report", &scene.session.conversation, "--json"]).await;
    assert!(written, "{said}");
    let mut same: Value = serde_json::from_str(&said).unwrap();
    same["madeAt"] = report["madeAt"].clone();
    assert_eq!(same, report);
}

#[tokio::test]
async fn the_page_of_a_report_holds_no_active_content() {
    let scene = scene().await;
    let path = format!("/admin/audit/conversations/{}/report", scene.session.conversation);
    let bearer = format!("Bearer {}", of_role("curator"));
    let answer =
        send(&scene.edge, "GET", &path, &[("authorization", &bearer), ("accept", "text/html,*/*")], None).await;
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let (policy, kind) = (header("content-security-policy"), header("content-type"));
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("script"), "{policy}");
    assert_eq!(kind, "text/html; charset=utf-8");
    let page = answer.text().await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = file.path().to_str().unwrap();
    let (written, said) = scene.run(&["audit", "report", &scene.session.conversation, "--out", out]).await;
    assert!(written, "{said}");
    let written = std::fs::read_to_string(file.path()).unwrap();
    for page in [&page, &written] {
        let lower = page.to_lowercase();
        for forbidden in ["<script", "<img", "<iframe", "<link", "javascript:", " src=x>", "\u{202e}"] {
            assert!(!lower.contains(forbidden), "{forbidden}");
        }
        // Every tag is one of ours, with our attributes.
        for tag in lower.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            assert!(!tag.contains("onerror") && !tag.contains("style="), "<{tag}>");
        }
        assert!(page.contains(&format!("http-equiv=\"Content-Security-Policy\" content=\"{policy}\"")));
        let digest = scene.get("verification", 200).await["lastDigest"].as_str().unwrap().to_owned();
        for told in [
            "Please pay my bills &quot;'&gt;&lt;script&gt;",
            "&amp;lt;<span class=\"hidden\">U+202E</span>",
            "You are kind.",
            "Ada &lt;b&gt;",
            "Idempotency key",
            &scene.keys[1],
            "<b>Approved</b> by Ada &lt;b&gt;",
            "bills.md",
            "Which size?",
            "cancels the turn",
            &digest,
            "Each of ",
        ] {
            assert!(page.contains(told), "{told} is not in\n{page}");
        }
    }
}

#[tokio::test]
async fn events_and_states_are_read_page_by_page() {
    let scene = scene().await;
    let stored = scene.stored().await;
    let (mut events, mut query, mut spans) = (Vec::new(), "events?limit=5".to_owned(), Vec::new());
    loop {
        let page = scene.get(&query, 200).await;
        let some = page["events"].as_array().unwrap().clone();
        assert!(some.len() <= 5);
        events.splice(0..0, some);
        spans.extend(page["spans"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_u64() else { break };
        query = format!("events?limit=5&cursor={cursor}");
    }
    assert_eq!(events.len(), stored.len());
    for (event, stored) in events.iter().zip(&stored) {
        for name in ["seq", "storedAt", "subject", "headers", "payload"] {
            let (told, known) = (&event[name], &stored[name]);
            let is_same = told == known || name == "storedAt" && same_moment(told, known);
            assert!(is_same, "{name}: {told} and {known}");
        }
    }
    let lanes: Vec<_> = events.iter().map(|event| event["lane"].as_str().unwrap()).collect();
    for lane in ["user", "edge", "worker", "model", "tools"] {
        assert!(lanes.contains(&lane), "{lane} is not in {lanes:?}");
    }
    let whole = scene.get("events?limit=200", 200).await;
    let labels: Vec<_> =
        whole["spans"].as_array().unwrap().iter().map(|span| span["label"].as_str().unwrap()).collect();
    for label in ["queued", "works", "thinks", "look", "pay", "decides", "fills in a form"] {
        assert!(labels.contains(&label), "{label} is not in {labels:?}");
    }
    for span in whole["spans"].as_array().unwrap() {
        assert!(span["endSeq"].is_u64(), "all of it is over: {span}");
    }

    // A page of states begins with the state before it, which equals a replay up to there.
    for pair in stored.windows(2) {
        let (before, seq) = (pair[0]["seq"].to_string(), pair[1]["seq"].clone());
        let (_, state) = scene.run(&["replay", &scene.session.conversation, "--state", "--until", &before]).await;
        let page = scene.get(&format!("states?limit=1&cursor={seq}"), 200).await;
        assert_eq!(page["base"], serde_json::from_str::<Value>(&state).unwrap());
        assert_eq!((page["steps"].as_array().unwrap().len(), &page["steps"][0]["seq"]), (1, &seq));
        let changed: Vec<_> =
            page["steps"][0]["changes"].as_array().unwrap().iter().map(|change| &change["path"]).collect();
        assert!(changed.contains(&&json!("/last_seq")), "{changed:?}");
    }
    let all = scene.get("states?limit=200", 200).await;
    assert_eq!(all["steps"].as_array().unwrap().len(), stored.len());
    assert_eq!(all["base"]["last_seq"], 0);
    for (what, status) in [("events?limit=x", 400), ("events?cursor=-1", 400), ("states?cursor=999999", 404)] {
        scene.get(what, status).await;
    }
    let elsewhere = elsewhere();
    for what in ["events", "states", "verification", "report"] {
        let path = format!("audit/conversations/{}/{what}", scene.session.conversation);
        assert_eq!(code(&expect(&scene.edge, "GET", &path, &elsewhere, None, 404).await), "NOT_FOUND");
        expect(&scene.edge, "GET", &path, &of_role("basic"), None, 403).await;
    }
}

fn same_moment(a: &Value, b: &Value) -> bool {
    let moment = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    moment(a) == moment(b)
}

#[tokio::test]
async fn forged_events_are_shown_and_reported() {
    let scene = scene().await;
    assert_eq!(scene.get("verification", 200).await["isIntact"], true);
    let before = scene.stored().await.len();
    let branch = scene.forge(|_| {}).await;
    let told = scene.get("verification", 200).await;
    assert_eq!((&told["isIntact"], &told["firstBroken"]), (&json!(false), &json!(branch)), "{told}");
    let report = scene.get("report", 200).await;
    assert_eq!(report["events"].as_array().unwrap().len(), before + 1, "the true last event and the forged one");
    // A message that is no event at all hides nothing.
    let nonsense = scene
        .forge(|event| {
            event["headers"]["ce-type"] = json!("turnstream.nothing");
            event["headers"].as_object_mut().unwrap().remove("ce-prev");
        })
        .await;
    let page = scene.get("events?limit=200", 200).await;
    let events = page["events"].as_array().unwrap();
    assert_eq!(events.len(), before + 2);
    assert_eq!(events.last().unwrap()["seq"], nonsense);
    assert!(events.last().unwrap()["problem"].is_string(), "{page:#}");
    let two = scene.get("events?limit=2", 200).await;
    assert_eq!((two["events"].as_array().unwrap().len(), &two["nextCursor"]), (2, &events[before - 1]["seq"]));
    assert_eq!(scene.get("verification", 200).await["broken"], 2);
    let report = scene.get("report", 200).await;
    assert_eq!((&report["chain"]["isIntact"], &report["totals"]["turns"]), (&json!(false), &json!(3)));
}

#[tokio::test]
async fn conversations_are_found_by_words_and_days() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.worker());
    let mut conversations = Vec::new();
    for (name, question) in [("ada", "Where is my order?"), ("bo", "What does it cost?")] {
        let somebody = token(json!({"sub": name, "email": format!("{name}@example.org")}));
        let mut client = Client::try_connect(handshake(&edge, &format!("?token={somebody}"), None)).await.unwrap();
        let session = client.open_session().await;
        client.ask(&session, "r1", question).await;
        conversations.push(session.conversation);
    }
    let curator = of_role("curator");
    let found = async |query: &str| {
        let list = expect(&edge, "GET", &format!("conversations?{query}"), &curator, None, 200).await;
        let ids = list["conversations"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let began = std::time::Instant::now();
    while found("").await.len() < 2 {
        assert!(began.elapsed() < crate::support::WAIT_MAX);
        tokio::task::yield_now().await;
    }
    let today = chrono::Utc::now().date_naive();
    let (ada, bo) = (&conversations[0], &conversations[1]);
    for (query, expected) in [
        ("q=ORDER".to_owned(), vec![ada]),
        ("q=bo@example".to_owned(), vec![bo]),
        (format!("q={ada}"), vec![ada]),
        ("q=nothing".to_owned(), vec![]),
        (format!("from={}&to={}", today.pred_opt().unwrap(), today.succ_opt().unwrap()), vec![bo, ada]),
        (format!("from={}", today + chrono::Days::new(2)), vec![]),
        (format!("to={}", today - chrono::Days::new(2)), vec![]),
        ("q=order&limit=1".to_owned(), vec![ada]),
    ] {
        assert_eq!(found(&query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    for query in ["from=yesterday", "to=2026-13-01"] {
        expect(&edge, "GET", &format!("conversations?{query}"), &curator, None, 400).await;
    }
}

#[tokio::test]
async fn the_auditors_page_is_public_and_holds_no_data() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let answer = send(&edge, "GET", "/audit", &[], None).await;
    assert_eq!(answer.status(), 200);
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let page = answer.text().await.unwrap();
    assert_eq!(page.matches("<script>").count(), 1, "the policy knows one script");
    for foreign in ["http:", "https:", "@import", "innerHTML", "eval("] {
        let known = page.matches("http://www.w3.org/2000/svg").count();
        let count = page.matches(foreign).count();
        assert_eq!(count, if foreign == "http:" { known } else { 0 }, "{foreign}");
    }
}

#[tokio::test]
async fn a_takeover_and_repeated_calls_are_reported() {
    let stage = Stage::start().await;
    let (release, held) = Tool::held("look", "seen");
    let provider = Provider::start(&stage.nats, vec![held.with("idempotent", "true")]).await;
    let (edge, mut first) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("look", "{}"));
    client.begin(&session, "r1", "look, please").await;
    provider.wait_for_calls(1).await;
    first.kill().await;
    let _second = stage.worker().await;
    provider.wait_for_calls(2).await;
    release.send_replace(true);
    client.turn("r1").await;

    let mut written =
        stage.run("audit", &["audit", "report", &session.conversation, "--json"], &[("RUST_LOG", "error")]);
    assert!(written.ended().await.success(), "{}", written.output());
    let report: Value = serde_json::from_str(&written.output()).unwrap();
    let turn = &report["turns"][0];
    let takeovers: Vec<_> = steps(turn, "claimed").iter().map(|claim| claim["isTakeover"].clone()).collect();
    assert_eq!(takeovers, [false, true]);
    let (called, returned) = (steps(turn, "tool_called"), steps(turn, "tool_returned"));
    assert_eq!((called.len(), &returned[0]["retries"], &returned[0]["result"]), (1, &json!(1), &json!("seen")));
    let keys: Vec<String> = provider.calls().into_iter().map(|call| call.id).collect();
    assert_eq!(keys, [called[0]["idempotencyKey"].as_str().unwrap(); 2]);
}

#[tokio::test]
async fn redacted_and_erased_values_are_not_shown() {
    let scene = scene().await;
    let curator = of_role("curator");
    let paths = ["events?limit=200", "states?limit=200", "report"]
        .map(|what| format!("audit/conversations/{}/{what}", scene.session.conversation));
    let redacting = [WITH_TOKENS[0], ("SMOOTH_AGENT_REDACT_ARGUMENTS", "pay.id")];
    let redacting = scene.stage.edge_with(&redacting).await;
    for path in &paths {
        let all = expect(&scene.edge, "GET", path, &curator, None, 200).await.to_string();
        assert!(all.contains("bill-7"), "{path}: {all}");
        let some = expect(&redacting, "GET", path, &curator, None, 200).await.to_string();
        assert!(some.contains("[redacted]") && !some.contains("bill-7"), "{path}: {some}");
    }
    let erase = ["erase", "--conversation", &scene.session.conversation, "--reason", "asked for it"];
    let (erased, said) = scene.run(&erase).await;
    assert!(erased, "{said}");
    let report = scene.get("report", 200).await;
    assert_eq!((&report["isErased"], &report["chain"]["isIntact"]), (&json!(true), &json!(true)));
    assert_eq!(scene.get("verification", 200).await["isIntact"], true);
    let page = scene.get("events?limit=200", 200).await;
    let events = page["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["isErased"] == true || event["kind"] == "turn.started"), "{page:#}");
    for path in &paths {
        let left = expect(&scene.edge, "GET", path, &curator, None, 200).await.to_string();
        for gone in ["bill-7", "Please pay", "ada@example.org", "It is paid"] {
            assert!(!left.contains(gone), "{path} tells of {gone}");
        }
    }
}
