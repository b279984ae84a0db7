//! MCP servers that ask the visitor in the middle of a call, in both forms of the protocol, and servers that make tasks of calls.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::{answer_text, code, kind, kinds},
        gateway::Reply,
        processes::Process,
        schema,
    },
    tool_calls::{calls, results_for_the_model},
};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/mcp_asking_server.py");
/// A server that knows the current revision alone, and one that knows the handshake of earlier ones alone.
const REVISIONS: [&str; 2] = ["current", "earlier"];
const DECLINED: &str = "was told that it is declined";

/// A stage with a worker, an MCP server that asks, and a client.
struct Scene {
    stage: Stage,
    files: TempDir,
    more: Value,
    edge: Edge,
    worker: Process,
    client: Client,
    session: Session,
}

async fn scene(revision: &str, supports: &[&str], more: Value) -> Scene {
    let files = tempfile::tempdir().unwrap();
    let mut server = json!({
        "command": "python3", "args": [SERVER],
        "env": { "REVISION": revision, "STATE": files.path().to_str().unwrap() },
    });
    server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.as_object_mut().unwrap().remove("humanWaitSecs");
    let config = json!({ "mcpServers": { "srv": server } }).to_string();
    std::fs::write(files.path().join("mcp.json"), config).unwrap();
    let stage = Stage::start().await;
    let (edge, worker) = tokio::join!(stage.edge(), worker(&stage, &files, &more));
    let mut client = Client::connect(&edge).await;
    let session = session_that_supports(&mut client, supports).await;
    Scene { stage, files, more, edge, worker, client, session }
}

async fn worker(stage: &Stage, files: &TempDir, more: &Value) -> Process {
    let config = files.path().join("mcp.json");
    let path = std::env::var("PATH").unwrap();
    let variables = [
        ("SMOOTH_AGENT_MCP_CONFIG", config.to_str().unwrap()),
        ("SMOOTH_AGENT_HUMAN_WAIT_SECS", more["humanWaitSecs"].as_str().unwrap_or("604800")),
        ("RUST_LOG", "info,turnstream::tools::mcp=debug"),
        ("PATH", path.as_str()),
    ];
    let mut worker = stage.worker_with(&variables).await;
    worker.line(|line| line.contains("tools of an MCP server")).await;
    worker
}

async fn session_that_supports(client: &mut Client, capabilities: &[&str]) -> Session {
    let created = client.request(json!({ "action": "create_conversation_session", "supports": capabilities })).await;
    let text = |name: &str| created["data"][name].as_str().unwrap().to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

const FORMS: &[&str] = &["elicitation_form"];

impl Scene {
    async fn of(revision: &str) -> Self {
        scene(revision, FORMS, json!({})).await
    }

    /// Begins a turn in which the model calls this tool.
    async fn begin(&mut self, id: &str, tool: &str, arguments: Value) {
        self.stage.gateway.script(Reply::tool_call(&format!("srv__{tool}"), arguments));
        self.client.begin(&self.session, id, "do it").await;
    }

    /// The next prompt of a turn.
    async fn prompt(&mut self, id: &str) -> Value {
        let frames = self.client.turn_until(id, "interaction_required").await;
        let prompt = frames.last().unwrap()["data"]["data"].clone();
        assert_eq!(prompt["kind"], "elicitation");
        prompt
    }

    async fn submit(&mut self, prompt: &Value, more: Value) -> Value {
        submit(&mut self.client, &self.session, prompt, more).await
    }

    /// The rest of a turn; returns the model's view of its call.
    async fn result(&mut self, id: &str) -> String {
        assert_eq!(answer_text(&self.client.turn(id).await), "ok");
        results_for_the_model(&self.stage).pop().unwrap()
    }

    /// A whole turn with one call without questions.
    async fn result_of(&mut self, id: &str, tool: &str, arguments: Value) -> String {
        self.begin(id, tool, arguments).await;
        self.result(id).await
    }

    /// Replaces edge, worker with its MCP server, and nats-server, which starts again on its store.
    async fn replace_everything(&mut self) {
        tokio::join!(self.worker.kill(), self.edge.process.kill());
        self.stage.nats.kill().await;
        self.stage.nats.restart().await;
        let (edge, worker) = tokio::join!(self.stage.edge(), worker(&self.stage, &self.files, &self.more));
        (self.edge, self.worker) = (edge, worker);
        self.client = Client::connect(&self.edge).await;
        self.session = self.client.resume(&self.session.conversation).await;
    }

    fn count(&self, words: &str) -> usize {
        self.worker.output().lines().filter(|line| line.contains(words)).count()
    }
}

async fn submit(client: &mut Client, session: &Session, prompt: &Value, more: Value) -> Value {
    client.request(submission(session, prompt, more)).await
}

fn submission(session: &Session, prompt: &Value, more: Value) -> Value {
    let mut action = json!({
        "action": "submit_interaction", "sessionId": session.id, "interactionId": prompt["interactionId"], "kind": prompt["kind"],
    });
    action.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    action
}

fn values(values: Value) -> Value {
    json!({ "values": values })
}

/// The question is asked, every process is replaced, and only then it is answered.
#[tokio::test]
async fn a_question_of_a_server_outlives_all_processes() {
    for revision in REVISIONS {
        let mut s = Scene::of(revision).await;
        s.begin("r1", "look_up", json!({ "who": "Ada" })).await;
        let first = s.client.turn_until("r1", "interaction_required").await;
        assert_eq!(kinds(&first), ["stream_chunk", "interaction_required"], "{revision}");
        let prompt = first[1]["data"]["data"].clone();
        assert_eq!((&prompt["kind"], &prompt["reason"]), (&json!("elicitation"), &json!("The name of Ada?")));
        let field = json!({ "key": "name", "required": true, "label": "name", "type": "text" });
        assert_eq!(prompt["spec"], json!({ "fields": [field] }));

        s.replace_everything().await;
        assert_eq!(s.prompt("r1").await, prompt, "it is shown again");
        let mut wrong = submission(&s.session, &prompt, values(json!({ "name": 7 })));
        wrong["requestId"] = json!("s1");
        s.client.send(&wrong).await;
        assert_eq!(kind(&s.client.next().await), "interaction_invalid");
        let submitted = s.submit(&prompt, values(json!({ "name": "Lovelace" }))).await;
        assert_eq!(submitted["message"], "Interaction submitted", "{submitted:#}");
        assert_eq!(s.result("r1").await, r#"found for Ada: accept {"name": "Lovelace"}"#, "{revision}");
        assert_eq!(s.client.terminals("r1"), 1);
        schema::log(&s.stage.nats).await;
    }
}

/// A tool that must not be called twice is called again with its server's state, once for each answer.
#[tokio::test]
async fn questions_come_one_after_another_and_several_at_once() {
    let mut s = Scene::of("current").await;
    s.begin("r1", "book", json!({})).await;
    let day = s.prompt("r1").await;
    assert_eq!(day["spec"]["fields"][0]["format"], "date");
    s.submit(&day, values(json!({ "day": "2026-12-24" }))).await;
    let area = s.prompt("r1").await;
    assert_eq!(area["reason"], "Where?");
    s.submit(&area, values(json!({ "outside": true }))).await;
    s.replace_everything().await;
    let size = s.prompt("r1").await;
    assert_eq!(size["spec"]["fields"][0]["options"][1], json!({ "value": "l", "label": "Large" }));
    s.submit(&size, values(json!({ "size": "Large" }))).await;
    let expected = r#"booked: accept {"day": "2026-12-24"}; accept {"outside": true}; accept {"size": "l"}"#;
    assert_eq!(s.result("r1").await, expected);
    assert_eq!(s.count("called book"), 1, "the last of three calls, by the second worker");
    schema::log(&s.stage.nats).await;
}

/// In the earlier form the call is made from its beginning each time, and its earlier questions are answered from the log.
#[tokio::test]
async fn earlier_questions_are_answered_from_the_log() {
    let mut s = scene("earlier", FORMS, json!({ "idempotent": ["book"] })).await;
    s.begin("r1", "book", json!({})).await;
    let answers = [json!({ "day": "2026-12-24" }), json!({ "outside": false }), json!({ "size": "s" })];
    for answer in answers {
        let prompt = s.prompt("r1").await;
        s.submit(&prompt, values(answer)).await;
    }
    let expected = r#"booked: accept {"day": "2026-12-24"}; accept {"outside": false}; accept {"size": "s"}"#;
    assert_eq!(s.result("r1").await, expected);
}

#[tokio::test]
async fn a_persons_no_and_no_answer_are_given_back() {
    for revision in REVISIONS {
        let mut s = Scene::of(revision).await;
        s.begin("r1", "look_up", json!({})).await;
        let prompt = s.prompt("r1").await;
        s.submit(&prompt, json!({ "declined": true })).await;
        assert_eq!(s.result("r1").await, "found for you: decline");
        let late = s.submit(&prompt, values(json!({ "name": "x" }))).await;
        assert_eq!(code(&late), "NO_PENDING_INTERACTION");

        let mut s = scene(revision, FORMS, json!({ "humanWaitSecs": "1" })).await;
        s.begin("r1", "look_up", json!({})).await;
        s.prompt("r1").await;
        assert_eq!(s.result("r1").await, "found for you: cancel", "{revision}");
    }
}

#[tokio::test]
async fn a_question_that_no_form_can_show_is_declined_at_once() {
    let schemas = [
        "huge_message",
        "huge_schema",
        "nested",
        "list",
        "no_schema",
        "null_schema",
        "no_message",
        "url",
        "text",
        "many",
    ];
    for revision in REVISIONS {
        let mut s = Scene::of(revision).await;
        for case in schemas {
            // A request with a text for parameters is no message of the protocol, and is never answered.
            if revision == "earlier" && ["many", "text"].contains(&case) {
                continue;
            }
            let result = s.result_of(case, "odd", json!({ "case": case })).await;
            assert!(result.starts_with("odd: decline") && result.contains(DECLINED), "{revision} {case}: {result}");
        }
    }
    let mut s = Scene::of("current").await;
    for (case, words) in [
        ("sampling", "asks for a reply of a model"),
        ("roots", "asks for a reply of a model"),
        ("huge_state", "asks for more input than can be given"),
        ("nothing_but_state", "asks for more and more input"),
    ] {
        let result = s.result_of(case, "odd", json!({ "case": case })).await;
        assert!(result.contains(words), "{case}: {result}");
    }
    assert_eq!(s.result_of("state", "odd", json!({ "case": "only_state" })).await, "odd: at last");
}

/// A call that must not be made a second time can't wait for an answer, unless its server gives a state for that.
#[tokio::test]
async fn a_call_that_must_not_be_repeated_is_not_repeated() {
    let mut s = Scene::of("current").await;
    let result = s.result_of("r1", "order", json!({})).await;
    assert!(result.contains("must not be made a second time"), "{result}");
    assert_eq!(s.count("called order"), 1);
    let mut s = Scene::of("earlier").await;
    let result = s.result_of("r1", "order", json!({})).await;
    assert!(result.starts_with("ordered: decline") && result.contains(DECLINED), "{result}");
    assert_eq!(s.count("called order"), 1);
}

#[tokio::test]
async fn a_server_that_asks_without_end_is_declined_in_the_end() {
    for (revision, words) in [("current", "asks for more and more input"), ("earlier", "endless: declined after 8")] {
        let mut s = Scene::of(revision).await;
        s.begin("r1", "endless", json!({})).await;
        for n in 0..8 {
            let prompt = s.prompt("r1").await;
            assert_eq!(prompt["reason"], format!("And now {n}?"));
            s.submit(&prompt, values(json!({ "outside": true }))).await;
        }
        let result = s.result("r1").await;
        assert!(result.contains(words), "{revision}: {result}");
    }
}

/// A visitor's client sees nothing but its question.
#[tokio::test]
async fn an_error_after_an_answer_is_the_result_of_the_call() {
    for revision in REVISIONS {
        let mut s = Scene::of(revision).await;
        s.begin("r1", "fails", json!({})).await;
        let prompt = s.prompt("r1").await;
        s.submit(&prompt, values(json!({ "name": "Ada" }))).await;
        let result = s.result("r1").await;
        assert!(result.starts_with("Error: "), "{revision}: {result}");
    }
}

/// On a shared connection of an earlier revision a question names no call: each visitor is asked their own all the same.
#[tokio::test]
async fn two_visitors_who_are_asked_at_once_are_asked_their_own_questions() {
    for revision in REVISIONS {
        let mut s = Scene::of(revision).await;
        let mut other = Client::connect(&s.edge).await;
        let theirs = session_that_supports(&mut other, FORMS).await;
        s.begin("r1", "look_up", json!({ "who": "Ada" })).await;
        s.client.turn_until("r1", "stream_chunk").await;
        s.stage.gateway.script(Reply::tool_call("srv__look_up", json!({ "who": "Bob" })));
        other.begin(&theirs, "o1", "do it").await;
        let of_ada = s.prompt("r1").await;
        let of_bob = other.turn_until("o1", "interaction_required").await.pop().unwrap()["data"]["data"].clone();
        assert_eq!(of_ada["reason"], "The name of Ada?");
        assert_eq!(of_bob["reason"], "The name of Bob?");
        submit(&mut other, &theirs, &of_bob, values(json!({ "name": "B" }))).await;
        assert_eq!(answer_text(&other.turn("o1").await), "ok");
        assert_eq!(results_for_the_model(&s.stage).pop().unwrap(), r#"found for Bob: accept {"name": "B"}"#);
        s.submit(&of_ada, values(json!({ "name": "A" }))).await;
        assert_eq!(s.result("r1").await, r#"found for Ada: accept {"name": "A"}"#);
    }
}

#[tokio::test]
async fn calls_that_ask_at_once_in_one_turn_are_all_asked_about() {
    for revision in REVISIONS {
        let mut s = Scene::of(revision).await;
        let list = [
            ("srv__look_up", json!({ "who": "A" })),
            ("srv__add", json!({ "a": 1, "b": 2 })),
            ("srv__look_up", json!({ "who": "B" })),
        ];
        s.stage.gateway.script(calls(&list));
        s.client.begin(&s.session, "r1", "do all").await;
        for who in ["A", "B"] {
            let prompt = s.prompt("r1").await;
            assert_eq!(prompt["reason"], format!("The name of {who}?"));
            s.submit(&prompt, values(json!({ "name": who }))).await;
        }
        s.result("r1").await;
        let of = |who: &str| format!(r#"found for {who}: accept {{"name": "{who}"}}"#);
        assert_eq!(results_for_the_model(&s.stage), [of("A"), "3".into(), of("B")]);
    }
}

#[tokio::test]
async fn a_question_ends_with_its_turn() {
    for revision in REVISIONS {
        let mut s = Scene::of(revision).await;
        s.begin("r1", "look_up", json!({})).await;
        let prompt = s.prompt("r1").await;
        s.client.send(&json!({ "action": "cancel", "sessionId": s.session.id })).await;
        assert_eq!(kinds(&s.client.turn("r1").await).last(), Some(&"cancelled"));
        let late = s.submit(&prompt, values(json!({ "name": "x" }))).await;
        assert_eq!(code(&late), "NO_PENDING_INTERACTION");
        assert_eq!(answer_text(&s.client.ask(&s.session, "r2", "hello").await), "ok");
    }
}

/// A client without the form: the model asks, the visitor answers in a message, and the same call goes on.
#[tokio::test]
async fn a_client_without_forms_is_asked_in_words() {
    for (revision, tool) in [("current", "look_up"), ("earlier", "look_up"), ("current", "book")] {
        let mut s = scene(revision, &["choice_chips"], json!({})).await;
        s.begin("r1", tool, json!({})).await;
        let told: Value = serde_json::from_str(&s.result("r1").await).unwrap();
        assert_eq!(told["status"], "not_done_yet", "{told:#}");
        let (question, answer, expected) = match tool {
            "book" => ("Which day?", json!({ "day": "2026-12-24" }), "Where?"),
            _ => ("The name of you?", json!({ "name": "Ada" }), r#"found for you: accept {"name": "Ada"}"#),
        };
        assert_eq!(told["message"], question);
        s.replace_everything().await;
        s.stage.gateway.script(Reply::tool_call("submit_interaction", values(json!({}))));
        s.client.ask(&s.session, "r2", "hm").await;
        assert!(results_for_the_model(&s.stage)[0].contains("this field is required"));
        s.stage.gateway.script(Reply::tool_call("submit_interaction", values(answer)));
        s.client.ask(&s.session, "r3", "here you are").await;
        let result = results_for_the_model(&s.stage).pop().unwrap();
        assert!(result.contains(expected), "{revision} {tool}: {result}");
        if tool == "book" {
            for (id, more) in [("r4", values(json!({ "outside": true }))), ("r5", json!({ "declined": true }))] {
                s.stage.gateway.script(Reply::tool_call("submit_interaction", more));
                s.client.ask(&s.session, id, "and").await;
            }
            let result = results_for_the_model(&s.stage).pop().unwrap();
            assert_eq!(result, r#"booked: accept {"day": "2026-12-24"}; accept {"outside": true}; decline"#);
        }
        s.stage.gateway.script(Reply::tool_call("submit_interaction", values(json!({}))));
        s.client.ask(&s.session, "r9", "again").await;
        let over = results_for_the_model(&s.stage).pop().unwrap();
        assert!(over.contains("There is no tool") || over.contains("Nothing was asked"), "{over}");
        schema::log(&s.stage.nats).await;
    }
}

#[tokio::test]
async fn an_approval_comes_before_the_question_of_its_call() {
    let mut s = scene("current", FORMS, json!({ "confirm": ["book"] })).await;
    s.begin("r1", "book", json!({})).await;
    s.client.turn_until("r1", "write_confirmation_required").await;
    assert_eq!(s.count("called book"), 0);
    s.client.confirm(&s.session, true).await;
    let prompt = s.prompt("r1").await;
    assert_eq!(code(&s.client.confirm(&s.session, true).await), "NO_PENDING_CONFIRMATION");
    s.submit(&prompt, json!({ "declined": true })).await;
    for _ in 0..2 {
        let prompt = s.prompt("r1").await;
        s.submit(&prompt, json!({ "declined": true })).await;
    }
    assert_eq!(s.result("r1").await, "booked: decline; decline; decline");
}

/// A task outlives the worker that began it and the time of a call, and is called once.
#[tokio::test]
async fn a_task_is_asked_for_by_whichever_worker_goes_on() {
    let mut s = scene("current", &[], json!({ "timeoutMs": 1_000 })).await;
    s.begin("r1", "work", json!({})).await;
    s.worker.line(|line| line.contains("looked at work")).await;
    assert_eq!(s.count("called work "), 1);
    s.replace_everything().await;
    s.worker.line(|line| line.contains("looked at work")).await;
    assert_eq!(code(&s.client.say(&s.session, "r2", "hello?").await), "TURN_IN_PROGRESS");
    std::fs::write(s.files.path().join("done"), "").unwrap();
    assert_eq!(s.result("r1").await, "worked");
    assert_eq!(s.count("called work "), 0, "the second worker calls nothing");
    schema::log(&s.stage.nats).await;
}

#[tokio::test]
async fn a_task_asks_fails_and_is_cancelled() {
    let mut s = scene("current", FORMS, json!({ "timeoutMs": 1_000 })).await;
    let failed = s.result_of("r1", "work_fails", json!({})).await;
    assert_eq!(failed, "Error: The tool failed.");
    s.begin("r2", "work_asks", json!({})).await;
    let prompt = s.prompt("r2").await;
    s.replace_everything().await;
    s.prompt("r2").await;
    s.submit(&prompt, values(json!({ "name": "Ada" }))).await;
    assert_eq!(s.result("r2").await, r#"worked: accept {"name": "Ada"}"#);

    s.begin("r3", "work", json!({})).await;
    s.worker.line(|line| line.contains("looked at work ")).await;
    s.client.send(&json!({ "action": "cancel", "sessionId": s.session.id })).await;
    assert_eq!(kinds(&s.client.turn("r3").await).last(), Some(&"cancelled"));
    s.worker.line(|line| line.contains("cancelled task work")).await;
}
