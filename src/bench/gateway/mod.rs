//! The fake gateway: an OpenAI-compatible model that answers as the user's message tells it, and records the times.
//!
//! Contract: the gateway runs on a thread and a runtime of its own, so that the clients' work does not delay its clock more
//! than sharing a machine must. A turn's record is complete before its last bytes are written. No request can end the gateway.

mod body;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use uuid::Uuid;

use self::body::{GatewayReply, TokenStream};
use super::clock::now_ns;
use super::plan::TurnPlan;

/// A flat-out model waits for the socket when this much is unsent.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// The largest request: a system prompt, fifty messages and the tools.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The times of a turn's model call: request, first token, last token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelTiming {
    pub received_ns: u64,
    pub first_write_ns: Option<u64>,
    pub last_write_ns: Option<u64>,
    /// More than one = the work was repeated.
    pub calls: u32,
}

/// The gateway's records by plan id.
#[derive(Debug, Default)]
pub struct GatewayLog(Mutex<HashMap<Uuid, ModelTiming>>);

impl GatewayLog {
    /// Removes and returns a turn's record.
    pub fn take(&self, id: &Uuid) -> Option<ModelTiming> {
        self.records().remove(id)
    }

    /// Counts the turns with all tokens written.
    pub fn finished(&self, ids: &[Uuid]) -> usize {
        let records = self.records();
        let last_write = |id: &&Uuid| records.get(id).and_then(|timing| timing.last_write_ns);
        ids.iter().filter(|id| last_write(id).is_some()).count()
    }

    fn asked(&self, id: Uuid, now_ns: u64) {
        let mut records = self.records();
        let timing = records.entry(id).or_default();
        if timing.calls == 0 {
            timing.received_ns = now_ns;
        }
        timing.calls += 1;
    }

    fn wrote_first(&self, id: Uuid, now_ns: u64) {
        if let Some(timing) = self.records().get_mut(&id) {
            timing.first_write_ns.get_or_insert(now_ns);
        }
    }

    fn wrote_last(&self, id: Uuid, now_ns: u64) {
        if let Some(timing) = self.records().get_mut(&id) {
            timing.last_write_ns = Some(now_ns);
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Uuid, ModelTiming>> {
        // Each change is one assignment, so a panic elsewhere leaves no record half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running gateway; dropping it ends it.
pub struct FakeGateway {
    pub address: SocketAddr,
    pub log: Arc<GatewayLog>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeGateway {
    /// Starts the gateway; `address` is bound when this returns.
    pub fn start(address: SocketAddr) -> anyhow::Result<FakeGateway> {
        let listener = std::net::TcpListener::bind(address)
            .with_context(|| format!("the fake gateway cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let log = Arc::new(GatewayLog::default());
        let (stop, stopped) = oneshot::channel();

        let records = Arc::clone(&log);
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, records) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("fake-gateway".to_owned()).spawn(serve)?;
        Ok(FakeGateway { address, log, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        // The thread may have ended by itself; the message is then dropped.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: std::net::TcpListener, log: Arc<GatewayLog>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the fake gateway cannot listen"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&log)))),
            Err(error) => {
                tracing::warn!(%error, "the fake gateway cannot accept");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, log: Arc<GatewayLog>) {
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "a connection closed before it was served");
    }
    let service = service_fn(move |request| answer(request, Arc::clone(&log)));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(WRITE_BUFFER_BYTES);
    // Servers may cancel a turn by closing the connection in the middle.
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the fake gateway ended");
    }
}

async fn answer(request: Request<Incoming>, log: Arc<GatewayLog>) -> Result<Response<GatewayReply>, Infallible> {
    let is_post = request.method() == Method::POST;
    let path = request.uri().path().to_owned();
    if is_post && path.ends_with("/chat/completions") {
        return Ok(match read(request.into_body()).await {
            Some(body) => complete(&body, log),
            None => refuse(StatusCode::BAD_REQUEST, "unreadable body"),
        });
    }
    if path.ends_with("/models") {
        let models = r#"{"object":"list","data":[{"id":"bench","object":"model"}]}"#;
        return Ok(json(StatusCode::OK, models.to_owned()));
    }
    Ok(refuse(StatusCode::NOT_FOUND, "no such route"))
}

async fn read(mut body: Incoming) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > MAX_REQUEST_BYTES {
            return None;
        }
    }
    Some(bytes)
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    messages: Vec<ChatMessage>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    #[serde(default)]
    content: Value,
}

impl Completion {
    /// Returns the plan in the last message, if the user wrote that message.
    ///
    /// Other calls (titles, judges) only quote a plan further up, and do not belong to a turn.
    fn plan(&self) -> Option<TurnPlan> {
        let last = self.messages.iter().rfind(|message| message.role != "system")?;
        match &last.content {
            _ if last.role != "user" => None,
            Value::String(text) => TurnPlan::find(text),
            Value::Array(parts) => {
                parts.iter().rev().find_map(|part| part.get("text").and_then(Value::as_str).and_then(TurnPlan::find))
            }
            _ => None,
        }
    }
}

fn complete(body: &[u8], log: Arc<GatewayLog>) -> Response<GatewayReply> {
    let received_ns = now_ns();
    let completion: Completion = match serde_json::from_slice(body) {
        Ok(completion) => completion,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if !completion.stream {
        return json(StatusCode::OK, body::whole_completion());
    }
    let plan = completion.plan();
    if let Some(plan) = &plan {
        log.asked(plan.id, received_ns);
    }
    let plan = plan.unwrap_or(TurnPlan { id: Uuid::nil(), tokens: 1, rate: 0, pad: 0 });
    let with_usage = completion.stream_options.is_some_and(|options| options.include_usage);
    let mut response = Response::new(GatewayReply::stream(TokenStream::new(plan, with_usage, log)));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn refuse(status: StatusCode, why: &str) -> Response<GatewayReply> {
    let error = serde_json::json!({"error": {"message": why, "type": "invalid_request_error"}});
    json(status, error.to_string())
}

fn json(status: StatusCode, text: String) -> Response<GatewayReply> {
    let mut response = Response::new(GatewayReply::whole(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
