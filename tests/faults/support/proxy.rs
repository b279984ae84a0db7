//! A proxy before the NATS server that can be cut, and on which requests or answers can be held back.
//!
//! Contract: bytes go both ways unchanged and in order. Bytes under way at a cut are lost; bytes that are held back
//! come later.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::WAIT_MAX;

/// A running proxy; it ends with the value.
pub struct Proxy {
    port: u16,
    way: Arc<Way>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy)]
enum Held {
    Requests,
    Answers,
}

struct Way {
    target: String,
    /// Ends the current connections.
    cut: Mutex<CancellationToken>,
    /// The words after which requests, or answers, are held back.
    trap: Mutex<Option<(&'static str, Held)>>,
    held: watch::Sender<bool>,
    /// Requests are held back.
    stalled: watch::Sender<bool>,
    /// New connections are refused.
    away: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy for a server's URL.
    pub async fn start(nats_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = nats_url.trim_start_matches("nats://").to_owned();
        let no = || watch::channel(false).0;
        let (cut, trap) = (Mutex::default(), Mutex::default());
        let way = Arc::new(Way { target, cut, trap, held: no(), stalled: no(), away: no() });
        let task = tokio::spawn(accept(listener, way.clone()));
        Self { port, way, task }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends every connection, as a short network failure does.
    pub fn cut(&self) {
        std::mem::take(&mut *self.way.cut.lock().unwrap()).cancel();
    }

    /// Cuts again and again.
    pub async fn flap(&self, times: usize, every: Duration) {
        for _ in 0..times {
            self.cut();
            tokio::time::sleep(every).await;
        }
    }

    /// Cuts, and refuses connections until `back`.
    pub fn leave(&self) {
        self.way.away.send_replace(true);
        self.cut();
    }

    pub fn back(&self) {
        self.way.away.send_replace(false);
    }

    /// Holds all requests back, beginning with the one that holds these words.
    pub fn hold_requests_from(&self, said: &'static str) {
        *self.way.trap.lock().unwrap() = Some((said, Held::Requests));
    }

    /// Holds all answers back as soon as a request to the server holds these words.
    pub fn hold_answers_after(&self, said: &'static str) {
        *self.way.trap.lock().unwrap() = Some((said, Held::Answers));
    }

    /// Waits until answers are held back.
    pub async fn holds(&self) {
        let mut held = self.way.held.subscribe();
        timeout(WAIT_MAX, held.wait_for(|held| *held)).await.expect("the proxy holds the message in time").unwrap();
    }

    /// Releases requests and answers.
    pub fn let_go(&self) {
        *self.way.trap.lock().unwrap() = None;
        self.way.held.send_replace(false);
        self.way.stalled.send_replace(false);
    }
}

impl Way {
    /// Holds back from now on, if these bytes hold the awaited words.
    fn listen(&self, said: &[u8]) {
        let said = String::from_utf8_lossy(said);
        let sprung = self.trap.lock().unwrap().take_if(|(awaited, _)| said.contains(*awaited));
        match sprung {
            Some((_, Held::Requests)) => drop(self.stalled.send_replace(true)),
            Some((_, Held::Answers)) => drop(self.held.send_replace(true)),
            None => {}
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, way: Arc<Way>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        // An unavailable server: the client sees its connection end.
        if *way.away.borrow() {
            continue;
        }
        let Ok(server) = TcpStream::connect(&way.target).await else { continue };
        if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
            continue;
        }
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let cut = way.cut.lock().unwrap().clone();
        let way = way.clone();
        tokio::spawn(async move {
            // Each direction ends by itself and closes the side that it writes to. Requests that are held back reach
            // the server also when their client has closed its connection meanwhile.
            let both = async { tokio::join!(ask(&way, from_client, to_server), answer(&way, from_server, to_client)) };
            cut.run_until_cancelled(both).await;
        });
    }
}

async fn ask(way: &Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (mut buffer, mut stalled) = (vec![0; 64 * 1024], way.stalled.subscribe());
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        way.listen(&buffer[..length]);
        let passes = stalled.wait_for(|stalled| !stalled).await.is_ok();
        if !passes || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn answer(way: &Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (mut buffer, mut held) = (vec![0; 64 * 1024], way.held.subscribe());
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let passes = held.wait_for(|held| !held).await.is_ok();
        if !passes || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
