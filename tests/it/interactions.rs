//! Rich interactions: parked forms and the same questions in words, over reconnects and a worker's death.

use serde_json::{Value, json};

use crate::support::{
    Stage,
    client::{Client, Session},
    frames::{answer_text, code, kind, kinds, tool_activity},
    gateway::Reply,
    schema,
};

const IDENTITY: &str =
    r#"{"fields": ["email", {"key": "phone", "required": false}], "reason": "to send you the receipt"}"#;

fn choices() -> Value {
    json!({ "questions": [{
        "question": "Which size?", "header": "Size", "options": [{ "label": "M" }, { "label": "L", "description": "large" }],
    }] })
}

fn submit(session: &Session, prompt: &Value, more: Value) -> Value {
    let mut action = json!({
        "action": "submit_interaction", "sessionId": session.id, "interactionId": prompt["interactionId"], "kind": prompt["kind"],
    });
    action.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    action
}

/// Returns the last tool result that the model got.
fn last_result(stage: &Stage) -> Value {
    let requests = stage.gateway.requests();
    let messages = requests.last().unwrap()["messages"].as_array().unwrap().clone();
    let result = messages.iter().rfind(|message| message["role"] == "tool").unwrap();
    serde_json::from_str(result["content"].as_str().unwrap()).unwrap()
}

async fn session_that_supports(client: &mut Client, capabilities: &[&str]) -> Session {
    let created = client.request(json!({ "action": "create_conversation_session", "supports": capabilities })).await;
    let text = |name: &str| created["data"][name].as_str().unwrap().to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

#[tokio::test]
async fn a_form_outlives_worker_edge_and_client_and_is_checked() {
    let stage = Stage::start().await;
    stage.gateway.script(Reply::tool_call("request_identity_intake", IDENTITY).with_text("One thing. "));
    stage.gateway.script(Reply::text("thank you"));
    let (mut edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let first = session_that_supports(&mut client, &["identity_form"]).await;
    client.begin(&first, "r1", "send me the receipt").await;
    let parked = client.turn_until("r1", "stream_chunk").await;
    assert_eq!(kinds(&parked), ["stream_token", "interaction_required", "stream_chunk"]);
    let prompt = parked[parked.len() - 2]["data"]["data"].clone();
    assert_eq!(prompt["kind"], "identity_intake");
    assert_eq!(prompt["reason"], "to send you the receipt");
    assert_eq!(prompt["spec"]["fields"][0], json!({ "key": "email", "required": true }));
    tokio::join!(worker.kill(), edge.process.kill());
    drop(client);

    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let second = client.resume(&first.conversation).await;
    let again = client.turn_until("r1", "stream_chunk").await;
    assert_eq!(again[0]["data"]["data"], prompt);
    assert_eq!(code(&client.confirm(&second, true).await), "NO_PENDING_CONFIRMATION");
    let other = json!({ "interactionId": second.id, "values": {} });
    assert_eq!(code(&client.request(submit(&second, &prompt, other)).await), "INTERACTION_MISMATCH");
    let kind_of = json!({ "kind": "choices", "values": {} });
    assert_eq!(code(&client.request(submit(&second, &prompt, kind_of)).await), "INTERACTION_MISMATCH");
    assert_eq!(code(&client.request(submit(&second, &prompt, json!({}))).await), "VALIDATION_ERROR");
    let mut wrong = submit(&second, &prompt, json!({ "values": { "email": "nobody", "phone": "12" } }));
    wrong["requestId"] = json!("s1");
    client.send(&wrong).await;
    let invalid = client.next().await;
    assert_eq!((kind(&invalid), &invalid["requestId"]), ("interaction_invalid", &json!("s1")));
    let fields: Vec<_> = invalid["data"]["data"]["errors"].as_array().unwrap().iter().map(|e| &e["field"]).collect();
    assert_eq!(fields, ["email", "phone"]);

    let right = json!({ "values": { "email": "Ada@Example.ORG", "phone": "555-010-2030" } });
    let submitted = client.request(submit(&second, &prompt, right)).await;
    assert_eq!(submitted["message"], "Interaction submitted", "{submitted:#}");
    let values = json!({ "email": "Ada@example.org", "phone": "+15550102030" });
    assert_eq!(submitted["data"]["values"], values);
    let _worker = stage.worker().await;
    let rest = client.turn("r1").await;
    assert_eq!(answer_text(&rest), "thank you");
    assert_eq!(last_result(&stage), json!({ "status": "submitted", "values": values }));
    let late = client.request(submit(&second, &prompt, json!({ "declined": true }))).await;
    assert_eq!(code(&late), "NO_PENDING_INTERACTION");
    assert_eq!(client.terminals("r1"), 1);
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn choices_are_shown_declined_and_expire() {
    let stage = Stage::start().await;
    let human_wait = [("SMOOTH_AGENT_HUMAN_WAIT_SECS", "2")];
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = session_that_supports(&mut client, &["choice_chips"]).await;
    stage.gateway.script(Reply::tool_call("request_choices", choices()));
    client.begin(&session, "r1", "a shirt, please").await;
    let parked = client.turn_until("r1", "interaction_required").await;
    let prompt = parked.last().unwrap()["data"]["data"].clone();
    assert_eq!(prompt["reason"], "to help you better");
    assert_eq!(prompt["spec"]["questions"][0]["options"][0], json!({ "label": "M", "description": "" }));
    let declined = client.request(submit(&session, &prompt, json!({ "declined": true }))).await;
    assert_eq!(
        (declined["message"].as_str(), &declined["data"]["declined"]),
        (Some("Interaction declined"), &json!(true))
    );
    assert_eq!(answer_text(&client.turn("r1").await), "ok");
    assert_eq!(last_result(&stage)["status"], "declined");

    worker.kill().await;
    let _worker = stage.worker_with(&human_wait).await;
    stage.gateway.script(Reply::tool_call("request_choices", choices()));
    assert_eq!(answer_text(&client.ask(&session, "r2", "another one").await), "ok");
    assert_eq!(last_result(&stage)["status"], "no_response");

    stage.gateway.script(Reply::tool_call("request_choices", json!({ "questions": [] })));
    let malformed = client.ask(&session, "r3", "and one more").await;
    assert!(tool_activity(&malformed)[1].starts_with("error "), "{malformed:#?}");
}

#[tokio::test]
async fn without_forms_the_model_asks_in_words_under_the_same_checks() {
    let stage = Stage::start().await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("request_identity_intake", IDENTITY));
    stage.gateway.script(Reply::text("What is your e-mail address?"));
    let asked = client.ask(&session, "r1", "send me the receipt").await;
    assert_eq!(answer_text(&asked), "What is your e-mail address?");
    assert!(!kinds(&asked).contains(&"interaction_required"));
    assert_eq!(last_result(&stage)["status"], "ask_in_words");
    let offered = |request: &Value| -> Vec<String> {
        let tools = request["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let requests = stage.gateway.requests();
    assert!(!offered(&requests[0]).contains(&"submit_interaction".to_owned()));
    assert!(offered(&requests[1]).contains(&"submit_interaction".to_owned()));

    // Another worker and another connection go on with the pending questions.
    worker.kill().await;
    drop(client);
    let _worker = stage.worker().await;
    let mut client = Client::connect(&edge).await;
    let session = client.resume(&session.conversation).await;
    stage.gateway.script(Reply::tool_call("submit_interaction", json!({ "values": { "email": "ada" } })));
    let wrong = client.ask(&session, "r2", "ada").await;
    assert!(tool_activity(&wrong)[1].starts_with("error "), "{wrong:#?}");
    stage.gateway.script(Reply::tool_call("submit_interaction", json!({ "values": { "email": "ada@Example.org" } })));
    client.ask(&session, "r3", "ada@Example.org").await;
    assert_eq!(last_result(&stage), json!({ "status": "submitted", "values": { "email": "ada@example.org" } }));
    stage.gateway.script(Reply::tool_call("submit_interaction", json!({ "declined": true })));
    let twice = client.ask(&session, "r4", "never mind").await;
    assert!(tool_activity(&twice)[1].starts_with("error Nothing was asked"), "{twice:#?}");
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn an_answer_without_a_form_is_refused() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let nobody = Session { id: uuid::Uuid::new_v4().to_string(), ..session.clone() };
    let prompt = json!({ "interactionId": uuid::Uuid::new_v4(), "kind": "choices" });
    for session in [&session, &nobody] {
        let answer = client.request(submit(session, &prompt, json!({ "values": {} }))).await;
        assert_eq!(code(&answer), "NO_PENDING_INTERACTION");
    }
    client.send(&json!({ "action": "submit_interaction", "sessionId": session.id })).await;
    assert_eq!(code(&client.next().await), "VALIDATION_ERROR");
}

#[tokio::test]
async fn choices_work_in_words_and_survive_another_worker() {
    let stage = Stage::start().await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = session_that_supports(&mut client, &["identity_form"]).await;
    stage.gateway.script(Reply::tool_call("request_choices", choices()));
    let asked = client.ask(&session, "r1", "a shirt, please").await;
    assert!(!kinds(&asked).contains(&"interaction_required"), "the client shows other forms only");
    let picked = |options: Value| json!({ "values": { "answers": [{ "header": "Size", "options": options }] } });
    for (id, options, fits) in
        [("r2", json!(["XL"]), false), ("r3", json!(["M", "L"]), false), ("r4", json!(["L"]), true)]
    {
        stage.gateway.script(Reply::tool_call("submit_interaction", picked(options)));
        let turn = client.ask(&session, id, "that one").await;
        assert_eq!(tool_activity(&turn)[1].starts_with("result "), fits, "{turn:#?}");
    }
    assert_eq!(last_result(&stage), json!({ "status": "submitted", "values": picked(json!(["L"]))["values"] }));

    let session = session_that_supports(&mut client, &["choice_chips"]).await;
    stage.gateway.script(Reply::tool_call("request_choices", choices()));
    client.begin(&session, "r5", "another shirt").await;
    client.turn_until("r5", "interaction_required").await;
    worker.kill().await;
    drop(client);
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.resume(&session.conversation).await;
    let prompt = client.turn_until("r5", "interaction_required").await.pop().unwrap()["data"]["data"].clone();
    let other = json!({ "values": { "answers": [{ "header": "Size", "other": "as large as it gets" }] } });
    let submitted = client.request(submit(&session, &prompt, other)).await;
    assert_eq!(submitted["data"]["values"]["answers"][0]["other"], "as large as it gets");
    assert_eq!(answer_text(&client.turn("r5").await), "ok");
    assert_eq!(last_result(&stage)["status"], "submitted");
}
