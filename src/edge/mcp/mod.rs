//! Agents as tools of other programs: MCP over streamable HTTP, at `/mcp`.
//!
//! - [`server`]: the methods of the protocol.   - [`offer`]: agents as tools.   - [`turn`]: one call, one turn.
//! - [`prompts`]: a waiting turn as an elicitation.   - [`answer`]: the answers to calls.
//!
//! Contract: a call is served by a [`Connection`](super::connection::Connection) without a socket, so tokens, policies, limits and
//! messages are those of every other client. No state is kept between two requests: any edge serves any of them. A turn does not
//! end with the request that began it.

mod answer;
mod offer;
mod prompts;
mod server;
mod turn;

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Buf;
use futures_util::{Stream, StreamExt, stream};
use hyper::body::Body;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use tokio::time::timeout;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::{HeaderMap, Method, Request, StatusCode, header},
    reply::Response,
};

use self::server::McpAgents;
use super::{
    Edge,
    transport::{
        handshake::{HandshakeRefusal, bearer_of, principal},
        peer::PeerAddress,
    },
};
use crate::{auth::Principal, limits};

/// The sender of a request.
pub struct McpVisitor {
    pub principal: Option<Principal>,
    pub origin: Option<String>,
    pub address: IpAddr,
}

type Mcp = StreamableHttpService<McpAgents, NeverSessionManager>;

pub fn routes(edge: Arc<Edge>) -> BoxedFilter<(Response,)> {
    let mut config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(limits::MCP_REQUEST_MAX_BYTES)
        .with_cancellation_token(edge.shutdown.clone())
        // The edge has checked both already.
        .disable_allowed_hosts()
        .disable_allowed_origins();
    config.sse_retry = None;
    let agents = McpAgents::new(edge.clone());
    let service = Mcp::new(move || Ok(agents.clone()), Arc::default(), config);
    warp::path!("mcp")
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<PeerAddress>())
        .and(warp::body::stream())
        .then(move |method: Method, headers: HeaderMap, peer: PeerAddress, body| {
            let (edge, service) = (edge.clone(), service.clone());
            async move {
                let tracked = edge.connections.clone();
                let served = serve(edge, service, &method, (headers, peer), body);
                tracked.track_future(Box::pin(served)).await.unwrap_or_else(|refused| refused)
            }
        })
        .boxed()
}

/// Serves a request: (1) reads the body, (2) identifies the client, (3) runs the protocol.
///
/// A refusal before the body was read would be lost: the connection is reset.
async fn serve(
    edge: Arc<Edge>,
    service: Mcp,
    method: &Method,
    (headers, PeerAddress(peer)): (HeaderMap, PeerAddress),
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Response> {
    if method != Method::POST {
        let refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "requests are sent with POST");
        return Err(warp::reply::with_header(refused, header::ALLOW, "POST").into_response());
    }
    let body = timeout(Duration::from_millis(limits::INTERNAL_BODY_MS), take(body)).await;
    let body = body.map_err(|_| refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))??;
    let bad_request = |words| refusal(StatusCode::BAD_REQUEST, words);
    let address = edge.quota.address(peer, &headers);
    let address = address.ok_or_else(|| bad_request("`X-Forwarded-For` can't be read"))?;
    let token = bearer_of(&headers).map_err(bad_request)?;
    let principal = match principal(&edge, token.as_deref()).await {
        Ok(principal) => principal,
        Err(HandshakeRefusal::NoToken) if !edge.auth.is_strict() => None,
        Err(unproved) => return Err(unproved.response()),
    };
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default().to_string());
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.headers_mut() = headers;
    // The MCP service has no use for the token.
    request.headers_mut().remove(header::AUTHORIZATION);
    request.extensions_mut().insert(Arc::new(McpVisitor { principal, origin, address }));
    let response = Box::pin(service.handle(request)).await;
    let (parts, mut body) = response.into_parts();
    let frames = stream::poll_fn(move |context| Pin::new(&mut body).poll_frame(context));
    let data = frames.filter_map(|frame| async move { frame.map(|frame| frame.into_data().ok()).transpose() });
    let mut response = warp::reply::stream(data).into_response();
    (*response.status_mut(), *response.headers_mut()) = (parts.status, parts.headers);
    Ok(response)
}

async fn take(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<String, Response> {
    let (mut body, mut taken, mut left) = (std::pin::pin!(body), Vec::new(), limits::MCP_REFUSED_MAX_BYTES);
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| refusal(StatusCode::BAD_REQUEST, "the body was cut off"))?;
        let (bytes, room) = (part.remaining(), limits::MCP_REQUEST_MAX_BYTES + 1 - taken.len());
        taken.extend_from_slice(&part.copy_to_bytes(room.min(bytes)));
        let Some(rest) = left.checked_sub(bytes) else { break };
        left = rest;
    }
    if taken.len() > limits::MCP_REQUEST_MAX_BYTES {
        return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"));
    }
    String::from_utf8(taken).map_err(|_| refusal(StatusCode::BAD_REQUEST, "the body is not UTF-8"))
}

fn refusal(status: StatusCode, words: &'static str) -> Response {
    warp::reply::with_status(words, status).into_response()
}
