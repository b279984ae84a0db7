//! Listening for clients: the accept loop, the routes, the drain.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{
    Request,
    body::Incoming,
    service::{Service, service_fn},
    upgrade::OnUpgrade,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use warp::{Filter, Reply, filters::BoxedFilter, http::StatusCode, reply::Response};

use super::{
    Edge,
    connection::{self, Caller},
    internal, pages,
    quota::{Place, QuotaError},
    socket::Socket,
};
use crate::{
    auth::{Principal, REFERENCE_ORG},
    limits,
};

/// The address at the other end of a connection.
#[derive(Clone, Copy)]
struct Peer(IpAddr);

/// Answers `/ready`: `Ok`, or what is wrong.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// `/health` and `/ready`.
pub fn probes(ready: Readiness) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
    let health = warp::path!("health").and(warp::get()).map(|| "ok".into_response());
    let ready = warp::path!("ready").and(warp::get()).map(move || match ready() {
        Ok(()) => "ready".into_response(),
        Err(cause) => {
            warp::reply::with_status(format!("not ready: {cause}"), StatusCode::SERVICE_UNAVAILABLE).into_response()
        }
    });
    health.or(ready).unify()
}

/// Everything that an edge serves.
/// `admin` is the administrators' part of it.
pub fn routes(
    edge: Arc<Edge>,
    ready: Readiness,
    admin: BoxedFilter<(Response,)>,
) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    let internal = internal::routes(edge.clone());
    let socket = warp::path!("ws")
        .and(warp::get())
        .and(warp::header::exact_ignore_case("upgrade", "websocket"))
        .and(warp::header::exact("sec-websocket-version", "13"))
        .and(warp::header::<String>("sec-websocket-key"))
        .and(warp::ext::get::<OnUpgrade>())
        .and(warp::header::optional::<String>("authorization"))
        .and(warp::header::optional::<String>("origin"))
        .and(warp::header::optional::<String>("x-forwarded-for"))
        .and(warp::ext::get::<Peer>())
        .and(query())
        .then(
            move |key: String,
                  upgrade,
                  authorization: Option<String>,
                  origin,
                  forwarded: Option<String>,
                  peer: Peer,
                  query: HashMap<String, String>| {
                let edge = edge.clone();
                async move {
                    let resumes = query.get("v").is_some_and(|version| version == "resume");
                    let bearer = authorization.as_deref().and_then(bearer);
                    match principal(&edge, bearer.or(query.get("token").map(String::as_str))).await {
                        Ok(principal) => {
                            let address = edge.quota.address(peer.0, forwarded.as_deref());
                            match place(&edge, principal.as_ref(), address).await {
                                Ok(place) => {
                                    open(edge, &key, upgrade, Caller { principal, origin, address, place, resumes })
                                }
                                Err(refusal) => refusal,
                            }
                        }
                        Err(refusal) => refusal,
                    }
                }
            },
        );
    let refused = |_: warp::Rejection| async {
        Ok::<_, warp::Rejection>((warp::reply::with_status(
            "a WebSocket handshake is expected",
            StatusCode::UPGRADE_REQUIRED,
        )
        .into_response(),))
    };
    let refusal = warp::path!("ws").and_then(|| async { Err::<warp::reply::Response, _>(warp::reject::reject()) });
    probes(ready).or(pages::routes()).or(admin).or(internal).or(socket).or(refusal.or_else(refused)).recover(not_found)
}

/// The answer to a path that is not there.
pub async fn not_found(_: warp::Rejection) -> Result<warp::reply::Response, Infallible> {
    Ok(StatusCode::NOT_FOUND.into_response())
}

/// The parameters of `/ws`: `v=resume` asks for the resume extension, `token` carries a browser's token.
fn query() -> impl Filter<Extract = (HashMap<String, String>,), Error = Infallible> + Clone {
    warp::query::<HashMap<String, String>>().or(warp::any().map(HashMap::new)).unify()
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who a token stands for. Without a valid one a client is anonymous, or is refused where the server is strict.
async fn principal(edge: &Edge, token: Option<&str>) -> Result<Option<Principal>, warp::reply::Response> {
    let verified = match token.filter(|token| !token.is_empty()) {
        Some(token) if edge.auth.is_on() => edge.auth.verify(token).await.map(Some),
        _ => Ok(None),
    };
    match verified {
        Ok(None) | Err(_) if edge.auth.is_strict() => {
            let refusal = warp::reply::with_status("a valid token is needed", StatusCode::UNAUTHORIZED);
            Err(warp::reply::with_header(refusal, "www-authenticate", "Bearer").into_response())
        }
        Ok(principal) => Ok(principal),
        Err(error) => {
            tracing::debug!(%error, "a client's token was not accepted; it is anonymous");
            Ok(None)
        }
    }
}

/// A connection's place among those that are counted.
async fn place(edge: &Edge, principal: Option<&Principal>, address: IpAddr) -> Result<Place, warp::reply::Response> {
    let org = principal.map_or(REFERENCE_ORG, |principal| &principal.org);
    edge.quota.connect(org, address).await.map_err(|error| match error {
        QuotaError::Limited(seconds) => {
            let refusal = warp::reply::with_status("too many connections", StatusCode::TOO_MANY_REQUESTS);
            warp::reply::with_header(refusal, "retry-after", seconds).into_response()
        }
        error => {
            tracing::warn!(%error, "connections can't be counted now");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    })
}

/// Answers the handshake and serves the connection once it is upgraded.
fn open(edge: Arc<Edge>, key: &str, upgrade: OnUpgrade, caller: Caller) -> warp::reply::Response {
    let tracker = edge.connections.clone();
    tracker.spawn(async move {
        let socket = match upgrade.await {
            Ok(upgraded) => Socket::new(upgraded, edge.large_frames.clone()).await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        match socket {
            Ok(socket) => connection::serve(edge, socket, caller).await,
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

/// Accepts connections until `shutdown`.
///
/// (1) Accept, (2) switch Nagle's algorithm off, which would hold back every first token by 40 ms, (3) serve HTTP/1.1 with
/// bounds on the size and the time of a request's head.
pub async fn listen<F>(listener: TcpListener, routes: F, shutdown: CancellationToken)
where
    F: Filter<Error = Infallible> + Clone + Send + Sync + 'static,
    F::Extract: Reply,
{
    loop {
        let (stream, address) = match shutdown.run_until_cancelled(listener.accept()).await {
            None => return,
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                // Out of file descriptors, most likely: others must go before new ones can come.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(limits::RETRY_FIRST_MS)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let routes = TowerToHyperService::new(warp::service(routes.clone()));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(address.ip()));
            routes.call(request)
        });
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(limits::HEAD_READ_MS));
            http.max_buf_size(limits::HEAD_MAX_BYTES).max_headers(limits::HEADERS_MAX);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
                tracing::debug!(%error, "an HTTP connection ended");
            }
        });
    }
}

/// Binds the listening address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Closes every connection with 1012: at once where no turn runs, else when the turns are over or the time for them is. Then waits
/// for the connections to close, for a while.
pub async fn drain(edge: &Edge, for_turns: Duration) {
    edge.draining.cancel();
    edge.connections.close();
    if tokio::time::timeout(for_turns, edge.connections.wait()).await.is_ok() {
        return;
    }
    edge.shutdown.cancel();
    let wait = edge.connections.wait();
    if tokio::time::timeout(Duration::from_millis(limits::EDGE_DRAIN_MS), wait).await.is_err() {
        tracing::warn!(connections = edge.connections.len(), "some connections did not close in time");
    }
}
