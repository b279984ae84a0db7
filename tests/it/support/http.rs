//! Plain HTTP requests to an edge.

use std::sync::OnceLock;

use reqwest::{Client, Method, Response};
use serde_json::Value;

use super::Edge;

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A connection of its own for every request: a runtime of a test that has ended serves none.
        Client::builder().pool_max_idle_per_host(0).build().unwrap()
    })
}

/// Sends a request, which must be answered.
pub async fn send(edge: &Edge, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Response {
    let method: Method = method.parse().unwrap();
    let mut request = client().request(method, format!("http://{}{path}", edge.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await.unwrap()
}

/// A request with a bearer token: status and JSON of the answer; nothing is `null`.
pub async fn call(edge: &Edge, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> (u16, Value) {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    let response = send(edge, method, path, &headers, body).await;
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    (
        status,
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")) },
    )
}
