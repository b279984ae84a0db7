//! Agents are configured at run time: the next turn has the new version, an active one keeps its own.

use async_nats::jetstream;
use serde_json::{Value, json};

use crate::{
    identity::handshake,
    support::{
        Edge, Stage,
        client::{Client, Session},
        encrypted,
        frames::{answer_text, code, kinds, tool_activity},
        gateway::{Gate, Reply},
        schema,
        tools::{Provider, Tool},
    },
};

const ORG: &str = "reference-org";

async fn session_with(client: &mut Client, agent: &str) -> (Session, String) {
    let created = client.request(json!({ "action": "create_conversation_session", "agentId": agent })).await;
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    (Session { id: text("sessionId"), conversation: text("conversationId") }, text("agentName"))
}

/// Waits until an edge has an agent's version, recognised by the agent's name.
async fn until_named(edge: &Edge, agent: &str, name: &str) -> (Client, Session) {
    let mut client = Client::connect(edge).await;
    let started = std::time::Instant::now();
    loop {
        let (session, named) = session_with(&mut client, agent).await;
        if named == name {
            return (client, session);
        }
        assert!(started.elapsed() < crate::support::WAIT_MAX, "the edge does not learn of `{name}`");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Returns the version in each `turn.requested` of the log, in order.
async fn versions(stage: &Stage) -> Vec<Value> {
    let client = stage.nats.client().await;
    let (log, stream) =
        (encrypted::log(client.clone()), jetstream::new(client).get_stream("CHAT_local").await.unwrap());
    let mut versions = Vec::new();
    for seq in 1..=stream.cached_info().state.last_sequence {
        let message = stream.direct_get(seq).await.unwrap();
        if message.subject.contains(".turn.requested.") {
            let payload = encrypted::open(&log, &message.subject, message.payload).await;
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            versions.push(payload["agentConfig"].clone());
        }
    }
    versions
}

fn system(request: &Value) -> String {
    request["messages"][0]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_version_applies_from_the_next_turn() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("look", "seen")]).await;
    let first = stage.agent(ORG, "support", &json!({ "name": "One", "persona": "You are One.", "model": "m-1" })).await;
    let (edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    let (mut client, session) = until_named(&edge, "support", "One").await;
    let gate = Gate::new();
    stage
        .gateway
        .script(Reply::gated(vec!["Let me look. ".into()], &gate).with_calls(vec![("look".into(), "{}".into())]));
    client.begin(&session, "r1", "hello").await;
    stage.gateway.wait_for_requests(1).await;

    let changed = json!({ "name": "Two", "persona": "You are Two.", "model": "m-2", "tools": [] });
    let second = stage.agent(ORG, "support", &changed).await;
    assert!(second > first);
    let (mut other, other_session) = until_named(&edge, "support", "Two").await;
    other.ask(&other_session, "r2", "hello").await;
    // The active turn goes on under its version, with its tools, even on another worker.
    worker.kill().await;
    let _worker = stage.worker().await;
    gate.open();
    stage.gateway.script(Reply::tool_call("look", "{}"));
    let turn = client.turn("r1").await;
    assert!(tool_activity(&turn).contains(&"result seen".to_owned()), "{turn:#?}");
    assert_eq!(provider.calls().len(), 1);
    client.ask(&session, "r3", "and now?").await;

    let requests = stage.gateway.requests();
    let asked: Vec<(String, String)> = requests
        .iter()
        .map(|request| (request["model"].as_str().unwrap().to_owned(), system(request).chars().take(12).collect()))
        .collect();
    let (one, two) = (("m-1".to_owned(), "You are One.".to_owned()), ("m-2".to_owned(), "You are Two.".to_owned()));
    assert!(asked[2..asked.len() - 1].iter().all(|asked| *asked == one), "{asked:?}");
    assert_eq!([&asked[0], &asked[1], asked.last().unwrap()], [&one, &two, &two]);
    assert!(requests.last().unwrap().get("tools").is_none(), "the new version has no tools");
    let version = |revision: u64| json!({ "agent": "support", "revision": revision });
    assert_eq!(versions(&stage).await, [version(first), version(second), version(second)]);
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn an_unconfigured_agent_gets_its_organisations_default_or_none() {
    let stage = Stage::start().await;
    stage.agent(ORG, "default", &json!({ "name": "House" })).await;
    stage.agent("elsewhere", "support", &json!({ "name": "Foreign" })).await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    assert_eq!(session_with(&mut client, "support").await.1, "House");
    let mut delete = stage.run("agent delete", &["agent", "delete", "default"], &[]);
    assert!(delete.ended().await.success(), "{}", delete.output());
    until_named(&edge, "support", "smooth-agent").await;
    let mut list = stage.run("agent list", &["agent", "list"], &[]);
    list.ended().await;
    assert!(list.output().contains("elsewhere/support") && !list.output().contains("default"), "{}", list.output());
    let mut get = stage.run("agent get", &["agent", "get", "support", "--org", "elsewhere"], &[]);
    assert!(get.ended().await.success());
    assert!(get.output().contains("\"Foreign\""), "{}", get.output());
}

#[tokio::test]
async fn an_invalid_configuration_is_reported_and_not_stored() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    for (content, said) in [
        ("{", "EOF"),
        (r#"{"persoma": "x"}"#, "persoma"),
        (r#"{"maxIterations": 0, "humanWaitSecs": 0}"#, "humanWaitSecs"),
        (r#"{"pool": "nowhere"}"#, "there is no worker pool `nowhere`"),
    ] {
        let file = folder.path().join("agent.json");
        std::fs::write(&file, content).unwrap();
        let mut put = stage.run("agent put", &["agent", "put", "support", file.to_str().unwrap()], &[]);
        assert!(!put.ended().await.success());
        assert!(put.output().contains(said), "{}", put.output());
    }
    let mut get = stage.run("agent get", &["agent", "get", "support"], &[]);
    assert!(!get.ended().await.success());
    std::fs::write(folder.path().join("good.json"), r#"{"persona": "Kind."}"#).unwrap();
    let good = folder.path().join("good.json");
    let mut check = stage.run("agent check", &["agent", "check", good.to_str().unwrap()], &[]);
    assert!(check.ended().await.success(), "{}", check.output());
}

#[tokio::test]
async fn a_configuration_applies_to_the_turn() {
    let stage = Stage::start().await;
    let tools = vec![
        Tool::answers("order_status", "sent"),
        Tool::answers("order_cancel", "gone"),
        Tool::answers("refund", "no"),
    ];
    let provider = Provider::start(&stage.nats, tools).await;
    let config = json!({
        "maxIterations": 2, "maxTokens": 77, "humanWaitSecs": 1, "gatewayMetadata": { "team": "shop" },
        "tools": [{ "name": "order_status", "settings": { "shop": 7 } }, { "name": "order_*" }, { "name": "request_choices" }],
        "confirmTools": ["CANCEL"], "interactions": false, "suggestedReplies": false,
    });
    stage.agent(ORG, "shop", &config).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let (session, _) = session_with(&mut client, "shop").await;

    // One tool is allowed, with settings; the other is hidden; the cap is the agent's.
    stage.gateway.script(Reply::tool_calls(vec![("order_status".into(), "{}".into()), ("refund".into(), "{}".into())]));
    stage.gateway.script(Reply::tool_call("order_status", "{}"));
    let turn = client.ask(&session, "r1", "where is it?").await;
    assert!(answer_text(&turn).contains("I stopped here"), "{turn:#?}");
    assert!(tool_activity(&turn).contains(&"error There is no tool `refund`.".to_owned()), "{turn:#?}");
    let request = stage.gateway.requests()[0].clone();
    assert_eq!((&request["max_tokens"], &request["metadata"]), (&json!(77), &json!({ "team": "shop" })));
    let offered: Vec<_> =
        request["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].clone()).collect();
    assert_eq!(offered, ["order_cancel", "order_status"]);
    assert_eq!(provider.calls()[0].settings.as_deref(), Some(r#"{"shop":7}"#));

    // The agent's pattern parks the turn, and its deadline ends the wait.
    stage.gateway.script(Reply::tool_call("order_cancel", "{}"));
    let turn = client.ask(&session, "r2", "cancel it").await;
    assert!(kinds(&turn).contains(&"write_confirmation_required"));
    assert!(tool_activity(&turn)[1].starts_with("error The user did not approve"), "{turn:#?}");
    assert_eq!(code(&client.confirm(&session, true).await), "NO_PENDING_CONFIRMATION");
}

#[tokio::test]
async fn answers_use_only_the_agents_document_sets() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pay.md"), "---\nset: hr\n---\nThe salary of gardeners is 4242.\n").unwrap();
    std::fs::write(folder.path().join("plants.md"), "---\nset: shop\n---\nGardeners like tulips.\n").unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let mut ingest = stage.run("ingest", &["ingest", "--org", ORG, &path], &[]);
    assert!(ingest.ended().await.success(), "{}", ingest.output());
    stage.agent(ORG, "shop", &json!({ "documentSets": ["shop"] })).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let (session, _) = session_with(&mut client, "shop").await;
    client.ask(&session, "r1", "salary of gardeners").await;
    let request = stage.gateway.requests()[0].to_string();
    assert!(request.contains("tulips") && !request.contains("4242"), "{request}");
}

#[tokio::test]
async fn an_agents_widget_decides_pages_and_users() {
    let stage = Stage::start().await;
    let widget = json!({ "name": "Shop", "widget": { "allowed_origins": ["https://*.shop.example"] } });
    stage.agent("acme", "shop", &widget).await;
    let edge = stage.edge().await;
    let create = json!({ "action": "create_conversation_session", "agentId": "shop" });
    for (origin, refusal) in [
        (Some("https://www.shop.example"), None),
        (Some("https://evil.example/.shop.example"), Some("ORIGIN_NOT_ALLOWED")),
        (None, Some("ORIGIN_NOT_ALLOWED")),
    ] {
        let mut request = handshake(&edge, "", None);
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        let mut client = Client::try_connect(request).await.unwrap();
        let answer = client.request(create.clone()).await;
        match refusal {
            Some(refusal) => assert_eq!(code(&answer), refusal),
            // The session's organisation is the agent's, so the session has the agent.
            None => assert_eq!(answer["data"]["agentName"], "Shop", "{answer:#}"),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.json");
    std::fs::write(&file, widget.to_string()).unwrap();
    let mut put = stage.run("agent put", &["agent", "put", "shop", file.to_str().unwrap(), "--org", "globex"], &[]);
    assert!(!put.ended().await.success());
    assert!(put.output().contains("`acme` has an agent `shop` with a widget"), "{}", put.output());
}

#[tokio::test]
async fn an_agents_pool_decides_its_workers() {
    let stage = Stage::start().await;
    let mut consumer: Value = serde_json::from_str(include_str!("../../streams/CHAT.worker.json")).unwrap();
    for name in ["name", "durable_name"] {
        consumer[name] = json!("fast");
    }
    consumer["filter_subjects"] = json!(["chat.local.*.*.turn.requested.fast", "chat.local.*.*.turn.resumed.fast"]);
    let request = json!({ "stream_name": "CHAT_local", "config": consumer, "action": "" });
    let client = stage.nats.client().await;
    let made = client.request("$JS.API.CONSUMER.CREATE.CHAT_local.fast", request.to_string().into()).await.unwrap();
    assert!(!String::from_utf8_lossy(&made.payload).contains("\"error\""), "{made:?}");
    stage.agent(ORG, "sprinter", &json!({ "pool": "fast" })).await;
    let fast = [("SMOOTH_AGENT_POOL", "fast"), ("SMOOTH_AGENT_MODEL", "quick")];
    let (edge, _worker, _fast) = tokio::join!(stage.edge(), stage.worker(), stage.worker_with(&fast));
    let mut client = Client::connect(&edge).await;
    for (agent, model) in [("sprinter", "quick"), ("somebody", "claude-haiku-4-5")] {
        let (session, _) = session_with(&mut client, agent).await;
        client.ask(&session, agent, "hello").await;
        assert_eq!(stage.gateway.requests().last().unwrap()["model"], model);
    }
}

/// A visitor can't choose a model that the deployment has to pay for.
#[tokio::test]
async fn a_message_may_name_only_models_that_its_agent_allows() {
    let stage = Stage::start().await;
    let listed = [("SMOOTH_AGENT_MODELS", "gpt-small,claude-*")];
    stage.agent("reference-org", "fixed", &json!({"model": "m-1"})).await;
    stage.agent("reference-org", "free", &json!({"model": "m-1", "models": ["m-2", "fast-*"]})).await;
    stage.agent("reference-org", "any", &json!({"models": ["*"]})).await;
    let (edge, listing, _worker) = tokio::join!(stage.edge(), stage.edge_with(&listed), stage.worker());
    for (edge, agent, model, expected) in [
        (&edge, "plain", "claude-haiku-4-5", ""),
        (&edge, "plain", "the-most-expensive", "VALIDATION_ERROR"),
        (&edge, "fixed", "m-1", ""),
        (&edge, "fixed", "claude-haiku-4-5", "VALIDATION_ERROR"),
        (&edge, "free", "m-2", ""),
        (&edge, "free", "fast-1", ""),
        (&edge, "free", "slow-1", "VALIDATION_ERROR"),
        (&edge, "any", "whatever", ""),
        (&listing, "plain", "gpt-small", ""),
        (&listing, "plain", "claude-opus", ""),
        (&listing, "plain", "gpt-large", "VALIDATION_ERROR"),
        (&listing, "free", "claude-opus", "VALIDATION_ERROR"),
    ] {
        let mut client = Client::connect(edge).await;
        let opened = client.request(json!({"action": "create_conversation_session", "agentId": agent})).await;
        let session = opened["data"]["sessionId"].clone();
        let message = json!({
            "action": "send_message", "requestId": "r", "sessionId": session, "message": "hi", "model": model,
        });
        let answer = client.request(message).await;
        assert_eq!(code(&answer), expected, "{agent} {model}: {answer:#}");
        if expected.is_empty() {
            client.turn("r").await;
            assert_eq!(stage.gateway.requests().last().unwrap()["model"], model, "{agent}");
        }
    }
}
