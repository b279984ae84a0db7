//! A battery: tokens, pages, policies, roles and ids against every action and every route, on one deployment.
//!
//! Contract: each case has one expected code, and all wrong cases are reported together. Every private value contains the word
//! [`PLANTED`], which no answer to another user may contain. A request for another user's data is answered, frame for frame, like
//! a request for missing data.

mod admins;
mod origins;
mod pages;
mod strangers;
mod tokens;

use std::{collections::BTreeMap, fmt::Display};

use serde_json::{Value, json};

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    frames::{answer_text, code, kind, request_id},
    gateway::Reply,
    http::call,
    tools::{Provider, Tool},
};

use super::{identity::handshake, widgets::policies};

/// The word in all private values.
const PLANTED: &str = "planted";

/// The outcomes of all cases so far.
#[derive(Default)]
struct Battery {
    /// The number of cases of each part.
    cases: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
    /// Frames that disclosed a private value to another user.
    leaks: Vec<String>,
}

impl Battery {
    fn expect(&mut self, part: &'static str, case: impl Display, got: &str, wanted: &str) {
        *self.cases.entry(part).or_default() += 1;
        if got != wanted {
            self.wrong.push(format!("{part}: {case}: `{got}` instead of `{wanted}`"));
        }
    }

    /// Checks a frame for a user who may not see planted values.
    fn heard(&mut self, who: &str, said: &Value) {
        if said.to_string().contains(PLANTED) {
            self.leaks.push(format!("{who}: {said}"));
        }
    }

    /// Checks that two answers do not differ.
    fn same(&mut self, case: impl Display, of_other: &Value, of_nobody: &Value) {
        if of_other != of_nobody {
            self.leaks.push(format!("{case}: {of_other} and {of_nobody}"));
        }
    }
}

/// The deployment, with Ada's sessions and connector in the organisation acme.
struct World {
    stage: Stage,
    mild: Edge,
    strict: Edge,
    /// Ada's session with a conversation that waits for an approval.
    approval: Session,
    /// Ada's session with a conversation that waits for a form.
    form: Session,
    interaction: String,
    connector: String,
}

impl World {
    async fn start(stage: Stage, policies: &str) -> Self {
        let issuer = [
            ("AUTH_JWT_RS256_PUBLIC_KEY", tokens::RSA_PUBLIC),
            ("AUTH_JWT_ISSUER", tokens::ISSUER),
            ("AUTH_JWT_AUDIENCE", tokens::AUDIENCE),
            ("WIDGET_AUTH_FILE", policies),
            ("RUST_LOG", "turnstream=debug"),
        ];
        let strictly = [&issuer[..], &[("SMOOTH_AGENT_AUTH_STRICT", "1"), ("WIDGET_AUTH_STRICT", "1")]].concat();
        let (mild, strict) = tokio::join!(stage.edge_with(&issuer), stage.edge_with(&strictly));
        let mut ada = connect(&mild, &tokens::ada()).await;
        let approval = open(&mut ada, &[]).await;
        assert_eq!(answer_text(&ada.ask(&approval, "r1", "a planted question").await), "ok");
        let rename = json!({
            "action": "rename_conversation", "conversationId": approval.conversation, "title": "a planted title",
        });
        assert_eq!(ada.request(rename).await["status"], 200);
        stage.gateway.script(Reply::tool_call("pay", json!({"what": "a planted bill"})));
        ada.begin(&approval, "r2", "pay").await;
        ada.turn_until("r2", "write_confirmation_required").await;
        let form = open(&mut ada, &["identity_form"]).await;
        let asked = json!({"fields": ["email"], "reason": "a planted reason"});
        stage.gateway.script(Reply::tool_call("request_identity_intake", asked));
        ada.begin(&form, "r1", "a planted wish").await;
        let parked = ada.turn_until("r1", "interaction_required").await;
        let interaction = parked.last().unwrap()["data"]["data"]["interactionId"].as_str().unwrap().to_owned();
        let admin = tokens::signed(json!({"role": "admin"}));
        let connector = json!({"kind": "file", "path": "planted", "name": "planted", "documentSet": "planted"});
        let (status, made) = call(&mild, "POST", "/admin/connectors", Some(&admin), Some(&connector)).await;
        assert_eq!(status, 201, "{made}");
        let connector = made["connector"]["id"].as_str().unwrap().to_owned();
        let settings = json!({"persona": "a planted persona"});
        assert_eq!(call(&mild, "PUT", "/admin/settings", Some(&admin), Some(&settings)).await.0, 200);
        Self { stage, mild, strict, approval, form, interaction, connector }
    }
}

async fn connect(edge: &Edge, token: &str) -> Client {
    connect_with(edge, token, "").await
}

/// Connects with further query parameters.
async fn connect_with(edge: &Edge, token: &str, more: &str) -> Client {
    Client::try_connect(handshake(edge, &format!("?token={token}{more}"), None)).await.unwrap()
}

async fn open(client: &mut Client, supports: &[&str]) -> Session {
    let opened = client
        .request(json!({
            "action": "create_conversation_session", "agentId": "support", "userName": "planted name",
            "browserFingerprint": "planted", "metadata": {"note": "planted"}, "supports": supports,
        }))
        .await;
    let text = |name: &str| opened["data"][name].as_str().unwrap_or_else(|| panic!("{opened:#}")).to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

/// Sends an action and returns its answers: all frames with its requestId before the pong of a later ping.
async fn ask(client: &mut Client, mut action: Value) -> Vec<Value> {
    let id = uuid::Uuid::new_v4().to_string();
    let ping = format!("ping-{id}");
    action["requestId"] = json!(id);
    client.send(&action).await;
    client.send(&json!({"action": "ping", "requestId": ping})).await;
    let mut answers = Vec::new();
    loop {
        let frame = client.next().await;
        match request_id(&frame) {
            Some(known) if known == ping => return answers,
            Some(known) if known == id => answers.push(frame),
            _ => {}
        }
    }
}

/// Returns the code of an answer: an error's, a status, the type of another frame, or `nothing`.
fn outcome(answers: &[Value]) -> String {
    match answers.first() {
        None => "nothing".into(),
        Some(frame) if kind(frame) == "error" => code(frame).into(),
        Some(frame) if kind(frame) == "immediate_response" => frame["status"].to_string(),
        Some(frame) => kind(frame).into(),
    }
}

/// Returns answers without the fields that differ between any two.
fn plain(answers: &[Value]) -> Value {
    let mut answers = json!(answers);
    for frame in answers.as_array_mut().unwrap() {
        for place in ["/timestamp", "/requestId", "/data/requestId"] {
            if let Some(value) = frame.pointer_mut(place) {
                *value = Value::Null;
            }
        }
    }
    answers
}

#[tokio::test]
async fn users_reach_their_own_data_and_learn_nothing_of_others() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("pay", "paid").with("confirm", "true")]).await;
    let worker = stage.worker_with(&[("RUST_LOG", "turnstream=debug")]).await;
    let (_folder, path) = policies();
    let world = World::start(stage, &path).await;
    let mut battery = Battery::default();
    tokens::run(&world, &mut battery).await;
    pages::run(&world, &mut battery).await;
    strangers::run(&world, &mut battery).await;
    assert!(provider.calls().is_empty(), "a stranger had a tool called");
    admins::run(&world, &mut battery).await;
    strangers::owner(&world, &mut battery).await;
    origins::run(&world.stage, &path, &mut battery).await;

    let log = [world.mild.process.output(), world.strict.process.output(), worker.output()].concat();
    for said in [PLANTED, &world.approval.id, &world.form.id] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
        if !lines.is_empty() {
            battery.leaks.push(format!("in the log: {lines:#?}"));
        }
    }
    let Battery { cases, wrong, leaks } = battery;
    let total: usize = cases.values().sum();
    println!("{total} cases: {cases:?}; {} wrong, {} leaks", wrong.len(), leaks.len());
    assert!(wrong.is_empty() && leaks.is_empty(), "wrong: {wrong:#?}\nleaks: {leaks:#?}");
    assert!(total >= 1_500, "{cases:?}");
}
