//! Strangers against Ada's data: every action, with her ids and with ids that do not exist.

use serde_json::{Value, json};
use turnstream::ids;

use crate::support::{
    client::{Client, Session},
    frames::answer_text,
    http::call,
};

use super::{Battery, PLANTED, World, ask, connect, connect_with, outcome, plain, tokens};

/// Returns the tokens of users other than Ada.
fn strangers() -> Vec<(&'static str, String)> {
    let of = |changes: Value| tokens::signed(changes);
    vec![
        ("a colleague", of(json!({"sub": "eve", "email": "eve@acme.example"}))),
        ("a colleague without an address", of(json!({"sub": "eve", "email": null}))),
        ("a curator", of(json!({"sub": "carl", "email": "carl@acme.example", "role": "curator"}))),
        ("an administrator", of(json!({"sub": "root", "email": "root@acme.example", "role": "admin"}))),
        ("her address elsewhere", of(json!({"org": "globex"}))),
        ("an administrator elsewhere", of(json!({"sub": "root", "org": "globex", "role": "admin"}))),
        ("an anonymous visitor", String::new()),
    ]
}

/// Returns the actions that name a session, with the outcome for a missing one.
pub(super) fn of_session() -> Vec<(Value, &'static str)> {
    let act = |name: &str, fields: Value| {
        let mut action = json!({"action": name});
        action.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        action
    };
    const GONE: &str = "SESSION_NOT_FOUND";
    const WRONG: &str = "VALIDATION_ERROR";
    vec![
        (act("get_session", json!({})), GONE),
        (act("get_conversation_messages", json!({"limit": 100})), GONE),
        (act("get_conversation_messages", json!({"cursor": "m1-1"})), GONE),
        (act("get_conversation_messages", json!({"cursor": "garbage"})), WRONG),
        (act("send_message", json!({"message": "let me in"})), GONE),
        (act("send_message", json!({"message": "let me in", "stream": false, "model": "m"})), GONE),
        (act("send_message", json!({"message": " "})), WRONG),
        (act("confirm_tool_action", json!({"approved": true})), "NO_PENDING_CONFIRMATION"),
        (act("confirm_tool_action", json!({"approved": "yes"})), WRONG),
        (act("submit_interaction", json!({"interactionId": "x", "declined": true})), "NO_PENDING_INTERACTION"),
        (act("submit_interaction", json!({})), "NO_PENDING_INTERACTION"),
        (act("verify_otp", json!({"code": "123456"})), GONE),
        (act("verify_otp", json!({"code": ""})), WRONG),
        (act("resume_session", json!({})), GONE),
        (act("resume_session", json!({"seq": "garbage"})), WRONG),
        (act("cancel", json!({})), "nothing"),
    ]
}

pub(super) async fn run(world: &World, battery: &mut Battery) {
    for (who, token) in strangers() {
        let mut stranger = connect_with(&world.mild, &token, "&v=resume").await;
        sessions(world, battery, who, &mut stranger).await;
        conversations(world, battery, who, &mut stranger).await;
        let mut stranger = connect(&world.mild, &token).await;
        own(world, battery, who, &mut stranger).await;
    }
    widgets(world, battery).await;
}

async fn sessions(world: &World, battery: &mut Battery, who: &str, stranger: &mut Client) {
    let hers = [&world.approval.id, &world.form.id, &world.approval.conversation];
    for (action, wanted) in of_session() {
        let (mut of_nobody, mut action) = (None, action);
        let nobodys = [ids::new_homed(0).to_string(), ids::new_homed(9).to_string(), uuid::Uuid::new_v4().to_string()];
        for id in nobodys.iter().map(String::as_str).chain(["no-id"]).chain(hers.map(String::as_str)) {
            action["sessionId"] = json!(id);
            if action["interactionId"].is_string() {
                action["interactionId"] = json!(world.interaction);
            }
            let answers = ask(stranger, action.clone()).await;
            battery.expect("strangers at sessions", format!("{who}: {action}"), &outcome(&answers), wanted);
            battery.heard(who, &json!(answers));
            let answers = plain(&answers);
            battery.same(format!("{who}: {action}"), &answers, of_nobody.get_or_insert_with(|| answers.clone()));
        }
    }
}

async fn conversations(world: &World, battery: &mut Battery, who: &str, stranger: &mut Client) {
    let nobodys = [ids::new_homed(0).to_string(), uuid::Uuid::new_v4().to_string(), "no-id".to_owned()];
    let hers = [&world.approval.conversation, &world.form.conversation, &world.approval.id];
    let mut of_nobody = None;
    for id in nobodys.iter().chain(hers) {
        let rename = json!({"action": "rename_conversation", "conversationId": id, "title": "mine"});
        let answers = ask(stranger, rename).await;
        battery.expect("strangers at conversations", who, &outcome(&answers), "CONVERSATION_NOT_FOUND");
        let answers = plain(&answers);
        battery.same(format!("{who}: rename {id}"), &answers, of_nobody.get_or_insert_with(|| answers.clone()));

        let email = json!("ada@acme.example");
        let resume = json!({"action": "create_conversation_session", "conversationId": id, "userEmail": email});
        let answers = ask(stranger, resume).await;
        battery.expect("strangers at conversations", who, &outcome(&answers), "200");
        battery.heard(who, &json!(answers));
        let fresh = answers[0]["data"]["conversationId"].as_str().unwrap_or_default();
        battery.expect("strangers at conversations", who, if fresh == id { "hers" } else { "fresh" }, "fresh");
    }
}

/// Checks that a stranger's own conversations and lists contain none of Ada's values.
async fn own(world: &World, battery: &mut Battery, who: &str, stranger: &mut Client) {
    for action in [
        json!({"action": "list_conversations"}),
        json!({"action": "list_conversations", "query": PLANTED}),
        json!({"action": "list_conversations", "limit": 200, "query": ""}),
    ] {
        let answers = ask(stranger, action.clone()).await;
        battery.expect("strangers' own", format!("{who}: {action}"), &outcome(&answers), "200");
        battery.heard(who, &json!(answers));
    }
    let created = stranger.request(json!({"action": "create_conversation_session", "agentId": "support"})).await;
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    let session = Session { id: text("sessionId"), conversation: text("conversationId") };
    let asked = stranger.ask(&session, &format!("own-{}", session.id), "what do you know of Ada?").await;
    battery.heard(who, &json!(asked));
    battery.expect("strangers' own", who, answer_text(&asked), "ok");
    let request = world.stage.gateway.requests().pop().unwrap();
    // Ada's colleagues share her organisation's agent, and with it its persona.
    let mut request = request.to_string();
    request = request.replace("a planted persona", "");
    battery.heard(who, &json!(request));
}

/// Checks the requests of widgets over plain HTTP.
async fn widgets(world: &World, battery: &mut Battery) {
    let nobodys = ids::new_homed(0).to_string();
    for (path, fields) in [
        ("identity/request-otp", json!({"email": "ada@acme.example", "channel": "email"})),
        ("identity/verify-otp", json!({"email": "ada@acme.example", "code": "123456"})),
        ("identity/resolve", json!({"email": "ada@acme.example"})),
    ] {
        let mut said = Vec::new();
        for id in [&nobodys, &world.approval.id, &world.form.id, &"no-id".to_owned()] {
            let mut body = json!({"agentId": "support", "sessionId": id});
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let (status, answer) = call(&world.mild, "POST", &format!("/internal/{path}"), None, Some(&body)).await;
            battery.expect("widgets", format!("{path} {id}"), &status.to_string(), "404");
            said.push(plain(&[answer]));
        }
        said.iter().for_each(|answer| battery.same(path, answer, &said[0]));
    }
    for print in ["planted", "unknown"] {
        let body = json!({"agentId": "support", "browserFingerprint": print});
        let (status, answer) = call(&world.mild, "POST", "/internal/resume-by-fingerprint", None, Some(&body)).await;
        battery.expect("widgets", print, &format!("{status} {}", answer["reason"]), "200 \"no_prior_visit\"");
        battery.heard("a widget", &answer);
    }
}

/// Checks that Ada finds everything unchanged, on both edges and with any spelling of her address.
pub(super) async fn owner(world: &World, battery: &mut Battery) {
    let approval = json!(world.approval.id);
    let spelled = tokens::signed(json!({"sub": "ada-2", "email": " ADA@acme.example "}));
    for (edge, token) in [(&world.strict, tokens::ada()), (&world.mild, spelled)] {
        let mut ada = connect(edge, &token).await;
        for (action, wanted) in [
            (json!({"action": "get_session", "sessionId": approval}), "200"),
            (json!({"action": "get_conversation_messages", "sessionId": approval}), "200"),
            (json!({"action": "list_conversations"}), "200"),
            (
                json!({"action": "submit_interaction", "sessionId": approval, "declined": true}),
                "NO_PENDING_INTERACTION",
            ),
            (
                json!({"action": "confirm_tool_action", "sessionId": world.form.id, "approved": true}),
                "NO_PENDING_CONFIRMATION",
            ),
            (
                json!({"action": "submit_interaction", "sessionId": world.form.id, "interactionId": "x"}),
                "INTERACTION_MISMATCH",
            ),
            (json!({"action": "verify_otp", "sessionId": approval, "code": "123456"}), "otp_invalid"),
            (json!({"action": "resume_session", "sessionId": approval}), "UNSUPPORTED_ACTION"),
        ] {
            let answers = ask(&mut ada, action.clone()).await;
            battery.expect("the owner", action, &outcome(&answers), wanted);
        }
        let texts = ada.history(&world.approval).await;
        battery.expect("the owner", "history", &texts.join(", "), "a planted question, ok, pay");
    }
    let mut ada = connect(&world.mild, &tokens::ada()).await;
    let list = ask(&mut ada, json!({"action": "list_conversations", "query": "planted title"})).await;
    let listed = list[0]["data"]["conversations"][0]["conversationId"].as_str().unwrap_or_default().to_owned();
    battery.expect("the owner", "list", &listed, &world.approval.conversation);
    let submit = json!({
        "action": "submit_interaction", "sessionId": world.form.id, "interactionId": world.interaction, "declined": true,
    });
    for (action, wanted) in [
        (json!({"action": "confirm_tool_action", "sessionId": approval, "approved": false}), "200"),
        (submit.clone(), "200"),
        (submit, "NO_PENDING_INTERACTION"),
        (json!({"action": "cancel", "sessionId": ids::new_homed(0)}), "nothing"),
    ] {
        let answers = ask(&mut ada, action.clone()).await;
        battery.expect("the owner", action, &outcome(&answers), wanted);
    }
}
