//! A WebSocket client that checks every frame strictly.
//!
//! Contract: every text frame is checked against the protocol on arrival, and kept in [`Client::seen`]. A wait that does
//! not end fails the test with the frames so far.

use std::{collections::VecDeque, time::Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, http::Request, protocol::WebSocketConfig},
};

use super::{
    Edge, WAIT_MAX,
    frames::{is_terminal, kind, request_id},
    validate,
};

pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came during the wait for another one.
    waiting: VecDeque<Value>,
    /// Every frame so far, in the order of arrival.
    pub seen: Vec<Value>,
    actions: usize,
}

#[derive(Clone, Debug)]
pub struct Session {
    pub id: String,
    pub conversation: String,
}

impl Client {
    pub async fn connect(edge: &Edge) -> Self {
        Self::over(edge, TcpStream::connect(&edge.address).await.unwrap()).await
    }

    /// Returns a client over the test's TCP connection.
    pub async fn over(edge: &Edge, tcp: TcpStream) -> Self {
        tcp.set_nodelay(true).unwrap();
        // Tests send frames that the protocol forbids, so the client itself must not refuse them.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let url = format!("ws://{}/ws", edge.address);
        let handshake = client_async_with_config(url, MaybeTlsStream::Plain(tcp), Some(config));
        let (socket, _) = timeout(WAIT_MAX, handshake).await.expect("a handshake in time").unwrap();
        Self { socket, waiting: VecDeque::new(), seen: Vec::new(), actions: 0 }
    }

    /// Connects with the test's handshake; the error is the status of the refusal.
    pub async fn try_connect(handshake: Request<()>) -> Result<Self, u16> {
        let address = handshake.uri().authority().expect("a handshake names its server").to_string();
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let connected = timeout(WAIT_MAX, client_async_with_config(handshake, MaybeTlsStream::Plain(tcp), None)).await;
        match connected.expect("a handshake in time") {
            Ok((socket, _)) => Ok(Self { socket, waiting: VecDeque::new(), seen: Vec::new(), actions: 0 }),
            Err(Error::Http(refusal)) => Err(refusal.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, action: &Value) {
        self.send_text(&action.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends any message, well-formed or not.
    pub async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Writes bytes past the WebSocket layer.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let MaybeTlsStream::Plain(tcp) = self.socket.get_mut() else { panic!("the connection is plain") };
        tcp.write_all(bytes).await.unwrap();
    }

    /// Returns the next frame that was not taken yet.
    pub async fn next(&mut self) -> Value {
        match self.waiting.pop_front() {
            Some(frame) => frame,
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Value {
        // A ping of the server is no frame, so pings do not extend the wait.
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            assert!(Instant::now() < deadline, "no frame came in time; so far: {:#?}", self.seen);
            match self.message().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                    if let Err(problem) = validate::frame(&frame) {
                        panic!("{problem}, in {frame:#}");
                    }
                    self.seen.push(frame.clone());
                    return frame;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("a frame was expected, not {other:?}; so far: {:#?}", self.seen),
            }
        }
    }

    /// Returns the next message of any kind.
    pub async fn message(&mut self) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
        let next = timeout(WAIT_MAX, self.socket.next()).await;
        next.unwrap_or_else(|_| panic!("nothing came in time; so far: {:#?}", self.seen))
    }

    /// Reads to the end of the connection; returns the code of the close frame, if there is one.
    pub async fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.message().await {
                Some(Ok(Message::Close(frame))) => code = frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return code,
            }
        }
    }

    /// Sends an action and waits for its answer; frames of other requests are kept for later.
    pub async fn request(&mut self, mut action: Value) -> Value {
        self.actions += 1;
        let id = action.get("requestId").and_then(Value::as_str).map(str::to_owned);
        let id = id.unwrap_or_else(|| format!("action-{}", self.actions));
        action["requestId"] = json!(id);
        self.send(&action).await;
        self.answer(&id).await
    }

    /// Waits for the answer to an action that was sent.
    pub async fn answer(&mut self, id: &str) -> Value {
        loop {
            let frame = self.read().await;
            let answers = matches!(kind(&frame), "pong" | "immediate_response" | "error");
            if answers && request_id(&frame) == Some(id) {
                return frame;
            }
            self.waiting.push_back(frame);
        }
    }

    /// Makes a round trip, after which all earlier frames of the edge have arrived.
    pub async fn ping(&mut self) {
        let pong = self.request(json!({"action": "ping"})).await;
        assert_eq!(kind(&pong), "pong");
    }

    pub async fn open_session(&mut self) -> Session {
        self.open(json!({})).await
    }

    /// Opens a session on an existing conversation.
    pub async fn resume(&mut self, conversation: &str) -> Session {
        self.open(json!({"conversationId": conversation})).await
    }

    async fn open(&mut self, mut fields: Value) -> Session {
        fields["action"] = json!("create_conversation_session");
        let created = self.request(fields).await;
        let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
        Session { id: text("sessionId"), conversation: text("conversationId") }
    }

    /// Sends a message; returns the answer, which may be a refusal.
    pub async fn say(&mut self, session: &Session, id: &str, message: &str) -> Value {
        self.request(message_frame(session, id, message)).await
    }

    /// Sends a message, which must be accepted.
    pub async fn begin(&mut self, session: &Session, id: &str, message: &str) {
        let answer = self.say(session, id, message).await;
        assert_eq!(answer["status"], 202, "{answer:#}");
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
        let began = Instant::now();
        loop {
            let frame = self.next().await;
            // A keepalive is no progress.
            assert!(began.elapsed() < WAIT_MAX, "the turn `{id}` is stuck: {frames:#?}");
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

    /// Sends a message and returns its whole turn.
    pub async fn ask(&mut self, session: &Session, id: &str, message: &str) -> Vec<Value> {
        self.begin(session, id, message).await;
        self.turn(id).await
    }

    pub async fn confirm(&mut self, session: &Session, approved: bool) -> Value {
        self.request(json!({"action": "confirm_tool_action", "sessionId": session.id, "approved": approved})).await
    }

    /// Returns one page of the history, the answer's `data`.
    pub async fn page(&mut self, session: &Session, fields: Value) -> Value {
        let mut action = json!({"action": "get_conversation_messages", "sessionId": session.id});
        action.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.request(action).await;
        assert_eq!(answer["status"], 200, "{answer:#}");
        answer["data"].clone()
    }

    /// Returns the texts of the conversation's newest messages, oldest first.
    pub async fn history(&mut self, session: &Session) -> Vec<String> {
        let page = self.page(session, json!({"limit": 100})).await;
        let messages = page["messages"].as_array().unwrap().iter().rev();
        messages.map(|message| message["content"]["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the number of terminal frames of a turn so far.
    pub fn terminals(&self, id: &str) -> usize {
        self.seen.iter().filter(|frame| is_terminal(frame) && request_id(frame) == Some(id)).count()
    }
}

pub fn message_frame(session: &Session, id: &str, message: &str) -> Value {
    json!({"action": "send_message", "requestId": id, "sessionId": session.id, "message": message})
}
