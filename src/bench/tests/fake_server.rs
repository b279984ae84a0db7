//! A server that speaks just enough of the protocol to be measured, and can be told to misbehave.

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::super::plan::Plan;

/// What the server does wrong, in turns of more than a handful of tokens.
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

/// Warm-up turns stay correct, so that each fault is found where it is looked for.
const MISCHIEF_FROM_TOKENS: u32 = 10;

/// Serves until its runtime ends; returns its address as a URL.
pub async fn start(gateway: SocketAddr, mischief: Mischief) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, gateway, mischief));
        }
    });
    format!("ws://{address}/ws")
}

async fn serve(stream: TcpStream, gateway: SocketAddr, mischief: Mischief) {
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
    let mut messages: HashMap<String, usize> = HashMap::new();
    while let Some(Ok(Message::Text(text))) = source.next().await {
        let action: Value = serde_json::from_str(&text).unwrap();
        let session = action["sessionId"].as_str().unwrap_or_default().to_owned();
        if action["action"] == "send_message" {
            *messages.entry(session).or_default() += 2;
            tokio::spawn(turn(action, gateway, mischief, out.clone()));
            continue;
        }
        let count = messages.get(&session).copied().unwrap_or_default();
        out.send(Some(answer(&action, count, mischief))).unwrap();
    }
    let _ = out.send(None);
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
        "get_session" => ok(session(action["sessionId"].as_str().unwrap())),
        "get_conversation_messages" => ok(page(messages, action, mischief)),
        other => panic!("the bench has no business with {other}"),
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

/// One turn: asks the gateway, relays its tokens as they come, ends.
async fn turn(action: Value, gateway: SocketAddr, mischief: Mischief, out: UnboundedSender<Option<Value>>) {
    let message = action["message"].as_str().unwrap();
    let is_warm_up = Plan::find(message).unwrap().tokens < MISCHIEF_FROM_TOKENS;
    let mischief = if is_warm_up { Mischief::None } else { mischief };
    let frame = |kind: &str| json!({"type": kind, "requestId": action["requestId"]});
    let mut accepted = frame("immediate_response");
    accepted["status"] = json!(202);
    if mischief != Mischief::LateAccept {
        out.send(Some(accepted.clone())).unwrap();
    }
    if mischief == Mischief::HangUp {
        return out.send(None).unwrap();
    }
    let show = |text: String| {
        let mut token = frame("stream_token");
        token["token"] = json!(text);
        // The client may be gone, which is its right.
        let _ = out.send(Some(token));
    };
    let mut text = relay(gateway, message, mischief, show).await;
    if mischief == Mischief::LateAccept {
        out.send(Some(accepted)).unwrap();
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
        let _ = out.send(Some(terminal));
    }
}

/// Shows what the gateway's model says, in one frame what came in one piece; returns the whole.
async fn relay(gateway: SocketAddr, message: &str, mischief: Mischief, show: impl Fn(String)) -> String {
    let plan = Plan::find(message).unwrap();
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
