//! The administrators' API: roles, organisations, and the effect of each route.

use std::{fs, time::Instant};

use serde_json::{Value, json};

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage, WAIT_MAX,
        client::Client,
        frames::{answer_text, code},
        http::{call, send},
    },
};

const WITH_TOKENS: [(&str, &str); 1] = [("AUTH_JWT_HS256_SECRET", SECRET)];
const OPENAPI: &str = include_str!("../../spec/openapi.json");

pub fn of_role(role: &str) -> String {
    token(json!({"sub": format!("the {role}"), "role": role, "email": format!("{role}@example.org")}))
}

pub fn elsewhere() -> String {
    token(json!({"sub": "somebody", "role": "admin", "org": "globex"}))
}

/// Returns the document's operations: method, path with an id in it, and required role.
pub fn operations() -> Vec<(String, String, Option<String>)> {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{id}", &uuid::Uuid::new_v4().to_string());
            all.push((method.to_uppercase(), path, operation["x-role"].as_str().map(str::to_owned)));
        }
    }
    all
}

/// Checks that the document describes a response.
fn expect_described(method: &str, path: &str, status: u16, body: &Value) {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let fits = |pattern: &str| {
        let (pattern, path) = (pattern.split('/'), path.split('?').next().unwrap().split('/'));
        pattern.clone().count() == path.clone().count() && pattern.zip(path).all(|(a, b)| a == b || a == "{id}")
    };
    let paths = document["paths"].as_object().unwrap();
    let described = paths.iter().find(|(pattern, _)| fits(pattern)).unwrap_or_else(|| panic!("{path}")).1;
    let response = &described[method.to_lowercase()]["responses"][status.to_string()];
    assert!(response.is_object(), "{method} {path} -> {status} {body}");
    if body.is_null() {
        return assert!(response.get("content").is_none());
    }
    let mut schema = response["content"]["application/json"]["schema"].clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    assert!(validator.is_valid(body), "{method} {path}: {body:#}");
}

/// Sends a request and returns its response, which must have this status and fit the document.
pub async fn expect(edge: &Edge, method: &str, path: &str, token: &str, body: Option<Value>, status: u16) -> Value {
    let path = format!("/admin/{path}");
    let (got, answer) = call(edge, method, &path, Some(token), body.as_ref()).await;
    assert_eq!(got, status, "{method} {path}: {answer:#}");
    expect_described(method, &path, status, &answer);
    answer
}

#[tokio::test]
async fn every_route_asks_for_its_role() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let rank = |role: &str| ["basic", "curator", "admin"].iter().position(|known| *known == role).unwrap();
    assert_eq!(operations().len(), 18);
    for (method, path, role) in operations() {
        let Some(role) = role else {
            assert_eq!(call(&edge, &method, &path, None, None).await, (200, json!({"status": "ok"})));
            continue;
        };
        let expired = token(json!({"sub": "a", "role": "admin", "exp": 1}));
        let roleless = token(json!({"sub": "a", "role": null}));
        for (bearer, expected) in [
            (None, "UNAUTHENTICATED"),
            (Some(""), "UNAUTHENTICATED"),
            (Some("a.b.c"), "INVALID_TOKEN"),
            (Some(expired.as_str()), "INVALID_TOKEN"),
            (Some(roleless.as_str()), "MISSING_ROLE"),
        ] {
            let (status, refusal) = call(&edge, &method, &path, bearer, None).await;
            assert_eq!((status, code(&refusal)), (401, expected), "{method} {path} {bearer:?}");
            expect_described(&method, &path, status, &refusal);
        }
        for caller in ["basic", "curator", "admin"] {
            let (status, answer) = call(&edge, &method, &path, Some(&of_role(caller)), None).await;
            let expected = if rank(caller) < rank(&role) { 403 } else { status };
            assert_eq!(status, expected, "{method} {path} for {caller}: {answer}");
            assert!(status != 401 && status != 405 && status < 500, "{method} {path}: {status}");
            assert!(expected == 403 || status != 403, "{method} {path} for {caller}");
            expect_described(&method, &path, status, &answer);
        }
    }
    let basic = of_role("basic");
    for (method, path) in
        [("GET", "/admin"), ("GET", "/admin/nothing"), ("DELETE", "/admin/me"), ("GET", "/admin/connectors/1/index")]
    {
        let (status, refusal) = call(&edge, method, path, Some(&basic), None).await;
        assert_eq!((status, code(&refusal)), (404, "NOT_FOUND"), "{method} {path}");
    }
}

#[tokio::test]
async fn without_tokens_administration_is_closed_by_default() {
    let stage = Stage::start().await;
    let open = [("SMOOTH_AGENT_AUTH_MODE", "none"), ("AUTH_DEV_ORG_ID", "reference-org")];
    let (closed, open) = tokio::join!(stage.edge(), stage.edge_with(&open));
    assert_eq!(call(&closed, "GET", "/admin/health", None, None).await.0, 200);
    for bearer in [None, Some("anything")] {
        let (status, refusal) = call(&closed, "GET", "/admin/me", bearer, None).await;
        assert_eq!((status, code(&refusal)), (401, "UNAUTHENTICATED"));
    }
    assert_eq!(call(&open, "GET", "/admin/me", None, None).await.0, 401);
    let me = expect(&open, "GET", "me", "anything", None, 200).await;
    assert_eq!((&me["orgId"], &me["role"]), (&json!("reference-org"), &json!("admin")));
}

#[tokio::test]
async fn the_api_returns_the_callers_identity() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let claims =
        json!({"sub": "ada", "role": "Curator", "name": "Ada", "email": "ada@example.org", "groups": ["sales"]});
    let me = expect(&edge, "GET", "me", &token(claims), None, 200).await;
    let known = json!({
        "userId": "ada", "orgId": "acme", "role": "curator", "displayName": "Ada", "email": "ada@example.org", "groups": ["sales"],
    });
    assert_eq!(me, known);
    let me = expect(&edge, "GET", "me", &token(json!({"sub": "bo", "role": "user"})), None, 200).await;
    assert_eq!(me, json!({"userId": "bo", "orgId": "acme", "role": "basic"}));
}

async fn as_user(edge: &Edge, token: &str) -> Client {
    Client::try_connect(handshake(edge, &format!("?token={token}"), None)).await.unwrap()
}

/// Asks until the list holds `count` conversations.
async fn names(edge: &Edge, token: &str, count: usize) -> Vec<String> {
    let began = Instant::now();
    loop {
        let list = expect(edge, "GET", "conversations", token, None, 200).await;
        let all = list["conversations"].as_array().unwrap();
        if all.len() == count {
            return all.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
        }
        assert!(began.elapsed() < WAIT_MAX, "{list:#}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn curators_and_owners_read_conversations() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.worker());
    let (basic, curator) = (of_role("basic"), of_role("curator"));
    let mut owner = as_user(&edge, &basic).await;
    let own = owner.open_session().await;
    owner.ask(&own, "r1", "question 1").await;
    owner.ask(&own, "r2", "question 2").await;
    let mut other = as_user(&edge, &token(json!({"sub": "x"}))).await;
    let ownerless = other.open_session().await;
    assert_eq!(answer_text(&other.ask(&ownerless, "r1", "whose is this?").await), "ok");

    assert_eq!(names(&edge, &curator, 2).await, ["whose is this?", "question 1"]);
    assert_eq!(names(&edge, &basic, 1).await, ["question 1"]);
    names(&edge, &elsewhere(), 0).await;
    names(&edge, &token(json!({"sub": "x"})), 0).await;
    let first = expect(&edge, "GET", "conversations?limit=1", &curator, None, 200).await;
    let cursor = first["nextCursor"].as_i64().unwrap();
    let second = expect(&edge, "GET", &format!("conversations?limit=1&cursor={cursor}"), &curator, None, 200).await;
    assert_eq!((&second["conversations"][0]["id"], &second["nextCursor"]), (&json!(own.conversation), &Value::Null));
    for query in ["limit=many", "cursor=x", "cursor=-1"] {
        expect(&edge, "GET", &format!("conversations?{query}"), &curator, None, 400).await;
    }

    let path = |conversation: &str, query: &str| format!("conversations/{conversation}/messages{query}");
    for reader in [&basic, &curator] {
        let (mut texts, mut query) = (Vec::new(), "?limit=3".to_owned());
        loop {
            let page = expect(&edge, "GET", &path(&own.conversation, &query), reader, None, 200).await;
            assert_eq!(page["conversationId"], own.conversation.as_str());
            let messages = page["messages"].as_array().unwrap();
            texts.extend(messages.iter().map(|message| message["content"]["text"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["nextCursor"].as_u64() else { break };
            query = format!("?limit=3&cursor={cursor}");
        }
        assert_eq!(texts, ["question 1", "ok", "question 2", "ok"]);
    }
    expect(&edge, "GET", &path(&ownerless.conversation, ""), &curator, None, 200).await;
    expect(&edge, "GET", &path(&ownerless.conversation, ""), &basic, None, 404).await;
    let eve = token(json!({"sub": "eve", "email": "eve@example.org"}));
    expect(&edge, "GET", &path(&own.conversation, ""), &eve, None, 404).await;
    for (reader, id) in [(&elsewhere(), own.conversation.as_str()), (&curator, "no-id"), (&curator, own.id.as_str())] {
        let refusal = expect(&edge, "GET", &path(id, ""), reader, None, 404).await;
        assert_eq!(code(&refusal), "NOT_FOUND");
    }
}

#[tokio::test]
async fn settings_belong_to_one_organisation() {
    let stage = Stage::start().await;
    let (edge, other) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.edge_with(&WITH_TOKENS));
    let (curator, admin) = (of_role("curator"), of_role("admin"));
    let unset = json!({"settings": {
        "orgId": "acme", "model": null, "systemPrompt": null, "persona": null, "defaultTools": [], "updatedAt": null,
    }});
    assert_eq!(expect(&edge, "GET", "settings", &curator, None, 200).await, unset);
    let set = json!({"model": "small", "persona": "You are kind.", "defaultTools": ["order_status"], "unknown": 1});
    let changed = expect(&edge, "PUT", "settings", &admin, Some(set), 200).await;
    assert_eq!(changed["settings"]["model"], "small");
    assert_eq!(expect(&other, "GET", "settings", &curator, None, 200).await, changed);
    let elsewhere = expect(&other, "GET", "settings", &elsewhere(), None, 200).await;
    assert_eq!(elsewhere["settings"]["model"], Value::Null);
    // The settings apply to the organisation's agents within a second.
    let _worker = stage.worker().await;
    let mut client = Client::try_connect(handshake(&edge, &format!("?token={admin}"), None)).await.unwrap();
    let session = client.open_session().await;
    for n in 0.. {
        client.ask(&session, &format!("r{n}"), "hello").await;
        let request = stage.gateway.requests().pop().unwrap();
        if request["model"] == "small" {
            assert!(request["messages"][0]["content"].as_str().unwrap().starts_with("You are kind."));
            break;
        }
        assert!(n < 100, "the settings do not hold");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for wrong in [json!([]), json!({"model": 7}), json!({"defaultTools": [""]}), json!({"persona": "x".repeat(20_001)})]
    {
        let refusal = expect(&edge, "PUT", "settings", &admin, Some(wrong), 400).await;
        assert_eq!(code(&refusal), "VALIDATION_ERROR");
    }
    let large = json!({"persona": "x".repeat(200_000)});
    assert_eq!(call(&edge, "PUT", "/admin/settings", Some(&admin), Some(&large)).await.0, 413);
    let response =
        send(&edge, "GET", "/admin/settings", &[("authorization", &format!("Bearer {curator}"))], None).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn a_connector_is_defined_by_the_api_and_ingested_by_an_ingester() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let (curator, admin) = (of_role("curator"), of_role("admin"));
    let files = tempfile::tempdir().unwrap();
    for (name, text) in [("acme/handbook/pay.md", "# Pay\nOn the 25th."), ("globex/theirs.md", "Secret of globex.")] {
        fs::create_dir_all(files.path().join(name).parent().unwrap()).unwrap();
        fs::write(files.path().join(name), text).unwrap();
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("passwords.md"), "Secret of the machine.").unwrap();
    for (target, link) in [
        (files.path().join("globex"), "acme/link"),
        (files.path().join("globex"), "acme/handbook/folder"),
        (files.path().join("globex/theirs.md"), "acme/handbook/file.md"),
        (outside.path().to_path_buf(), "acme/handbook/machine"),
        (files.path().join("acme/handbook/pay.md"), "acme/handbook/again.md"),
    ] {
        std::os::unix::fs::symlink(target, files.path().join(link)).unwrap();
    }

    let handbook = json!({"kind": "file", "config": {"path": "handbook"}, "documentSet": "hr", "name": "Handbook"});
    let created = expect(&edge, "POST", "connectors", &admin, Some(handbook), 201).await["connector"].clone();
    let link = expect(&edge, "POST", "connectors", &admin, Some(json!({"kind": "file", "path": "link"})), 201).await;
    let github = json!({"kind": "github", "owner": "acme", "repo": "help", "secretName": "GITHUB_TOKEN"});
    let github = expect(&edge, "POST", "connectors", &admin, Some(github), 201).await["connector"].clone();
    assert_eq!((&github["hasSecret"], &github["name"]), (&json!(true), &json!("acme/help")));
    for wrong in [
        json!({"kind": "file", "path": "/etc"}),
        json!({"kind": "ftp"}),
        json!({"kind": "web", "url": "https://a.example", "token": "abc"}),
        json!({"kind": "github", "owner": "acme", "repo": "help", "secretName": "ghp_abc"}),
        json!({}),
        json!([]),
    ] {
        let refusal = expect(&edge, "POST", "connectors", &admin, Some(wrong.clone()), 400).await;
        assert!(!refusal.to_string().contains("abc"), "{wrong}");
    }
    let web = json!({"kind": "web", "config": {"url": "https://acme.example/"}});
    let path = |connector: &Value| format!("connectors/{}", connector["id"].as_str().unwrap());
    let replaced = expect(&edge, "PUT", &path(&github), &admin, Some(web), 200).await["connector"].clone();
    assert_eq!((&replaced["id"], &replaced["hasSecret"]), (&github["id"], &json!(false)));
    assert_eq!(replaced["createdAt"], github["createdAt"]);
    expect(&edge, "DELETE", &path(&github), &admin, None, 204).await;
    for method in ["PUT", "DELETE"] {
        expect(&edge, method, &path(&github), &admin, Some(json!({"kind": "file", "path": "a"})), 404).await;
        let theirs = json!({"kind": "file", "path": "a"});
        expect(&edge, method, &path(&created), &elsewhere(), Some(theirs), 404).await;
    }
    let list = expect(&edge, "GET", "connectors", &curator, None, 200).await;
    assert_eq!(list["connectors"], json!([created, link["connector"]]));
    assert_eq!(expect(&edge, "GET", "connectors", &elsewhere(), None, 200).await["connectors"], json!([]));

    for connector in [&created, &link["connector"]] {
        let run = expect(&edge, "POST", &format!("{}/index", path(connector)), &curator, None, 200).await;
        assert_eq!(run["run"]["status"], "queued");
    }
    let arguments = ["ingest", "--serve", "--files", files.path().to_str().unwrap()];
    let _ingester = stage.run("ingester", &arguments, &[]);
    let runs = finished_runs(&edge, &curator, 2).await;
    let counts = |run: &Value| (run["counts"]["added"].clone(), run["counts"]["failed"].clone());
    assert_eq!(counts(&runs[1]), (json!(2), json!(3)), "the file and a link to it; no other link: {runs:#?}");
    assert_eq!((&runs[0]["status"], &runs[0]["counts"]["failed"]), (&json!("failed"), &json!(1)), "no link leads out");
    let sets = expect(&edge, "GET", "document-sets", &curator, None, 200).await;
    assert_eq!(sets, json!({"documentSets": [{"name": "hr", "documentCount": 2}]}));
    assert_eq!(expect(&edge, "GET", "indexing/runs", &elsewhere(), None, 200).await, json!({"runs": []}));
}

/// Asks until `count` runs have ended.
async fn finished_runs(edge: &Edge, token: &str, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let list = expect(edge, "GET", "indexing/runs", token, None, 200).await;
        let runs = list["runs"].as_array().unwrap();
        if runs.len() == count && runs.iter().all(|run| run["finishedAt"].is_string()) {
            return runs.clone();
        }
        assert!(began.elapsed() < WAIT_MAX, "{list:#}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_hosts_event_reaches_its_target_on_every_edge() {
    let stage = Stage::start().await;
    let (a, b) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.edge_with(&WITH_TOKENS));
    let admin = of_role("admin");
    let ada = token(json!({"sub": "ada"}));
    let (mut here, mut there) = (as_user(&a, &ada).await, as_user(&b, &ada).await);
    let mut colleague = as_user(&b, &token(json!({"sub": "bo"}))).await;
    let mut stranger = as_user(&b, &token(json!({"sub": "ada", "org": "globex"}))).await;
    let session = there.open_session().await;
    let agent = json!({"action": "create_conversation_session", "agentId": "support"});
    for client in [&mut here, &mut colleague, &mut stranger] {
        client.request(agent.clone()).await;
    }
    let mut n = 0;
    let cases: [(&str, &str, &[usize]); 7] = [
        ("user", "ada", &[0, 1]),
        ("org", "acme", &[0, 1, 2]),
        ("session", &session.id, &[1]),
        ("agent", "support", &[0, 2]),
        ("user", "nobody", &[]),
        ("session", "no id", &[]),
        ("connection", "no id", &[]),
    ];
    for (kind, id, expected) in cases {
        n += 1;
        let request = format!("event-{n}");
        let event = json!({"type": "keepalive", "requestId": request, "timestamp": 1_800_000_000_000_u64, "data": {"requestId": request}});
        let body = json!({"target": {"type": kind, "id": id}, "event": event});
        let answer = expect(&a, "POST", "publish", &admin, Some(body), 200).await;
        assert_eq!(answer, json!({"delivered": expected.len()}), "{kind} {id}");
        for (at, client) in [&mut here, &mut there, &mut colleague, &mut stranger].into_iter().enumerate() {
            // Frames are ordered: after the pong no earlier frame is outstanding.
            client.ping().await;
            let got = client.seen.iter().filter(|frame| **frame == event).count();
            assert_eq!(got, usize::from(expected.contains(&at)), "{kind} {id}, client {at}");
        }
    }
    let event = json!({"type": "x"});
    for (body, status) in [
        (json!({"target": {"type": "org", "id": "globex"}, "event": event}), 404),
        (json!({"target": {"type": "everybody", "id": "x"}, "event": event}), 400),
        (json!({"target": {"type": "user", "id": " "}, "event": event}), 400),
        (json!({"target": {"type": "user", "id": "x"}, "event": "text"}), 400),
        (json!({"target": {"type": "user", "id": "x"}, "event": {"x": "y".repeat(70_000)}}), 400),
        (json!({"event": event}), 400),
    ] {
        expect(&a, "POST", "publish", &admin, Some(body), status).await;
    }
}
