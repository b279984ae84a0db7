//! The demo gateway: an OpenAI-compatible chat completions endpoint in front of the demo model.
//!
//! Contract: `POST /v1/chat/completions`, streamed word by word or as one object; every refusal has an OpenAI-style error body.
//! Usage counts whitespace-separated words as tokens, since the demo model has no other unit. When `shutdown` completes, the
//! server ends and cuts off the replies that are being streamed.

use super::model::{self, DemoAnswer};
use super::request::CompletionRequest;
use bytes::Bytes;
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use warp::Filter;
use warp::http::StatusCode;
use warp::reply::Response;

/// The pause before each word, which makes the streaming visible.
const WORD_DELAY_MS: u64 = 15;
/// The largest request: a long conversation with all its tool results.
const REQUEST_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// The pause after a failed accept, which mostly means that no file descriptor is free.
const ACCEPT_RETRY_MS: u64 = 100;

/// Serves until `shutdown` completes.
pub async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) {
    let completions = warp::path!("v1" / "chat" / "completions")
        .and(warp::post())
        .and(warp::body::content_length_limit(REQUEST_MAX_BYTES))
        .and(warp::body::bytes())
        .map(|body: Bytes| complete(&body));
    let service = warp::service(completions.recover(refuse));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            Some(ended) = connections.join_next() => if let Ok(Err(error)) = ended {
                tracing::debug!(%error, "a connection of the demo gateway ended early");
            },
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    prepare(&socket);
                    let service = TowerToHyperService::new(service);
                    let connection = http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service);
                    connections.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "the demo gateway could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                }
            }
        }
    }
}

/// Sets TCP_NODELAY: without it every word would wait for the acknowledgement of the one before.
fn prepare(socket: &TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
}

/// Answers one request body.
fn complete(body: &[u8]) -> Response {
    static COMPLETIONS: AtomicU64 = AtomicU64::new(1);
    let request: CompletionRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("the body is not a chat completion request: {error}");
            return refusal(StatusCode::BAD_REQUEST, &message);
        }
    };
    if request.messages.is_empty() {
        return refusal(StatusCode::BAD_REQUEST, "there are no messages");
    }
    let number = COMPLETIONS.fetch_add(1, Ordering::Relaxed);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let completion = Completion {
        id: format!("chatcmpl-demo-{number}"),
        created: since_epoch.map_or(0, |time| time.as_secs()),
        answer: model::answer(&request),
        request,
    };
    if completion.request.stream {
        event_stream(completion.events())
    } else {
        warp::Reply::into_response(warp::reply::json(&completion.whole()))
    }
}

/// An answer with the fields of its request that the API repeats.
struct Completion {
    id: String,
    created: u64,
    request: CompletionRequest,
    answer: DemoAnswer,
}

impl Completion {
    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created,
            "model": self.request.model, "choices": choices,
        })
    }

    fn finish_reason(&self) -> &'static str {
        match self.answer {
            DemoAnswer::Say(_) => "stop",
            DemoAnswer::Call { .. } => "tool_calls",
        }
    }

    fn tool_call(&self, name: &str, arguments: &str) -> Value {
        json!({
            "index": 0, "id": format!("call-{}", self.id), "type": "function",
            "function": {"name": name, "arguments": arguments},
        })
    }

    fn usage(&self) -> Value {
        let count = |text: &str| text.split_whitespace().count();
        let prompt = self.request.messages.iter().map(|m| count(&m.content));
        let prompt: usize = prompt.sum();
        let completion = match &self.answer {
            DemoAnswer::Say(text) => count(text),
            DemoAnswer::Call { name, arguments } => count(name) + count(arguments),
        };
        json!({
            "prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion,
        })
    }

    /// Returns the answer as one object.
    fn whole(&self) -> Value {
        let message = match &self.answer {
            DemoAnswer::Say(text) => json!({"role": "assistant", "content": text}),
            DemoAnswer::Call { name, arguments } => json!({
                "role": "assistant", "content": null,
                "tool_calls": [self.tool_call(name, arguments)],
            }),
        };
        let choice = json!({
            "index": 0, "message": message, "finish_reason": self.finish_reason(),
        });
        let mut whole = self.object("chat.completion", json!([choice]));
        whole["usage"] = self.usage();
        whole
    }

    /// Returns the data of the answer's server-sent events, in order.
    fn events(&self) -> VecDeque<String> {
        let kind = "chat.completion.chunk";
        let delta = |delta: Value, finish_reason: Option<&str>| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
            self.object(kind, json!([choice])).to_string()
        };
        let mut events = VecDeque::from([delta(json!({"role": "assistant"}), None)]);
        match &self.answer {
            DemoAnswer::Say(text) => {
                let words = text.split_inclusive(' ');
                events.extend(words.map(|word| delta(json!({"content": word}), None)));
            }
            DemoAnswer::Call { name, arguments } => {
                let call = self.tool_call(name, arguments);
                events.push_back(delta(json!({"tool_calls": [call]}), None));
            }
        }
        events.push_back(delta(json!({}), Some(self.finish_reason())));
        let options = &self.request.stream_options;
        if options.as_ref().is_some_and(|options| options.include_usage) {
            let mut usage = self.object(kind, json!([]));
            usage["usage"] = self.usage();
            events.push_back(usage.to_string());
        }
        events.push_back("[DONE]".to_owned());
        events
    }
}

/// Streams the events, one at a time.
fn event_stream(events: VecDeque<String>) -> Response {
    let body = stream::unfold(events, |mut events| async move {
        let data = events.pop_front()?;
        tokio::time::sleep(Duration::from_millis(WORD_DELAY_MS)).await;
        let bytes = Bytes::from(format!("data: {data}\n\n"));
        Some((Ok::<_, Infallible>(bytes), events))
    });
    let body = warp::reply::stream(body);
    let reply = warp::reply::with_header(body, "content-type", "text/event-stream; charset=utf-8");
    warp::Reply::into_response(warp::reply::with_header(reply, "cache-control", "no-cache"))
}

/// Refuses requests to other routes in the API's error format.
async fn refuse(rejection: warp::Rejection) -> Result<Response, Infallible> {
    let (status, message) = if rejection.is_not_found() {
        (StatusCode::NOT_FOUND, "there is only /v1/chat/completions here")
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        (StatusCode::METHOD_NOT_ALLOWED, "only POST is answered")
    } else if rejection.find::<warp::reject::PayloadTooLarge>().is_some() {
        (StatusCode::PAYLOAD_TOO_LARGE, "the request is too large")
    } else if rejection.find::<warp::reject::LengthRequired>().is_some() {
        (StatusCode::LENGTH_REQUIRED, "a Content-Length is needed")
    } else {
        (StatusCode::BAD_REQUEST, "the request could not be read")
    };
    Ok(refusal(status, message))
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let error = json!({"message": message, "type": "invalid_request_error", "code": null});
    let body = warp::reply::json(&json!({"error": error}));
    warp::Reply::into_response(warp::reply::with_status(body, status))
}

#[cfg(test)]
mod tests;
