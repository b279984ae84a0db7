//! Plain HTTP requests to an edge.

use std::sync::OnceLock;

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Edge, WAIT_MAX};

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No pooled connections, since they would belong to the runtime of a test that may have ended.
        Client::builder().pool_max_idle_per_host(0).build().unwrap()
    })
}

/// Gets an address outside of an edge.
pub async fn get(url: &str) -> Response {
    client().get(url).send().await.unwrap()
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

/// Sends a request with a bearer token; returns status and JSON of the answer, `null` for an empty one.
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

/// A WebSocket opened by hand, without a task that reads it or answers its pings.
pub struct RawSocket(TcpStream);

pub async fn raw_handshake(edge: &Edge) -> RawSocket {
    let mut stream = TcpStream::connect(&edge.address).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    RawSocket(stream)
}

impl RawSocket {
    /// Reads until the server ends the connection, without answering pings.
    pub async fn read_until_closed(mut self) -> String {
        let mut said = Vec::new();
        timeout(WAIT_MAX, self.0.read_to_end(&mut said)).await.expect("the server ends the connection").unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }
}
