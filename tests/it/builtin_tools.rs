//! The built-in tools: offered once configured, their results and their refusals.

use serde_json::{Value, json};

use crate::{
    ingest::small_pdf,
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::{answer_text, kinds},
        gateway::Reply,
        processes::Process,
        tools::offered,
        web::{Page, WebServer},
    },
};

/// Returns a stage with a session and a worker configured by `variables`.
async fn scene(variables: &[(&str, &str)]) -> (Stage, Client, Session, (Edge, Process)) {
    let stage = Stage::start().await;
    let (edge, worker) = tokio::join!(stage.edge(), stage.worker_with(variables));
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    (stage, client, session, (edge, worker))
}

/// Has the model call a tool, and returns the result that the model gets.
async fn call(stage: &Stage, client: &mut Client, session: &Session, name: &str, arguments: Value) -> String {
    stage.gateway.script(Reply::tool_call(name, arguments));
    let id = format!("r{}", stage.gateway.requests().len());
    let turn = client.ask(session, &id, "do it").await;
    assert_eq!(kinds(&turn)[kinds(&turn).len() - 1], "eventual_response");
    assert!(!answer_text(&turn).is_empty());
    let request = stage.gateway.requests().pop().unwrap();
    let messages = request["messages"].as_array().unwrap();
    messages.iter().rfind(|message| message["role"] == "tool").unwrap()["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_built_in_tool_is_offered_by_default() {
    let (stage, mut client, session, _running) = scene(&[]).await;
    client.ask(&session, "r1", "hello").await;
    assert_eq!(offered(&stage.gateway.requests()[0]), Vec::<String>::new());
}

#[tokio::test]
async fn fetch_url_reads_listed_hosts_and_refuses_private_ones() {
    let secret = WebServer::start(|_| Page::new("text/plain", "the secret")).await;
    let inside = secret.url("/");
    let target = inside.clone();
    let server = WebServer::start(move |path| match path {
        "/page" => Page::new("text/html", "<title>T</title><nav>Menu</nav><p>Readable words.</p>"),
        "/away" => Page {
            status: 302,
            content_type: Box::leak(format!("text/plain\r\nlocation: {target}").into_boxed_str()),
            body: vec![],
        },
        "/paper" => Page::new("application/pdf", small_pdf("A printed sentence")),
        "/trap" => Page::new("application/pdf", [b"%PDF-1.4 1 0 obj ".as_slice(), &b"[".repeat(500_000)].concat()),
        "/picture" => Page::new("image/png", "x"),
        _ => Page::missing(),
    })
    .await;
    let allow = server.address.to_string();
    let (stage, mut client, session, _running) =
        scene(&[("SMOOTH_AGENT_FETCH", "1"), ("SMOOTH_AGENT_FETCH_ALLOW", &allow)]).await;
    let page = call(&stage, &mut client, &session, "fetch_url", json!({ "url": server.url("/page") })).await;
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((page["title"].as_str(), page["text"].as_str()), (Some("T"), Some("Readable words.")));
    assert_eq!(offered(&stage.gateway.requests()[0]), ["fetch_url"]);
    let paper = call(&stage, &mut client, &session, "fetch_url", json!({ "url": server.url("/paper") })).await;
    assert!(paper.contains("A printed sentence"), "{paper}");
    for (url, words) in [
        (server.url("/away"), "not on the public internet"),
        (inside, "not on the public internet"),
        ("http://169.254.169.254/latest/meta-data/".into(), "not on the public internet"),
        ("http://2130706433/".into(), "not on the public internet"),
        ("file:///etc/passwd".into(), "only http and https"),
        (server.url("/picture"), "image/png"),
        (server.url("/trap"), "Not read"),
        (server.url("/missing"), "404"),
        (String::new(), "`url` is required"),
    ] {
        let result = call(&stage, &mut client, &session, "fetch_url", json!({ "url": url })).await;
        assert!(result.contains(words), "{url}: {result}");
    }
    assert!(secret.paths().is_empty(), "{:?}", secret.paths());
}

#[tokio::test]
async fn searches_ask_the_configured_services() {
    let server = WebServer::start(|path| match path {
        "/search?q=red+lamps&format=json" => {
            let found = json!({"title": "Lamps", "url": "https://a.example/", "content": "x".repeat(1000), "score": 1});
            Page::new("application/json", json!({ "results": [found] }).to_string())
        }
        path if path.starts_with("/api/search/issues?q=flicker&") => {
            let found =
                json!({"title": "It flickers", "html_url": "https://github.com/a/b/1", "body": "b", "state": "open"});
            Page::new("application/json", json!({ "total_count": 1, "items": [found] }).to_string())
        }
        _ => Page::new("text/html", "no JSON"),
    })
    .await;
    let (search, github) = (server.url("/search"), server.url("/api/"));
    let (stage, mut client, session, _running) = scene(&[
        ("SMOOTH_AGENT_WEB_SEARCH_URL", &search),
        ("SMOOTH_AGENT_WEB_SEARCH_KEY", "k3y"),
        ("SMOOTH_AGENT_GITHUB_SEARCH", "1"),
        ("SMOOTH_AGENT_GITHUB_URL", &github),
        ("SMOOTH_AGENT_GITHUB_TOKEN", "t0ken"),
    ])
    .await;
    let found = call(&stage, &mut client, &session, "web_search", json!({ "query": "red lamps" })).await;
    assert!(found.contains("https://a.example/") && found.len() < 700, "{found}");
    let found =
        call(&stage, &mut client, &session, "github_search", json!({ "query": "flicker", "kind": "issues" })).await;
    assert!(found.contains("It flickers") && found.contains("\"total\":1"), "{found}");
    assert_eq!(offered(&stage.gateway.requests()[0]), ["github_search", "web_search"]);
    let heads = server.heads();
    assert!(heads[0].contains("Bearer k3y") && heads[1].contains("Bearer t0ken"), "{heads:?}");
    for (name, arguments) in [
        ("web_search", json!({ "query": "something else" })),
        ("web_search", json!({})),
        ("github_search", json!({ "query": "x", "kind": "people" })),
    ] {
        let result = call(&stage, &mut client, &session, name, arguments.clone()).await;
        assert!(!result.contains("results"), "{name} {arguments}: {result}");
    }
}

#[tokio::test]
async fn a_long_conversation_can_be_read_back() {
    let (stage, mut client, session, _running) = scene(&[]).await;
    for number in 0..27 {
        client.ask(&session, &format!("q{number}"), &format!("My question number {number} is about lamps.")).await;
    }
    let requests = stage.gateway.requests();
    assert_eq!(offered(&requests[0]), Vec::<String>::new(), "not while the model has everything");
    assert_eq!(offered(&requests[26]), ["conversation_history"]);
    let found = call(&stage, &mut client, &session, "conversation_history", json!({ "words": "LAMPS 0" })).await;
    let found: Value = serde_json::from_str(&found).unwrap();
    let texts: Vec<&str> = found["messages"].as_array().unwrap().iter().map(|m| m["text"].as_str().unwrap()).collect();
    assert!(texts.contains(&"My question number 0 is about lamps."), "{texts:?}");
    assert!(texts.iter().all(|text| text.contains('0')), "{texts:?}");
    let page = call(&stage, &mut client, &session, "conversation_history", json!({})).await;
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((page["messages"].as_array().unwrap().len(), &page["hasOlder"]), (20, &json!(true)));
}
