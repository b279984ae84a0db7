//! The instructions to the model in a turn, each only in its own request, and the part that a visitor sees.

use serde_json::{Value, json};

use crate::support::{
    Stage,
    client::{Client, Session, message_frame},
    frames::{answer, answer_text, code, kind, kinds, streamed},
    gateway::{Gate, Reply},
    schema,
};

const ORG: &str = "reference-org";

async fn session_with(client: &mut Client, agent: &str) -> Session {
    let created = client.request(json!({ "action": "create_conversation_session", "agentId": agent })).await;
    let text = |name: &str| created["data"][name].as_str().unwrap().to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

/// Returns the system prompts of the requests to a model, in order.
fn systems(stage: &Stage, model: &str) -> Vec<String> {
    let requests = stage.gateway.requests();
    let of_model = requests.iter().filter(|request| request["model"] == model);
    of_model.map(|request| request["messages"][0]["content"].as_str().unwrap().to_owned()).collect()
}

fn letters(text: &str) -> Vec<String> {
    text.chars().map(String::from).collect()
}

#[tokio::test]
async fn suggested_replies_are_cut_from_text_and_stream() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let block =
        "It is <b>on</b> its way.\n<suggested_replies>[\"Where is it?\", \" Thanks! \", \"\"]</suggested_replies>";
    stage.gateway.script(Reply::tokens(letters(block)));
    let turn = client.ask(&session, "r1", "my order?").await;
    assert_eq!(streamed(&turn).trim_end(), "It is <b>on</b> its way.");
    assert_eq!(answer_text(&turn), "It is <b>on</b> its way.");
    assert_eq!(answer(&turn)["response"]["suggestedNextActions"], json!(["Where is it?", "Thanks!"]));

    stage.gateway.script(Reply::tokens(letters("Done.\n\nSuggested replies:\n- More\n- Bye\n")));
    let turn = client.ask(&session, "r2", "and?").await;
    assert_eq!((streamed(&turn).trim_end(), answer_text(&turn)), ("Done.", "Done."));
    assert_eq!(answer(&turn)["response"]["suggestedNextActions"], json!(["More", "Bye"]));
    stage.gateway.script(Reply::text("Well <suggested_replies>[\"cut off"));
    let turn = client.ask(&session, "r3", "and?").await;
    assert_eq!(answer_text(&turn), "Well");
    assert_eq!(answer(&turn)["response"]["suggestedNextActions"], json!([]));
    assert_eq!(client.history(&session).await[1], "It is <b>on</b> its way.");
    let requests = stage.gateway.requests();
    assert!(requests.iter().all(|request| request["messages"].to_string().matches("suggested_replies").count() == 2));
}

#[tokio::test]
async fn a_greeting_and_a_skill_are_in_one_request_and_in_no_message() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tone.md"), "---\nname: tone\n---\nWrite in rhymes.").unwrap();
    std::fs::write(folder.path().join("other.md"), "Never used.").unwrap();
    stage.agent(ORG, "poet", &json!({ "persona": "You are a poet.", "greeting": "Ahoy!", "skills": ["tone"] })).await;
    let skills = [("SMOOTH_SKILLS_DIR", folder.path().to_str().unwrap())];
    let (edge, bare, _worker) = tokio::join!(stage.edge_with(&skills), stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = session_with(&mut client, "poet").await;
    let with_skill = |id: &str, skill: Value| {
        let mut frame = message_frame(&session, id, "write me something");
        frame["skill"] = skill;
        frame
    };
    for skill in ["other", "none", "../tone", "to ne", "tone.md"] {
        assert_eq!(code(&client.request(with_skill("r0", json!(skill))).await), "SKILL_NOT_FOUND", "{skill}");
    }
    let mut elsewhere = Client::connect(&bare).await;
    assert_eq!(code(&elsewhere.request(with_skill("r0", json!("tone"))).await), "SKILL_NOT_FOUND");

    client.ask(&session, "r1", "hello").await;
    assert_eq!(client.request(with_skill("r2", json!("tone"))).await["status"], 202);
    client.turn("r2").await;
    assert_eq!(client.request(with_skill("r3", json!(" "))).await["status"], 202);
    client.turn("r3").await;
    let systems = systems(&stage, "claude-haiku-4-5");
    let holds = |text: &str| systems.iter().map(|system| system.contains(text)).collect::<Vec<_>>();
    assert_eq!(holds("You are a poet."), [true; 3]);
    assert_eq!(holds("Ahoy!"), [true, false, false]);
    assert_eq!(holds("Write in rhymes."), [false, true, false]);
    let order =
        ["You are a poet.", "Write in rhymes.", "<suggested_replies>"].map(|part| systems[1].find(part).unwrap());
    assert!(order.is_sorted(), "{}", systems[1]);
    let said = ["hello", "ok", "write me something", "ok", "write me something", "ok"];
    assert_eq!(client.history(&session).await, said);
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn a_preamble_comes_before_the_answer_or_not_at_all() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker_with(&[("SMOOTH_AGENT_PREAMBLE_MODEL", "fast")]));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let gate = Gate::new();
    let slow = gate.clone();
    stage.gateway.respond_with(move |request| match request["model"] == "fast" {
        true => Some(Reply::text("I am looking into it.")),
        false => Some(Reply::gated(vec!["Here ".into(), "it is.".into()], &slow)),
    });
    client.begin(&session, "r1", "where is my order?").await;
    let first = client.turn_until("r1", "stream_preamble").await;
    assert_eq!(first[0]["token"], "I am looking into it.");
    gate.open();
    let rest = client.turn("r1").await;
    assert_eq!(kinds(&rest), ["stream_token", "eventual_response"]);
    assert_eq!(answer_text(&rest), "Here it is.");
    assert_eq!(answer(&rest)["usage"]["promptTokens"], 20, "both models count");
    assert_eq!(client.history(&session).await, ["where is my order?", "Here it is."]);
    let fast: Vec<Value> = stage.gateway.requests().into_iter().filter(|request| request["model"] == "fast").collect();
    assert_eq!(fast.len(), 1);
    assert_eq!(fast[0]["messages"][1]["content"], "where is my order?");

    // An answer that comes first makes the preamble needless; so does a client that wants no stream.
    let late = Gate::new();
    let held = late.clone();
    stage.gateway.respond_with(move |request| match request["model"] == "fast" {
        true => Some(Reply::gated(vec!["Too late.".into()], &held)),
        false => Some(Reply::text("At once.")),
    });
    let turn = client.ask(&session, "r2", "again").await;
    assert_eq!(kinds(&turn), ["stream_token", "eventual_response"]);
    late.open();
    let mut quiet = message_frame(&session, "r3", "quietly");
    quiet["stream"] = json!(false);
    assert_eq!(client.request(quiet).await["status"], 202);
    assert_eq!(kinds(&client.turn("r3").await), ["eventual_response"]);
}

#[tokio::test]
async fn a_workflow_advances_by_its_judge_and_asks_for_a_person_when_stuck() {
    let stage = Stage::start().await;
    let step = |id: &str, attempts: Option<u32>| json!({ "id": id, "instructions": format!("Ask for the {id}."), "doneWhen": format!("the {id} is known"), "maxAttempts": attempts });
    let config =
        json!({ "judgeModel": "judge", "workflow": { "steps": [step("order", Some(2)), step("address", None)] } });
    stage.agent(ORG, "clerk", &config).await;
    stage.gateway.respond_with(|request| {
        let question = request["messages"][1]["content"].as_str().unwrap_or_default();
        (request["model"] == "judge").then(|| match question.contains("ORD-7") || question.contains("Main Street") {
            true => Reply::text("{\"done\": true, \"reason\": \"named\"}"),
            false => Reply::text("{\"done\": false, \"reason\": \"not yet\"}"),
        })
    });
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = session_with(&mut client, "clerk").await;
    let first = client.ask(&session, "r1", "hello").await;
    assert_eq!(answer(&first)["needsEscalation"], false);
    // The step and its attempts belong to the conversation: another worker and another session go on with them.
    worker.kill().await;
    let _worker = stage.worker().await;
    let resumed = client.resume(&session.conversation).await;
    let session = Session { id: resumed.id, ..session };
    let second = client.ask(&session, "r2", "hm").await;
    assert_eq!(answer(&second)["needsEscalation"], true);
    assert!(answer(&second)["escalationReason"].as_str().unwrap().contains("order"));
    let third = client.ask(&session, "r3", "it is ORD-7").await;
    assert_eq!(answer(&third)["needsEscalation"], false);
    for (id, message) in [("r4", "hm"), ("r5", "Main Street 1"), ("r6", "thanks")] {
        client.ask(&session, id, message).await;
    }
    let told: Vec<Option<bool>> = systems(&stage, "claude-haiku-4-5")
        .iter()
        .map(|system| match (system.contains("Ask for the order."), system.contains("Ask for the address.")) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
            (true, true) => panic!("two steps at once: {system}"),
        })
        .collect();
    assert_eq!(told, [Some(true), Some(true), Some(true), Some(false), Some(false), None]);
    let judged = stage.gateway.requests().iter().filter(|request| request["model"] == "judge").count();
    assert_eq!(judged, 5, "a finished workflow is not judged");
    assert!(client.seen.iter().filter(|frame| kind(frame) == "eventual_response").count() == 6);
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn a_failing_judge_leaves_the_workflow_step_unchanged() {
    let stage = Stage::start().await;
    let steps = json!([
        { "id": "one", "instructions": "First things first.", "doneWhen": "done" },
        { "id": "two", "instructions": "Second.", "doneWhen": "done" },
    ]);
    stage.agent(ORG, "clerk", &json!({ "judgeModel": "judge", "workflow": { "steps": steps } })).await;
    stage.gateway.respond_with(|request| (request["model"] == "judge").then(|| Reply::status(400)));
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = session_with(&mut client, "clerk").await;
    for id in ["r1", "r2"] {
        assert_eq!(answer_text(&client.ask(&session, id, "hello").await), "ok");
    }
    assert!(systems(&stage, "claude-haiku-4-5").iter().all(|system| system.contains("First things first.")));
}
