//! Clients that ask for much and never read cost the edge a bounded amount of memory, and nobody else anything.

use futures_util::{StreamExt, future::join_all};
use serde_json::Value;
use tokio::{
    net::TcpSocket,
    time::{Instant, timeout_at},
};

use crate::support::{
    Edge, Stage, WAIT_MAX,
    client::{Client, Session},
    frames::answer_text,
    gateway::Reply,
};

const SOCKETS: usize = 20;
/// Together some 6 MB of frames a turn: more than the kernel keeps for a socket.
const TOKENS: usize = 48;
const TOKEN_BYTES: usize = 64 * 1024;
/// Far above what a bounded edge needs and far below what it would cost to keep everything.
const GROWTH_MAX_KIB: u64 = 64 * 1024;

fn much_text(request: &Value) -> Option<Reply> {
    let message = request["messages"].as_array()?.last()?["content"].as_str()?;
    (message == "much").then(|| Reply::tokens(vec!["x".repeat(TOKEN_BYTES); TOKENS]))
}

/// A client with a small window, whose turn is accepted and which then stops reading.
async fn stops_reading(edge: &Edge) -> (Client, Session) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let tcp = socket.connect(edge.address.parse().unwrap()).await.unwrap();
    let mut client = Client::over(edge, tcp).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "much").await;
    (client, session)
}

/// The most memory that a process has had so far.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_do_not_read_are_closed_and_hold_up_nobody() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    stage.gateway.respond_with(much_text);
    let mut ends = stage.nats.client().await.subscribe("chat.local.*.*.turn.failed").await.unwrap();
    let mut healthy = Client::connect(&edge).await;
    let session = healthy.open_session().await;
    healthy.ask(&session, "before", "a word").await;
    let before = peak_kib(edge.process.pid());

    let mut slow = join_all((0..SOCKETS).map(|_| stops_reading(&edge))).await;
    let deadline = Instant::now() + 2 * WAIT_MAX;
    for n in 0..SOCKETS {
        let turn = healthy.ask(&session, &format!("r{n}"), "a word").await;
        assert_eq!(answer_text(&turn), "ok");
        timeout_at(deadline, ends.next()).await.unwrap_or_else(|_| panic!("only {n} of the large turns have ended"));
    }
    healthy.ping().await;
    let growth = peak_kib(edge.process.pid()) - before;
    assert!(growth < GROWTH_MAX_KIB, "the edge grew by {growth} KiB");

    for (client, _) in &mut slow {
        let code = client.close_code().await;
        assert!(matches!(code, None | Some(1013)), "closed with {code:?}");
    }
    let (mut again, session) = (Client::connect(&edge).await, &slow[0].1);
    assert_eq!(again.history(session).await, ["much"]);
    assert_eq!(answer_text(&again.ask(session, "r2", "a word").await), "ok");
}
