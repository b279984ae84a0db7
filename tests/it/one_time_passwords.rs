//! Tools that demand proof of identity, and the one-time password that gives it.

use serde_json::{Value, json};

use crate::support::{
    Edge, Stage,
    client::{Client, Session},
    frames::{answer_text, code, kind, kinds, request_id, tool_activity},
    gateway::Reply,
    otp::{CODE, OtpService},
    schema,
    tools::{Provider, Tool},
};

const GATED: [(&str, &str); 1] = [("SMOOTH_AGENT_AUTH_TOOLS", "change_address")];

/// Starts a stage with an agent that demands proof for one tool.
async fn stage() -> (Stage, Provider) {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("change_address", "changed")]).await;
    let config = json!({ "tools": [{ "name": "change_address", "authLevel": "end_user" }, { "name": "*" }] });
    stage.agent("reference-org", "default", &config).await;
    (stage, provider)
}

async fn session(client: &mut Client, email: Option<&str>) -> Session {
    let created = client.request(json!({ "action": "create_conversation_session", "userEmail": email })).await;
    let text = |name: &str| created["data"][name].as_str().unwrap().to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

async fn verify(client: &mut Client, session: &Session, code: &str) -> Value {
    client.send(&json!({ "action": "verify_otp", "requestId": "v", "sessionId": session.id, "code": code })).await;
    loop {
        let frame = client.next().await;
        if request_id(&frame) == Some("v") {
            return frame;
        }
    }
}

async fn connect(edge: &Edge) -> Client {
    Client::connect(edge).await
}

#[tokio::test]
async fn a_code_opens_the_tool_for_its_session_alone() {
    let (stage, provider) = stage().await;
    let otp = OtpService::start(&stage.nats, "reference-org", true).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker_with(&GATED));
    let mut client = connect(&edge).await;
    let visitor = session(&mut client, Some("ada@example.org")).await;
    assert_eq!(verify(&mut client, &visitor, CODE).await["data"]["data"]["error"], "NOT_FOUND");

    let twice = vec![("change_address".to_owned(), "{}".to_owned()), ("change_address".to_owned(), "{}".to_owned())];
    stage.gateway.script(Reply::tool_calls(twice));
    stage.gateway.script(Reply::text("Please enter the code."));
    let turn = client.ask(&visitor, "r1", "change my address").await;
    let shown: Vec<&str> = turn.iter().map(kind).filter(|kind| kind.starts_with("otp")).collect();
    assert_eq!(shown, ["otp_verification_required", "otp_sent"], "one code is enough for two calls");
    assert_eq!(answer_text(&turn), "Please enter the code.");
    let required = turn.iter().find(|frame| kind(frame) == "otp_verification_required").unwrap();
    assert_eq!(
        required["data"]["data"],
        json!({
            "toolId": "change_address", "actionDescription": "Change address",
            "availableChannels": ["email"], "authLevel": "end_user",
        })
    );
    assert_eq!(otp.sent().len(), 1);
    assert_eq!(otp.sent()[0]["email"], "ada@example.org");
    assert!(provider.calls().is_empty());

    // The worker dies, the visitor comes back on another edge, and the turn still waits for the code.
    worker.kill().await;
    drop(client);
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&GATED));
    let mut client = connect(&edge).await;
    let wrong = verify(&mut client, &visitor, "000000").await;
    assert_eq!(
        wrong["data"]["data"],
        json!({ "error": "INVALID_CODE", "attemptsRemaining": 2, "message": "Not that one." })
    );
    assert_eq!(kind(&verify(&mut client, &visitor, CODE).await), "otp_verified");
    stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let done = client.ask(&visitor, "r2", "change my address").await;
    assert_eq!(tool_activity(&done), ["call change_address", "result changed"]);
    assert_eq!(provider.calls().len(), 1);
    // The code is used up.
    assert_eq!(verify(&mut client, &visitor, CODE).await["data"]["data"]["error"], "NOT_FOUND");

    // Another session of the same conversation has proved nothing.
    let other = client.resume(&visitor.conversation).await;
    stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let refused = client.ask(&other, "r3", "change my address").await;
    assert!(tool_activity(&refused)[1].starts_with("error Not done"), "{refused:#?}");
    assert_eq!(provider.calls().len(), 1);
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn an_unsent_code_ends_no_turn_and_locked_codes_stay_locked() {
    let (stage, provider) = stage().await;
    let service = OtpService::start(&stage.nats, "reference-org", false).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&GATED));
    let mut client = connect(&edge).await;
    let visitor = session(&mut client, Some("ada@example.org")).await;
    stage.gateway.script(Reply::tool_call("change_address", "{}"));
    client.begin(&visitor, "r1", "change my address").await;
    assert_eq!(answer_text(&client.turn("r1").await), "ok");
    let failure = client.seen.iter().find(|frame| code(frame) == "OTP_SEND_FAILED").unwrap();
    assert!(failure.get("requestId").is_none() && !failure.to_string().contains("10.0.0.7"), "{failure:#}");
    drop(service);

    let _service = OtpService::start(&stage.nats, "reference-org", true).await;
    stage.gateway.script(Reply::tool_call("change_address", "{}"));
    client.ask(&visitor, "r2", "again").await;
    for left in [2, 1, 0] {
        assert_eq!(verify(&mut client, &visitor, "000000").await["data"]["data"]["attemptsRemaining"], left);
    }
    let locked = verify(&mut client, &visitor, CODE).await;
    assert_eq!(locked["data"]["data"]["error"], "MAX_ATTEMPTS");
    assert!(provider.calls().is_empty());
    let nobody = Session { id: uuid::Uuid::new_v4().to_string(), ..visitor };
    assert_eq!(code(&verify(&mut client, &nobody, CODE).await), "SESSION_NOT_FOUND");
    client.send(&json!({ "action": "verify_otp", "requestId": "v", "sessionId": nobody.id })).await;
    assert_eq!(code(&client.next().await), "VALIDATION_ERROR");
}

#[tokio::test]
async fn without_a_contact_or_a_service_the_tool_is_refused() {
    let (stage, provider) = stage().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&GATED));
    let mut client = connect(&edge).await;
    let known = session(&mut client, Some("ada@example.org")).await;
    stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let turn = client.ask(&known, "r1", "change my address").await;
    assert_eq!(kinds(&turn), ["stream_chunk", "stream_token", "eventual_response"]);
    assert!(tool_activity(&turn)[1].contains("not possible here"), "{turn:#?}");

    let otp = OtpService::start(&stage.nats, "reference-org", true).await;
    let unknown = session(&mut client, None).await;
    stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let turn = client.ask(&unknown, "r2", "change my address").await;
    assert!(tool_activity(&turn)[1].contains("no e-mail address"), "{turn:#?}");
    assert!(otp.sent().is_empty());

    // The code goes to the address that the visitor gives in words.
    stage.gateway.script(Reply::tool_call("request_identity_intake", json!({ "fields": ["email"] })));
    client.ask(&unknown, "r3", "how do I prove it?").await;
    stage.gateway.script(Reply::tool_calls(vec![(
        "submit_interaction".to_owned(),
        json!({ "values": { "email": "bob@example.org" } }).to_string(),
    )]));
    stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let turn = client.ask(&unknown, "r4", "bob@example.org").await;
    assert!(kinds(&turn).contains(&"otp_sent"), "{turn:#?}");
    assert_eq!(otp.sent()[0]["email"], "bob@example.org");
    assert!(provider.calls().is_empty());
}
