//! A WebSocket client that may lose its connection.
//!
//! Contract: every frame is checked strictly as it is read. On a connection of the resume extension a frame may also
//! carry `seq`, on any other it must not. A wait that does not end fails the test with the frames that came.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, tungstenite::Message};

use super::{
    WAIT_MAX,
    frames::{is_terminal, kind, request_id},
    validate,
};

/// The connection is over, or could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The kind of frames that the client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Standard,
    Resume,
}

/// A connection to an edge.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    speaks: Speaks,
    /// Frames that came while another one was awaited.
    waiting: VecDeque<Value>,
    /// Every frame so far, in the order of arrival.
    pub seen: Vec<Value>,
    actions: usize,
}

impl Client {
    pub async fn connect(address: &str, speaks: Speaks) -> Result<Self, Lost> {
        let tcp = TcpStream::connect(address).await.map_err(|_| Lost)?;
        tcp.set_nodelay(true).map_err(|_| Lost)?;
        let query = if speaks == Speaks::Resume { "?v=resume" } else { "" };
        let handshake = client_async(format!("ws://{address}/ws{query}"), MaybeTlsStream::Plain(tcp));
        let (socket, _) = timeout(WAIT_MAX, handshake).await.expect("a handshake in time").map_err(|_| Lost)?;
        Ok(Self { socket, speaks, waiting: VecDeque::new(), seen: Vec::new(), actions: 0 })
    }

    pub async fn send(&mut self, action: &Value) -> Result<(), Lost> {
        self.socket.send(Message::text(action.to_string())).await.map_err(|_| Lost)
    }

    /// Returns the next frame that was not taken yet.
    pub async fn next(&mut self) -> Result<Value, Lost> {
        match self.waiting.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Result<Value, Lost> {
        loop {
            let message = timeout(WAIT_MAX, self.socket.next()).await;
            match message.unwrap_or_else(|_| panic!("nothing came in time; so far: {:#?}", self.seen)) {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                    self.check(&frame);
                    self.seen.push(frame.clone());
                    return Ok(frame);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_) | Err(_)) | None => return Err(Lost),
            }
        }
    }

    fn check(&self, frame: &Value) {
        let mut standard = frame.clone();
        if self.speaks == Speaks::Resume {
            let seq = standard.as_object_mut().and_then(|fields| fields.remove("seq"));
            assert!(seq.is_none_or(|seq| seq.is_string()), "seq is a text, in {frame:#}");
        }
        if let Err(problem) = validate::frame(&standard) {
            panic!("{problem}, in {frame:#}");
        }
    }

    /// Sends an action and waits for its answer; frames of other requests are kept for later.
    pub async fn request(&mut self, mut action: Value) -> Result<Value, Lost> {
        self.actions += 1;
        let id = action.get("requestId").and_then(Value::as_str).map(str::to_owned);
        let id = id.unwrap_or_else(|| format!("action-{}", self.actions));
        action["requestId"] = json!(id);
        self.send(&action).await?;
        loop {
            let frame = self.read().await?;
            let answers = matches!(kind(&frame), "pong" | "immediate_response" | "error");
            if answers && request_id(&frame) == Some(&id) {
                return Ok(frame);
            }
            self.waiting.push_back(frame);
        }
    }

    /// Makes a round trip: all earlier frames of the edge have arrived afterwards.
    pub async fn ping(&mut self) {
        assert_eq!(kind(&self.request(json!({"action": "ping"})).await.unwrap()), "pong");
    }

    /// Opens a session on a new conversation. Returns the error frame if storage is unavailable.
    pub async fn try_open_session(&mut self) -> Result<Result<String, Value>, Lost> {
        let created = self.request(json!({"action": "create_conversation_session"})).await?;
        Ok(created["data"]["sessionId"].as_str().map(str::to_owned).ok_or(created))
    }

    pub async fn open_session(&mut self) -> String {
        self.try_open_session().await.unwrap().unwrap()
    }

    /// Sends a message, which must be accepted.
    pub async fn begin(&mut self, session: &str, id: &str, message: &str) {
        let answer = self.request(message_action(session, id, message)).await.unwrap();
        assert_eq!(answer["status"], 202, "{answer:#}");
    }

    /// Asks for a session's state and for the frames missed since `seq`; returns the answer.
    pub async fn resume_session(&mut self, session: &str, seq: Option<&str>) -> Result<Value, Lost> {
        self.request(resume_action(session, seq)).await
    }

    pub async fn confirm(&mut self, session: &str, approved: bool) -> Result<Value, Lost> {
        self.request(json!({"action": "confirm_tool_action", "sessionId": session, "approved": approved})).await
    }

    /// Returns the frames of a turn up to its end; frames of other requests are kept for later.
    pub async fn turn(&mut self, id: &str) -> Vec<Value> {
        self.frames_until(id, is_terminal).await
    }

    /// Returns the frames of a turn up to one of this type, which must come before the turn's end.
    pub async fn turn_until(&mut self, id: &str, wanted: &str) -> Vec<Value> {
        let frames = self.frames_until(id, |frame| kind(frame) == wanted || is_terminal(frame)).await;
        assert_eq!(frames.last().map(kind), Some(wanted), "{frames:#?}");
        frames
    }

    async fn frames_until(&mut self, id: &str, last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (mut frames, mut others) = (Vec::new(), Vec::new());
        loop {
            let frame =
                self.next().await.unwrap_or_else(|_| panic!("the connection was lost; so far: {:#?}", self.seen));
            if request_id(&frame) != Some(id) {
                others.push(frame);
                continue;
            }
            let done = last(&frame);
            frames.push(frame);
            if done {
                others.into_iter().rev().for_each(|frame| self.waiting.push_front(frame));
                return frames;
            }
        }
    }

    /// Returns the frames of a turn so far, without answers to actions.
    pub fn frames_of(&self, id: &str) -> Vec<Value> {
        let of_turn = |frame: &&Value| request_id(frame) == Some(id) && kind(frame) != "immediate_response";
        self.seen.iter().filter(of_turn).cloned().collect()
    }
}

pub fn message_action(session: &str, id: &str, message: &str) -> Value {
    json!({"action": "send_message", "requestId": id, "sessionId": session, "message": message})
}

pub fn resume_action(session: &str, seq: Option<&str>) -> Value {
    let mut action = json!({"action": "resume_session", "sessionId": session});
    if let Some(seq) = seq {
        action["seq"] = json!(seq);
    }
    action
}

/// Returns the cursor of the last of these frames.
pub fn cursor(frames: &[Value]) -> String {
    let last = frames.last().expect("there are frames");
    last["seq"].as_str().unwrap_or_else(|| panic!("no cursor in {last:#}")).to_owned()
}
