//! The handshake of `/ws`: identifies the client and decides whether a connection is opened.
//!
//! (1) The request is checked to be a WebSocket handshake; a refusal names the fault;
//! (2) its token is verified;
//! (3) the connection is counted;
//! (4) the upgrade is answered.
//!
//! A token that is present but not valid never makes its bearer anonymous: where tokens are optional, the client is told by an
//! `error` frame and a close code of its own, which a page can read, and otherwise by status 401.

use std::{net::IpAddr, sync::Arc};

use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::form_urlencoded;
use warp::{
    Filter, Rejection, Reply,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    peer::PeerAddress,
    socket::{CloseReason, Socket},
};
use crate::{
    auth::{Principal, REFERENCE_ORG, TokenError},
    edge::{
        Edge,
        client::ClientIdentity,
        connection,
        policy::quota::{ConnectionSlot, QuotaError},
    },
    metrics::metrics,
};

pub fn route(edge: Arc<Edge>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let upgrade = warp::ext::get::<OnUpgrade>().map(Some).or(warp::any().map(|| None)).unify();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::path!("ws")
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(upgrade)
        .and(warp::ext::get::<PeerAddress>())
        .then(move |method, headers: HeaderMap, query: String, upgrade, peer: PeerAddress| {
            let edge = edge.clone();
            async move {
                match shake_hands(&edge, &method, &headers, &query, upgrade, peer).await {
                    Ok(response) => response,
                    Err(response) => {
                        metrics().connections.refused(response.status().as_u16());
                        response
                    }
                }
            }
        })
}

async fn shake_hands(
    edge: &Arc<Edge>,
    method: &Method,
    headers: &HeaderMap,
    query: &str,
    upgrade: Option<OnUpgrade>,
    PeerAddress(peer): PeerAddress,
) -> Result<Response, Response> {
    let key = key(method, headers).map_err(|refused| *refused)?;
    let upgrade = upgrade.ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "this connection can't be upgraded"))?;
    let query = Query::read(query).map_err(|words| refusal(StatusCode::BAD_REQUEST, words))?;
    let token = token(edge, headers, &query).map_err(|words| refusal(StatusCode::BAD_REQUEST, words))?;
    let address = edge.quota.address(peer, headers);
    let address = address.ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "`X-Forwarded-For` can't be read"))?;
    let principal = match principal(edge, token.as_deref()).await {
        Ok(principal) => principal,
        Err(unproved) if edge.auth.is_strict() => return Err(unproved.response()),
        Err(HandshakeRefusal::NoToken) => None,
        // The refused client is counted as well, so that refusals are bounded.
        Err(HandshakeRefusal::Token(close)) => {
            let place = place(edge, None, address).await?;
            return Ok(open(edge.clone(), &key, upgrade, move |_, socket| connection::refuse(socket, close, place)));
        }
    };
    let place = place(edge, principal.as_ref(), address).await?;
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default().to_string());
    let caller = ClientIdentity { principal, origin, address, slot: place, resumes: query.resumes };
    Ok(open(edge.clone(), &key, upgrade, move |edge, socket| connection::serve(edge, socket, caller)))
}

/// Returns the key of a handshake, or the response to a malformed one.
fn key(method: &Method, headers: &HeaderMap) -> Result<String, Box<Response>> {
    if method != Method::GET {
        let refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "a handshake is a GET");
        return Err(with(refused, header::ALLOW, "GET, OPTIONS").into());
    }
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::UPGRADE, "websocket") {
        let refused = refusal(StatusCode::UPGRADE_REQUIRED, "a WebSocket handshake is expected");
        return Err(with(with(refused, header::UPGRADE, "websocket"), header::CONNECTION, "upgrade").into());
    }
    if !has(header::CONNECTION, "upgrade") {
        return Err(refusal(StatusCode::BAD_REQUEST, "`Connection: upgrade` is missing").into());
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        let refused = refusal(StatusCode::UPGRADE_REQUIRED, "version 13 of the WebSocket protocol is expected");
        return Err(with(refused, header::SEC_WEBSOCKET_VERSION, "13").into());
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next().and_then(|key| key.to_str().ok()), keys.next()) {
        (Some(key), None) if is_key(key) => Ok(key.to_string()),
        _ => Err(refusal(StatusCode::BAD_REQUEST, "`Sec-WebSocket-Key` must be 16 bytes in base64, once").into()),
    }
}

fn is_key(key: &str) -> bool {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.decode(key.trim()).is_ok_and(|bytes| bytes.len() == 16)
}

/// The query parameters of `/ws`.
#[derive(Debug, Default, PartialEq)]
struct Query {
    /// `token`, for browsers, which can't set headers.
    token: Option<String>,
    /// `v=resume` asks for the resume extension.
    resumes: bool,
}

impl Query {
    /// Parses the query. A repeated parameter is refused: two programs on the way could each take another value.
    fn read(query: &str) -> Result<Self, &'static str> {
        let mut read = Self::default();
        let mut versions = 0;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "token" if read.token.is_some() => return Err("`token` is there more than once"),
                "token" => read.token = Some(value.into_owned()),
                "v" if versions > 0 => return Err("`v` is there more than once"),
                "v" => (versions, read.resumes) = (1, value == "resume"),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// Returns the client's token: from a header, or else from the query.
///
/// In the mode `trusted` the header alone counts, which the proxy in front writes; any client can write a query.
fn token(edge: &Edge, headers: &HeaderMap, query: &Query) -> Result<Option<String>, &'static str> {
    let first = bearer_of(headers)?;
    let in_query = query.token.as_deref().filter(|token| !token.is_empty() && !edge.auth.trusts_headers_alone());
    Ok(first.or(in_query.map(str::to_owned)))
}

/// Returns the bearer token of a request's headers.
pub(in crate::edge) fn bearer_of(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter().map(bearer);
    match (bearers.next(), bearers.next()) {
        (_, Some(_)) => Err("`Authorization` is there more than once"),
        (first, None) => Ok(first.flatten()),
    }
}

fn bearer(authorization: &HeaderValue) -> Option<String> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_string())
}

/// The reason why a client has no proven identity.
pub(in crate::edge) enum HandshakeRefusal {
    NoToken,
    Token(CloseReason),
}

impl HandshakeRefusal {
    pub(in crate::edge) fn response(self) -> Response {
        match self {
            Self::Token(CloseReason::Unverified) => {
                let refused = refusal(StatusCode::SERVICE_UNAVAILABLE, "tokens can't be verified now");
                with(refused, header::RETRY_AFTER, "5")
            }
            _ => with(refusal(StatusCode::UNAUTHORIZED, "a valid token is needed"), header::WWW_AUTHENTICATE, "Bearer"),
        }
    }
}

/// Verifies a token and returns its principal, or `None` with tokens off.
pub(in crate::edge) async fn principal(
    edge: &Edge,
    token: Option<&str>,
) -> Result<Option<Principal>, HandshakeRefusal> {
    if !edge.auth.is_on() {
        return Ok(None);
    }
    let token = token.ok_or(HandshakeRefusal::NoToken)?;
    edge.auth.verify(token).await.map(Some).map_err(|error| {
        tracing::debug!(%error, "a client's token was not accepted");
        HandshakeRefusal::Token(match error {
            TokenError::Key(error) if error.is_passing() => CloseReason::Unverified,
            _ => CloseReason::BadToken,
        })
    })
}

/// Takes a connection slot in the quota, or returns the refusal.
async fn place(edge: &Edge, principal: Option<&Principal>, address: IpAddr) -> Result<ConnectionSlot, Response> {
    let org = principal.map_or(REFERENCE_ORG, |principal| &principal.org);
    edge.quota.connect(org, address).await.map_err(|error| match error {
        QuotaError::Limited(seconds) => {
            let refused = refusal(StatusCode::TOO_MANY_REQUESTS, "too many connections");
            with(refused, header::RETRY_AFTER, &seconds.to_string())
        }
        error => {
            tracing::warn!(%error, "connections can't be counted; the handshake is refused with 503");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    })
}

/// Answers the handshake and serves the connection once it is upgraded.
fn open<F>(
    edge: Arc<Edge>,
    key: &str,
    upgrade: OnUpgrade,
    serve: impl FnOnce(Arc<Edge>, Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    let tracker = edge.connections.clone();
    tracker.spawn(async move {
        let socket = match upgrade.await {
            Ok(upgraded) => Socket::new(upgraded, edge.rooms.clone()).await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        match socket {
            Ok(socket) => serve(edge, socket).await,
            Err(error) => tracing::debug!(%error, "a handshake was not completed"),
        }
    });
    let response = warp::http::Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(key.as_bytes()))
        .body("");
    response.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), Reply::into_response)
}

fn refusal(status: StatusCode, words: &'static str) -> Response {
    warp::reply::with_status(words, status).into_response()
}

fn with(mut response: Response, name: header::HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_may_occur_once() {
        let query = |token: Option<&str>, resumes| Query { token: token.map(str::to_owned), resumes };
        assert_eq!(Query::read(""), Ok(query(None, false)));
        assert_eq!(Query::read("v=resume&token=a%2Bb&x=1&x=2"), Ok(query(Some("a+b"), true)));
        for twice in ["token=a&token=a", "token=a&v=1&%74oken=b", "v=resume&v=1", "token=&token=a"] {
            assert!(Query::read(twice).is_err(), "{twice}");
        }
    }

    #[test]
    fn a_bad_handshake_is_refused_with_its_problem() {
        let whole = [
            (header::UPGRADE, "WebSocket"),
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let status = |method: Method, without: Option<usize>, other: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for (at, (name, value)) in whole.iter().enumerate() {
                let value = if Some(at) == without { other } else { Some(*value) };
                value.map(|value| headers.insert(name, HeaderValue::from_static(value)));
            }
            key(&method, &headers).map_or_else(|response| response.status().as_u16(), |_| 101)
        };
        assert_eq!(status(Method::GET, None, None), 101);
        assert_eq!(status(Method::POST, None, None), 405);
        for (without, other, expected) in [
            (0, None, 426),
            (1, None, 400),
            (2, None, 426),
            (2, Some("8"), 426),
            (3, None, 400),
            (3, Some("short"), 400),
            (3, Some(""), 400),
        ] {
            assert_eq!(status(Method::GET, Some(without), other), expected, "{without} {other:?}");
        }
    }
}
