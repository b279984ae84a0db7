//! One WebSocket connection used as by a healthy client: requests with their answers, and turns read to their end.
//!
//! Contract: times are taken when a frame has been read and before it is parsed. Every unsolicited frame is a fault, so a
//! doubled terminal frame is found at any time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use uuid::Uuid;

use super::clock::now_ns;
use super::fault::{Fault, FaultLog};
use super::plan::TurnPlan;
use super::turn::{BenchTurn, StreamTally};
use super::wire::{BenchAction, ReceivedFrame, SessionData};

/// Enough for a burst of coalesced tokens in one read; 2000 idle clients still fit in memory.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// The request timeout of published clients.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a closing connection to deliver late frames, which are checked too.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A receive window that a slow reader fills at once.
const SMALL_WINDOW_BYTES: u32 = 4 * 1024;

/// The size of a connection's receive window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadWindow {
    Normal,
    /// For a client that will not read: the server soon feels back-pressure.
    Small,
}

/// The answer to an action.
pub struct ActionReply {
    kind: String,
    data: Option<Box<RawValue>>,
    /// Time from before the write to after the read.
    pub took_ns: u64,
}

impl ActionReply {
    /// Parses the answer's data as the action's type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let data = self.data.as_deref().map_or("null", RawValue::get);
        serde_json::from_str(data).map_err(|error| Fault::BadAnswer(error.to_string()))
    }

    /// Checks the frame's type.
    pub fn must_be(&self, kind: &str) -> Result<(), Fault> {
        match self.kind == kind {
            true => Ok(()),
            false => Err(Fault::BadAnswer(format!("{} instead of {kind}", self.kind))),
        }
    }
}

pub struct BenchClient {
    socket: WebSocketStream<TcpStream>,
    next_request: u64,
    /// The cursor of the last frame of a turn.
    pub seq: Option<String>,
    /// The server's faults on this connection so far.
    pub faults: FaultLog,
}

impl BenchClient {
    pub async fn connect(url: &str, window: ReadWindow) -> Result<BenchClient, Fault> {
        timeout(CONNECT_TIMEOUT, BenchClient::open(url, window))
            .await
            .unwrap_or_else(|_| Err(Fault::Connect(format!("{url}: timed out"))))
    }

    async fn open(url: &str, window: ReadWindow) -> Result<BenchClient, Fault> {
        let failed = |why: String| Fault::Connect(format!("{url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| failed("not a URL".to_owned()))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let found = lookup_host((host, uri.port_u16().unwrap_or(80))).await;
        let address = found.ok().and_then(|mut all| all.next());
        let address = address.ok_or_else(|| failed("no such host".to_owned()))?;

        let io_failed = |error: std::io::Error| failed(error.to_string());
        let socket = match address.is_ipv4() {
            true => TcpSocket::new_v4(),
            false => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(io_failed)?;
        if window == ReadWindow::Small {
            socket.set_recv_buffer_size(SMALL_WINDOW_BYTES).map_err(io_failed)?;
        }
        let stream = socket.connect(address).await.map_err(io_failed)?;
        stream.set_nodelay(true).map_err(io_failed)?;

        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let handshake = client_async_with_config(url, stream, Some(config)).await;
        let (socket, _) = handshake.map_err(|error| failed(error.to_string()))?;
        Ok(BenchClient { socket, next_request: 0, seq: None, faults: FaultLog::default() })
    }

    /// Sends an action and waits for its answer.
    pub async fn ask(&mut self, action: BenchAction<'_>) -> Result<ActionReply, Fault> {
        self.next_request += 1;
        let request_id = format!("r{}", self.next_request);
        let text = action.text(&request_id);
        let sent_ns = now_ns();
        self.send(text).await?;
        let answer = timeout(REQUEST_TIMEOUT, self.answer_to(&request_id, sent_ns)).await;
        answer.unwrap_or(Err(Fault::Silent("a request")))
    }

    async fn answer_to(&mut self, request_id: &str, sent_ns: u64) -> Result<ActionReply, Fault> {
        loop {
            let (text, now_ns) = self.receive().await?;
            let frame = parse(&text)?;
            if frame.request_id.as_deref() != Some(request_id) {
                self.unasked(&frame);
                continue;
            }
            if let Some(error) = frame.error {
                return Err(Fault::Refused { code: error.code, message: error.message });
            }
            let kind = frame.kind.into_owned();
            let data = frame.data.map(RawValue::to_owned);
            return Ok(ActionReply { kind, data, took_ns: now_ns.saturating_sub(sent_ns) });
        }
    }

    pub async fn create_session(&mut self, agent: &str) -> Result<(SessionData, u64), Fault> {
        let create = BenchAction::CreateConversationSession { agent_id: agent, user_name: "Bench" };
        let answer = self.ask(create).await?;
        answer.must_be("immediate_response")?;
        let session: SessionData = answer.data()?;
        let is_id = |text: &str| Uuid::parse_str(text).is_ok();
        if !is_id(&session.session_id) || !is_id(&session.conversation_id) {
            return Err(Fault::BadAnswer("an id that is not a UUID".to_owned()));
        }
        Ok((session, answer.took_ns))
    }

    /// Sends `plan` as a message without reading anything.
    pub async fn start_turn(
        &mut self,
        session: &str,
        plan: TurnPlan,
        tally: &Arc<StreamTally>,
    ) -> Result<BenchTurn, Fault> {
        let message = plan.to_string();
        let send = BenchAction::SendMessage { session_id: session, message: &message };
        let text = send.text(&plan.id.to_string());
        let turn = BenchTurn::new(plan, now_ns(), Arc::clone(tally));
        self.send(text).await?;
        Ok(turn)
    }

    /// Runs one turn from the message to its terminal frame; the turn holds its faults.
    pub async fn turn(
        &mut self,
        session: &str,
        plan: TurnPlan,
        tally: &Arc<StreamTally>,
        grace: Duration,
    ) -> Result<BenchTurn, Fault> {
        let turn = self.start_turn(session, plan, tally).await?;
        let pace = plan.tokens.checked_div(plan.rate).unwrap_or(0);
        let limit = Duration::from_secs(u64::from(pace)) + grace;
        let mut turns = HashMap::from([(plan.id, turn)]);
        let read = self.read_turns(&mut turns, limit).await;
        let mut turn = turns.remove(&plan.id).ok_or(Fault::NoTerminal)?;
        match read {
            Ok(()) => turn.finish(),
            Err(fault) => turn.faults.push(fault),
        }
        Ok(turn)
    }

    /// Reads a turn until it has this many tokens, or has ended.
    pub async fn read_tokens(&mut self, turn: &mut BenchTurn, tokens: usize, limit: Duration) -> Result<(), Fault> {
        let reading = async {
            while turn.ended_ns.is_none() && turn.token_delays_ns.len() < tokens {
                let (text, now_ns) = self.receive().await?;
                let frame = parse(&text)?;
                match frame.request_id == Some(turn.plan.id.to_string()) {
                    true => turn.take(&frame, now_ns),
                    false => self.unasked(&frame),
                }
                self.seq = frame.seq.or(self.seq.take());
            }
            Ok(())
        };
        timeout(limit, reading).await.unwrap_or(Err(Fault::NoTerminal))
    }

    /// Reads until every turn has ended, or until `limit`; both are `Ok`.
    pub async fn read_turns(&mut self, turns: &mut HashMap<Uuid, BenchTurn>, limit: Duration) -> Result<(), Fault> {
        let mut open = turns.values().filter(|turn| turn.ended_ns.is_none()).count();
        let reading = async {
            while open > 0 {
                let (text, now_ns) = self.receive().await?;
                let frame = parse(&text)?;
                let id = frame.request_id.as_deref().and_then(|id| Uuid::parse_str(id).ok());
                let Some(turn) = id.and_then(|id| turns.get_mut(&id)) else {
                    self.unasked(&frame);
                    continue;
                };
                let was_open = turn.ended_ns.is_none();
                turn.take(&frame, now_ns);
                open -= usize::from(was_open && turn.ended_ns.is_some());
            }
            Ok(())
        };
        timeout(limit, reading).await.unwrap_or(Ok(()))
    }

    /// Closes with a closing handshake. Late unsolicited frames are faults.
    pub async fn close(mut self) -> FaultLog {
        let closing = async {
            if self.socket.close(None).await.is_err() {
                return;
            }
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Text(text) = message
                    && let Ok(frame) = parse(&text)
                {
                    self.faults.add(&unasked_fault(&frame));
                }
            }
        };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            self.faults.add(&Fault::Silent("a close frame"));
        }
        self.faults
    }

    async fn send(&mut self, text: String) -> Result<(), Fault> {
        let sent = self.socket.send(Message::text(text)).await;
        sent.map_err(|error| Fault::Closed(error.to_string()))
    }

    async fn receive(&mut self) -> Result<(Utf8Bytes, u64), Fault> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok((text, now_ns())),
                Some(Ok(Message::Binary(_))) => {
                    return Err(Fault::Unexpected("a binary frame".to_owned()));
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    return Err(Fault::Closed(format!("close code {code:?}")));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Fault::Closed(error.to_string())),
                None => return Err(Fault::Closed("end of stream".to_owned())),
            }
        }
    }

    fn unasked(&mut self, frame: &ReceivedFrame<'_>) {
        self.faults.add(&unasked_fault(frame));
    }
}

fn unasked_fault(frame: &ReceivedFrame<'_>) -> Fault {
    // Here only turns have UUIDs as request ids, and frames of an awaited turn do not come here.
    let is_turn = frame.request_id.as_deref().is_some_and(|id| Uuid::parse_str(id).is_ok());
    match is_turn {
        true => Fault::AfterTerminal(frame.kind.to_string()),
        false => Fault::Unexpected(frame.kind.to_string()),
    }
}

fn parse(text: &str) -> Result<ReceivedFrame<'_>, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::BadAnswer(error.to_string()))
}
