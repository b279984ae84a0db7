//! Clients that ask for much and never read cost the edge a bounded amount of memory, and other clients nothing.

use futures_util::{StreamExt, future::join_all};
use serde_json::Value;
use tokio::{
    net::TcpSocket,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Edge, Stage, WAIT_MAX,
    client::{Client, Session},
    frames::{answer_text, tool_activity},
    gateway::Reply,
    tools::{Provider, Tool},
};

const SOCKETS: usize = 20;
/// Together some 6 MB of frames a turn: more than the kernel buffers for a socket.
const TOKENS: usize = 48;
const TOKEN_BYTES: usize = 64 * 1024;
/// Far above the need of a bounded edge and far below the size of all the frames.
const GROWTH_MAX_KIB: u64 = 64 * 1024;

fn much_text(request: &Value) -> Option<Reply> {
    let message = request["messages"].as_array()?.last()?["content"].as_str()?;
    (message == "much").then(|| Reply::tokens(vec!["x".repeat(TOKEN_BYTES); TOKENS]))
}

/// Returns a client with a small window and an accepted turn that stops reading.
async fn stops_reading(edge: &Edge) -> (Client, Session) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let tcp = socket.connect(edge.address.parse().unwrap()).await.unwrap();
    let mut client = Client::over(edge, tcp).await;
    let session = client.open_session().await;
    client.begin(&session, "r1", "much").await;
    (client, session)
}

/// Reads to the end; returns true if the connection ends before the turn does.
async fn is_closed(client: &mut Client) -> bool {
    loop {
        match client.message().await {
            Some(Ok(Message::Text(text))) if text.contains("\"type\":\"error\"") => return false,
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map(|frame| u16::from(frame.code));
                assert!(matches!(code, None | Some(1013)), "closed with {code:?}");
                return true;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return true,
        }
    }
}

/// Returns the peak memory of a process so far.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_do_not_read_are_closed_without_delaying_others() {
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

    // Frames that fit into the socket and the queue are no reason to close; together those can't have held all of them.
    let mut closed = 0;
    for (client, _) in &mut slow {
        closed += usize::from(is_closed(client).await);
    }
    assert!(closed > 0, "no client was closed");
    let (mut again, session) = (Client::connect(&edge).await, &slow[0].1);
    assert_eq!(again.history(session).await, ["much"]);
    assert_eq!(answer_text(&again.ask(session, "r2", "a word").await), "ok");
}

/// Results of control characters take six times their size in a frame.
#[tokio::test]
async fn a_late_reader_gets_all_frames_of_large_results() {
    let results = 24;
    let stage = Stage::start().await;
    let large: &'static str = "\u{1}".repeat(64 * 1024).leak();
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("dump", large)]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let calls = vec![("dump".to_owned(), "{}".to_owned()); results];
    stage.gateway.respond_with(move |request| {
        let asks = request["messages"].as_array()?.last()?["role"] == "user";
        asks.then(|| Reply::tool_calls(calls.clone()))
    });
    // Two turns run at once, and neither is read before both have made their last model call.
    let mut readers = Vec::new();
    for _ in 0..2 {
        readers.push(stops_reading(&edge).await);
    }
    stage.gateway.wait_for_requests(2 * readers.len()).await;
    for (client, _) in &mut readers {
        let turn = client.turn("r1").await;
        assert_eq!(answer_text(&turn), "ok");
        let shown: Vec<String> = tool_activity(&turn).into_iter().filter(|text| text.starts_with("result")).collect();
        assert_eq!(shown.len(), results);
        for text in shown {
            assert!(text.ends_with("[cut: the result is longer]") && text.len() < 8 * 1024, "{} bytes", text.len());
        }
    }
    // The log has the whole result, and so has the model.
    let request = stage.gateway.requests().pop().unwrap();
    let given = request["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    assert_eq!(given, large);
}
