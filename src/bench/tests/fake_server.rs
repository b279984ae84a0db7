//! A server that speaks just enough of the protocol to be measured, and can be told to misbehave.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::super::plan::TurnPlan;

/// The server's fault, in turns of more than a handful of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    None,
    DoubleToken,
    LoseToken,
    LoseLastToken,
    SwapTokens,
    NoTerminal,
    DoubleTerminal,
    LateAccept,
    OtherReply,
    FailTurn,
    HangUp,
    NoModel,
    ShortHistory,
}

/// A session, which survives its connections.
#[derive(Default)]
struct Session {
    messages: usize,
    /// The frames of its turns. A cursor is the number of frames so far.
    frames: Vec<Value>,
    /// The connections that watch it.
    out: Vec<Out>,
}

type Out = UnboundedSender<Option<Value>>;
type Sessions = Arc<Mutex<HashMap<String, Session>>>;

/// Warm-up turns stay correct, so that each fault is found in the measured turns.
const MISCHIEF_FROM_TOKENS: u32 = 10;

/// Serves until its runtime ends; returns its address as a URL.
pub async fn start(gateway: SocketAddr, mischief: Mischief) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sessions = Sessions::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, gateway, mischief, sessions.clone()));
        }
    });
    format!("ws://{address}/ws")
}

async fn serve(stream: TcpStream, gateway: SocketAddr, mischief: Mischief, sessions: Sessions) {
    stream.set_nodelay(true).unwrap();
    let (mut sink, mut source) = accept_async(stream).await.unwrap().split();
    let (out, mut outgoing) = unbounded_channel::<Option<Value>>();
    tokio::spawn(async move {
        while let Some(Some(frame)) = outgoing.recv().await {
            if sink.send(Message::text(frame.to_string())).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    });
    while let Some(Ok(Message::Text(text))) = source.next().await {
        let action: Value = serde_json::from_str(&text).unwrap();
        let session = action["sessionId"].as_str().unwrap_or_default().to_owned();
        if action["action"] == "send_message" {
            sessions.lock().unwrap().entry(session.clone()).or_default().go_on(&out);
            let show = Show { session, sessions: sessions.clone(), to: out.clone() };
            tokio::spawn(turn(action, gateway, mischief, show));
            continue;
        }
        let mut sessions = sessions.lock().unwrap();
        let messages = sessions.get(&session).map_or(0, |session| session.messages);
        out.send(Some(answer(&action, messages, mischief))).unwrap();
        if action["action"] == "resume_session"
            && let Some(resumed) = sessions.get_mut(&session)
        {
            resumed.watch(&out);
            let seen = action["seq"].as_str().map_or(resumed.frames.len(), |seq| seq.parse().unwrap());
            resumed.frames[seen..].iter().for_each(|frame| out.send(Some(frame.clone())).unwrap());
        }
    }
    let _ = out.send(None);
}

impl Session {
    fn go_on(&mut self, out: &Out) {
        self.messages += 2;
        self.watch(out);
    }

    fn watch(&mut self, out: &Out) {
        self.out.retain(|other| !other.is_closed() && !other.same_channel(out));
        self.out.push(out.clone());
    }
}

/// Sends a turn's frames to the session's connections; its 202 goes to the connection of the message alone.
struct Show {
    session: String,
    sessions: Sessions,
    /// The connection of the message.
    to: Out,
}

impl Show {
    fn frame(&self, mut frame: Value) {
        let mut sessions = self.sessions.lock().unwrap();
        let session = sessions.entry(self.session.clone()).or_default();
        frame["seq"] = json!((session.frames.len() + 1).to_string());
        session.frames.push(frame.clone());
        let is_answer = frame["type"] == "immediate_response";
        for out in session.out.iter().filter(|out| !is_answer || out.same_channel(&self.to)) {
            // The client may be gone, which is allowed.
            let _ = out.send(Some(frame.clone()));
        }
    }
}

fn answer(action: &Value, messages: usize, mischief: Mischief) -> Value {
    let session = |id: &str| json!({"sessionId": id, "conversationId": id});
    let ok = |data| {
        let request_id = &action["requestId"];
        json!({"type": "immediate_response", "requestId": request_id, "status": 200, "data": data})
    };
    match action["action"].as_str().unwrap() {
        "ping" => json!({"type": "pong", "requestId": action["requestId"], "data": {}}),
        "create_conversation_session" => ok(session(&Uuid::new_v4().to_string())),
        "resume_session" => ok(json!({})),
        "list_conversations" => ok(json!({"conversations": vec![json!({}); 20]})),
        "get_session" => ok(session(action["sessionId"].as_str().unwrap())),
        "get_conversation_messages" => ok(page(messages, action, mischief)),
        other => panic!("unexpected action {other}"),
    }
}

fn page(messages: usize, action: &Value, mischief: Mischief) -> Value {
    let limit = action["limit"].as_u64().unwrap() as usize;
    let shown = limit.min(messages) - usize::from(mischief == Mischief::ShortHistory);
    let message = |number: usize| {
        let direction = if number.is_multiple_of(2) { "outbound" } else { "inbound" };
        json!({"id": number.to_string(), "direction": direction})
    };
    let page: Vec<Value> = (0..shown).map(message).collect();
    json!({"messages": page, "nextCursor": "c", "hasMore": shown < messages})
}

/// Runs one turn: asks the gateway, relays its tokens as they come, and ends.
async fn turn(action: Value, gateway: SocketAddr, mischief: Mischief, out: Show) {
    let message = action["message"].as_str().unwrap();
    let is_warm_up = TurnPlan::find(message).unwrap().tokens < MISCHIEF_FROM_TOKENS;
    let mischief = if is_warm_up { Mischief::None } else { mischief };
    let frame = |kind: &str| json!({"type": kind, "requestId": action["requestId"]});
    let mut accepted = frame("immediate_response");
    accepted["status"] = json!(202);
    if mischief != Mischief::LateAccept {
        out.frame(accepted.clone());
    }
    if mischief == Mischief::HangUp {
        return out.to.send(None).unwrap();
    }
    let show = |text: String| {
        let mut token = frame("stream_token");
        token["token"] = json!(text);
        out.frame(token);
    };
    let mut text = relay(gateway, message, mischief, show).await;
    if mischief == Mischief::LateAccept {
        out.frame(accepted);
    }
    if mischief == Mischief::OtherReply {
        text.push_str(" and more");
    }
    let mut reply = frame("eventual_response");
    reply["data"] = json!({"data": {"response": {"responseParts": [text]}}});
    let mut error = frame("error");
    error["error"] = json!({"code": "AGENT_ERROR", "message": "it did not work"});
    let terminals = match mischief {
        Mischief::NoTerminal => vec![],
        Mischief::DoubleTerminal => vec![reply.clone(), reply],
        Mischief::FailTurn => vec![error],
        _ => vec![reply],
    };
    for terminal in terminals {
        out.frame(terminal);
    }
}

/// Relays the gateway's tokens, one frame for each piece that arrived together; returns the whole text.
async fn relay(gateway: SocketAddr, message: &str, mischief: Mischief, show: impl Fn(String)) -> String {
    let plan = TurnPlan::find(message).unwrap();
    if mischief == Mischief::NoModel {
        let text: String = (0..plan.tokens).map(|index| format!(" t{index}:0")).collect();
        show(text.clone());
        return text;
    }
    let mut model = ask(gateway, message).await;
    let (mut whole, mut frame, mut held) = (String::new(), String::new(), String::new());
    let mut index = 0;
    while let Some(line) = model.next_line().await.unwrap() {
        let Some(event) = line.strip_prefix("data: {") else { continue };
        let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
        let Some(token) = event["choices"][0]["delta"]["content"].as_str() else { continue };
        whole.push_str(token);
        match mischief {
            Mischief::DoubleToken if index == 5 => frame.push_str(&token.repeat(2)),
            Mischief::LoseToken if index == 5 => {}
            Mischief::LoseLastToken if index + 1 == plan.tokens => {}
            Mischief::SwapTokens if index == 5 => held.push_str(token),
            _ => frame.push_str(&(token.to_owned() + &std::mem::take(&mut held))),
        }
        index += 1;
        let more = model.get_ref().buffer().windows(6).any(|bytes| bytes == b"data: ");
        if !frame.is_empty() && !more {
            show(std::mem::take(&mut frame));
        }
    }
    if !frame.is_empty() {
        show(frame);
    }
    whole
}

async fn ask(gateway: SocketAddr, message: &str) -> HttpLines {
    let body = json!({
        "model": "any",
        "stream": true,
        "stream_options": {"include_usage": true},
        "messages": [
            {"role": "system", "content": "You help."},
            {"role": "user", "content": [{"type": "text", "text": message}]},
        ],
    });
    post(gateway, "/v1/chat/completions", &body).await
}

/// The lines of an HTTP answer. Each chunk holds whole lines, so the chunk sizes are lines too.
pub type HttpLines = Lines<BufReader<TcpStream>>;

pub async fn post(gateway: SocketAddr, path: &str, body: &Value) -> HttpLines {
    let body = body.to_string();
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    BufReader::new(stream).lines()
}
