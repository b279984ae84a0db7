//! Listening for clients: the accept loop, the routes, the drain.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Method, Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::{HeaderMap, StatusCode},
    reject::{MethodNotAllowed, Reject},
    reply::Response,
};

use super::{handshake, peer::PeerAddress};
use crate::{
    edge::{Edge, mcp, pages, policy::access::AccessRefusal, visitors},
    limits,
};

/// Answers `/ready`: `Ok`, or the cause of the fault.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The routes `/health` and `/ready`.
pub fn probes(ready: Readiness) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
    let health = warp::path!("health").and(warp::get()).map(|| "ok".into_response());
    let ready = warp::path!("ready").and(warp::get()).map(move || match ready() {
        Ok(()) => "ready".into_response(),
        Err(cause) => {
            warp::reply::with_status(format!("not ready: {cause}"), StatusCode::SERVICE_UNAVAILABLE).into_response()
        }
    });
    let either = warp::path!("health").or(warp::path!("ready")).unify();
    let options = either.and(warp::options()).map(|| allowed(StatusCode::NO_CONTENT));
    health.or(ready).unify().or(options).unify()
}

/// All routes of an edge; `admin` is the administrators' part.
pub fn routes(
    edge: Arc<Edge>,
    ready: Readiness,
    admin: BoxedFilter<(Response,)>,
) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    let guard = {
        let edge = edge.clone();
        warp::path::full()
            .and(warp::header::headers_cloned())
            .and_then(move |path: warp::path::FullPath, headers: HeaderMap| {
                let admitted = edge.admits(path.as_str(), &headers).map_err(warp::reject::custom);
                async move { admitted }
            })
            .untuple_one()
    };
    let served = pages::routes(edge.clone()).or(admin).unify().or(visitors::routes(edge.clone())).unify();
    let served = served.or(mcp::routes(edge.clone())).unify();
    let served = served.or(handshake::route(edge)).unify().or(options()).unify();
    // Probes come with the names and addresses of balancers, so the guard does not apply.
    probes(ready).or(guard.and(served)).recover(refused)
}

impl Reject for AccessRefusal {}

/// Answers `OPTIONS` on existing paths.
fn options() -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    const PATHS: [&str; 4] = ["/", "/audit", "/embed", "/ws"];
    let is_there = warp::path::full().and_then(|path: warp::path::FullPath| async move {
        PATHS.contains(&path.as_str()).then_some(()).ok_or_else(warp::reject::not_found)
    });
    is_there.untuple_one().and(warp::options()).map(|| allowed(StatusCode::NO_CONTENT))
}

fn allowed(status: StatusCode) -> Response {
    warp::reply::with_header(status, "allow", "GET, HEAD, OPTIONS").into_response()
}

/// Answers rejected requests: an unknown path, a method that the path does not have, a page of another origin.
pub async fn refused(rejection: warp::Rejection) -> Result<Response, Infallible> {
    Ok(if let Some(outside) = rejection.find::<AccessRefusal>() {
        warp::reply::with_status(outside.words(), StatusCode::FORBIDDEN).into_response()
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        allowed(StatusCode::METHOD_NOT_ALLOWED)
    } else {
        StatusCode::NOT_FOUND.into_response()
    })
}

/// Accepts connections until `shutdown`.
///
/// (1) Accepts;
/// (2) switches Nagle's algorithm off, which would hold back every first token by 40 ms;
/// (3) serves HTTP/1.1 with bounds on the size and the time of a request's head.
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
                // Out of file descriptors, most likely: other connections must close before new ones can come.
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
            request.extensions_mut().insert(PeerAddress(address.ip()));
            // A HEAD is routed as a GET: the server leaves the body out, since it knows the original method.
            if request.method() == Method::HEAD && request.uri().path() != "/ws" {
                *request.method_mut() = Method::GET;
            }
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

pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Closes every connection with 1012: at once without a running turn, else when the turns are over or `for_turns` has passed.
///
/// Then waits for a while until the connections have closed.
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
