//! `turnstream ingest` from the web: pages, sitemaps, repositories, and refused addresses.

use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::{
    ingest::{content, counts, heads, ingest},
    support::{
        Stage,
        web::{Page, WebServer},
    },
};

#[tokio::test]
async fn a_sitemap_adds_and_removes_its_pages() {
    let stage = Stage::start().await;
    let pages = Arc::new(Mutex::new(vec!["/a", "/b.md"]));
    let listed = pages.clone();
    let host: Arc<Mutex<String>> = Arc::default();
    let own = host.clone();
    let server = WebServer::start(move |path| {
        let root = own.lock().unwrap().clone();
        match path {
            "/sitemap.xml" => {
                let locations = listed
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|page| format!("<url><loc>{root}{page}</loc></url>"))
                    .collect::<String>();
                Page::new("application/xml", format!("<urlset>{locations}</urlset>"))
            }
            "/index.xml" => Page::new(
                "text/xml",
                format!("<sitemapindex><sitemap><loc>{root}/sitemap.xml</loc></sitemap></sitemapindex>"),
            ),
            "/a" => Page::new("text/html; charset=utf-8", "<title>Page A</title><p>Says A.</p>"),
            "/b.md" => Page::new("text/plain", "# Page B\n\nSays B."),
            _ => Page::missing(),
        }
    })
    .await;
    *host.lock().unwrap() = server.url("");
    let (address, index) = (server.address.to_string(), server.url("/index.xml"));
    let (arguments, allow) = (["--sitemap", index.as_str()], [("SMOOTH_AGENT_FETCH_ALLOW", address.as_str())]);
    let (summary, done) = ingest(&stage, &arguments, &allow).await;
    assert!(done && counts(&summary) == [2, 0, 0, 0, 0], "{summary}");
    let there = heads(&stage).await;
    let a = &there[&server.url("/a")];
    assert_eq!(
        (a.title.as_str(), a.url.as_deref(), a.source.as_str()),
        ("Page A", Some(server.url("/a").as_str()), index.as_str())
    );
    assert_eq!(there[&server.url("/b.md")].title, "Page B");
    *pages.lock().unwrap() = vec!["/a", "/gone"];
    // A listed page without an answer is a failure, not a deletion; a page that is no longer listed is deleted.
    let (summary, done) = ingest(&stage, &arguments, &allow).await;
    assert!(!done && counts(&summary) == [0, 0, 1, 1, 1], "{summary}");
    assert!(json!(content(&stage).await).to_string().contains("Says A."));
    // Unless the operator allows it, the server counts as not public, and gets no request.
    let asked = server.paths().len();
    let (summary, done) = ingest(&stage, &[&server.url("/a"), "--source", "other"], &[]).await;
    assert!(!done && server.paths().len() == asked, "{summary}");
}

#[tokio::test]
async fn a_repository_is_read_by_its_changes() {
    let stage = Stage::start().await;
    let tree = Arc::new(Mutex::new(vec![
        ("docs/a.md", "sha-a1"),
        ("docs/b.txt", "sha-b1"),
        ("src/main.rs", "sha-m"),
        ("top.md", "sha-t"),
    ]));
    let now = tree.clone();
    let server = WebServer::start(move |path| match path {
        "/api/repos/acme/help/git/trees/v2?recursive=1" => {
            let entry = |(path, sha): &(&str, &str)| json!({"path": path, "type": "blob", "sha": sha, "size": 1});
            let entries: Vec<_> = now.lock().unwrap().iter().map(entry).collect();
            Page::new("application/json", json!({"sha": "tree", "truncated": false, "tree": entries}).to_string())
        }
        _ => match path.strip_prefix("/api/repos/acme/help/git/blobs/") {
            Some(sha) => Page::new("application/octet-stream", format!("# Text of {sha}")),
            None => Page::missing(),
        },
    })
    .await;
    let api = server.url("/api");
    let variables = [("SMOOTH_AGENT_GITHUB_URL", api.as_str()), ("MY_TOKEN", "t0ken")];
    let arguments = ["github:acme/help@v2/docs", "--token-env", "MY_TOKEN"];
    let (summary, done) = ingest(&stage, &arguments, &variables).await;
    assert!(done && counts(&summary) == [2, 0, 0, 0, 0], "{summary}");
    let there = heads(&stage).await;
    let a = &there["docs/a.md"];
    assert_eq!((a.title.as_str(), a.source.as_str()), ("Text of sha-a1", "github:acme/help@v2/docs"));
    assert_eq!(a.url.as_deref(), Some("https://github.com/acme/help/blob/v2/docs/a.md"));
    assert!(server.heads().iter().all(|head| head.contains("Bearer t0ken")));
    *tree.lock().unwrap() = vec![("docs/a.md", "sha-a2"), ("docs/c.md", "sha-c")];
    let before = server.paths().len();
    assert_eq!(counts(&ingest(&stage, &arguments, &variables).await.0), [1, 1, 0, 1, 0]);
    assert_eq!(counts(&ingest(&stage, &arguments, &variables).await.0), [0, 0, 2, 0, 0]);
    // The first run after the change fetches the tree and two blobs, the second one the tree alone.
    assert_eq!(server.paths().len(), before + 4);
}
