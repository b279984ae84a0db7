//! A web server that answers by path: a site, GitHub's API, a search engine.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The answer to a path.
pub struct Page {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Page {
    pub fn new(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content_type, body: body.into() }
    }

    pub fn missing() -> Self {
        Self { status: 404, content_type: "text/plain", body: vec![] }
    }
}

type Rule = Arc<dyn Fn(&str) -> Page + Send + Sync>;

/// A running server, stopped on drop.
pub struct WebServer {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl WebServer {
    /// Starts a server that answers each path and query by `rule`.
    pub async fn start(rule: impl Fn(&str) -> Page + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (rule, seen): (Rule, _) = (Arc::new(rule), heads.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, rule.clone(), seen.clone()));
            }
        });
        Self { address, heads }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Returns the paths and queries of all requests so far.
    pub fn paths(&self) -> Vec<String> {
        self.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
    }
}

async fn serve(mut socket: TcpStream, rule: Rule, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let page = rule(head.split(' ').nth(1).unwrap_or_default());
    seen.lock().unwrap().push(head);
    let answer = format!(
        "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        page.status,
        page.content_type,
        page.body.len()
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.write_all(&page.body).await
}
