//! A scriptable model gateway: a real HTTP server that answers each chat completion request as the test scripts it.
//!
//! Contract: a request that breaks the rules of the big providers ([`rules`]), or a demand of the test's, is refused with 400. Any
//! other request goes to the rule, then takes the next scripted reply, then `Reply::text("ok")`. Every token is an SSE event in a
//! write of its own. Waiting is for events, never for time. Dropping the gateway closes it and all its connections.

mod reply;
mod rules;
mod tests;

pub use reply::{Gate, Reply};

use bytes::Bytes;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use reply::{End, Event, Kind, Pace, Script};
use serde_json::Value;
use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use warp::reply::Response;
use warp::{Filter, Reply as _};

/// Time limit for a wait before the test fails.
const WAIT_MAX: Duration = Duration::from_secs(30);

type Rule = Box<dyn Fn(&Value) -> Option<Reply> + Send + Sync>;
type Demand = Box<dyn Fn(&Value) -> Option<String> + Send + Sync>;

pub struct FakeGateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Value>>,
    received: watch::Sender<usize>,
    open: watch::Sender<usize>,
    queue: Mutex<VecDeque<Reply>>,
    rule: Mutex<Option<Rule>>,
    demand: Mutex<Option<Demand>>,
    refusals: Mutex<Vec<String>>,
    calls_made: AtomicUsize,
}

impl FakeGateway {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let server = tokio::spawn(serve(listener, shared.clone()));
        Self { address, shared, server }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Returns the bodies received so far, in order, each with the header `authorization` as a field.
    pub fn requests(&self) -> Vec<Value> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Adds a reply to the end of the queue.
    pub fn script(&self, reply: Reply) {
        self.shared.queue.lock().unwrap().push_back(reply);
    }

    /// Sets the rule that comes before the queue; it replaces an earlier one.
    pub fn respond_with(&self, rule: impl Fn(&Value) -> Option<Reply> + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Sets a demand on requests beyond the rules: a returned reason refuses the request with 400.
    pub fn demand(&self, demand: impl Fn(&Value) -> Option<String> + Send + Sync + 'static) {
        *self.shared.demand.lock().unwrap() = Some(Box::new(demand));
    }

    /// Returns the reasons of all refusals so far.
    pub fn refusals(&self) -> Vec<String> {
        self.shared.refusals.lock().unwrap().clone()
    }

    /// Waits until at least `count` requests were received.
    pub async fn wait_for_requests(&self, count: usize) {
        let what = format!("{count} requests");
        wait_until(&self.shared.received, &what, |seen| seen >= count).await;
    }

    /// Returns the number of requests being answered now; a client's abort ends its own.
    pub fn open_streams(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Waits until exactly `count` requests are being answered.
    pub async fn wait_for_open_streams(&self, count: usize) {
        let what = format!("{count} open streams");
        wait_until(&self.shared.open, &what, |open| open == count).await;
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn wait_until(value: &watch::Sender<usize>, what: &str, done: impl Fn(usize) -> bool) {
    let mut receiver = value.subscribe();
    let reached = tokio::time::timeout(WAIT_MAX, receiver.wait_for(|value| done(*value))).await;
    if reached.is_err() {
        panic!("waited for {what}, there are {}", *value.borrow());
    }
}

/// Accepts connections until it is aborted; its connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let chat = warp::path!("v1" / "chat" / "completions").and(warp::header::optional("authorization"));
    let routes = warp::post().and(chat).and(warp::body::json()).then({
        let shared = shared.clone();
        move |authorization: Option<String>, request: Value| answer(authorization, request, shared.clone())
    });
    // Embeddings and the like: only the rule answers them.
    let others = warp::post()
        .and(warp::path!("v1" / String))
        .and(warp::body::json())
        .then(move |_, request: Value| answer_other(request, shared.clone()));
    let routes = routes.or(others).unify();
    let service = warp::service(routes);
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let service = TowerToHyperService::new(service.clone());
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(authorization: Option<String>, request: Value, shared: Arc<Shared>) -> Response {
    let open = OpenStream::new(shared.clone());
    let number = {
        let mut requests = shared.requests.lock().unwrap();
        let mut received = request.clone();
        received["authorization"] = authorization.into();
        requests.push(received);
        requests.len()
    };
    let demanded = || shared.demand.lock().unwrap().as_ref().and_then(|demand| demand(&request));
    if let Some(why) = rules::refusal(&request).or_else(demanded) {
        eprintln!("the gateway refuses a request: {why}");
        let body = serde_json::json!({"error": {"message": format!("gateway-internal: {why}")}}).to_string();
        shared.refusals.lock().unwrap().push(why);
        shared.received.send_modify(|count| *count += 1);
        return page(400, "application/json", body);
    }
    let ruled = match &*shared.rule.lock().unwrap() {
        Some(rule) => rule(&request),
        None => None,
    };
    let reply = ruled.or_else(|| shared.queue.lock().unwrap().pop_front());
    shared.received.send_modify(|count| *count += 1);
    match reply.unwrap_or_else(|| Reply::text("ok")).0 {
        Kind::Stream(script) => {
            let events = script.events(number, &request["model"], &shared.calls_made);
            event_stream(events, script, open)
        }
        Kind::Raw(pieces, end) => event_stream(raw_events(pieces), Script::ends(end), open),
        Kind::Page { status, content_type, body } => page(status, content_type, body),
        Kind::Hang => pending().await,
    }
}

async fn answer_other(request: Value, shared: Arc<Shared>) -> Response {
    let ruled = shared.rule.lock().unwrap().as_ref().and_then(|rule| rule(&request));
    match ruled.map(|reply| reply.0) {
        Some(Kind::Page { status, content_type, body }) => page(status, content_type, body),
        _ => warp::http::StatusCode::NOT_FOUND.into_response(),
    }
}

fn page(status: u16, content_type: &str, body: String) -> Response {
    let response = warp::http::Response::builder().status(status);
    let response = response.header("content-type", content_type).header("retry-after", "0");
    response.body(body.into()).unwrap()
}

/// Counts one request as open for as long as the value lives.
struct OpenStream(Arc<Shared>);

impl OpenStream {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(shared)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// Returns pieces of a body as events.
fn raw_events(pieces: Vec<Bytes>) -> VecDeque<Event> {
    pieces.into_iter().map(|bytes| Event { bytes, paced: false }).collect()
}

/// Returns a response with a body that plays the events; dropping the body ends the open stream.
fn event_stream(events: VecDeque<Event>, script: Script, open: OpenStream) -> Response {
    struct Cut;
    impl From<Cut> for Box<dyn std::error::Error + Send + Sync> {
        fn from(_: Cut) -> Self {
            "the reply is cut off here".into()
        }
    }
    let body = stream::unfold((events, open), move |(mut events, open)| {
        let (pace, end) = (script.pace.clone(), script.end);
        async move {
            // Lets the connection flush, so that every event is a write of its own.
            tokio::task::yield_now().await;
            let Some(event) = events.pop_front() else {
                return match end {
                    End::Complete => None,
                    End::Silent => pending().await,
                    End::Cut => Some((Err(Cut), (events, open))),
                };
            };
            if event.paced {
                match pace {
                    Pace::AtOnce => {}
                    Pace::Delay(delay) => tokio::time::sleep(delay).await,
                    Pace::Gate(Gate(permits)) => match permits.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_opened) => {}
                    },
                }
            }
            let bytes = event.bytes;
            Some((Ok::<_, Cut>(bytes), (events, open)))
        }
    });
    event_stream_response(warp::reply::stream(body))
}

fn event_stream_response(body: impl warp::Reply) -> Response {
    warp::reply::with_header(body, "content-type", "text/event-stream; charset=utf-8").into_response()
}
