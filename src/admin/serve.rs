//! From a request to its answer: (1) finds its route, (2) identifies the caller, (3) checks the role, (4) takes the body,
//! (5) serves.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;
use warp::{
    Filter,
    filters::BoxedFilter,
    http::{HeaderMap, Method},
    path::Tail,
    reply::Response,
};

use super::{
    AdminApi, audit, connectors, conversations,
    forms::{CallerView, HealthReport},
    knowledge, publish,
    request::AdminRequest,
    response::{HttpRefusal, HttpResponse, respond},
    route::{self, RouteTask},
    settings,
};
use crate::{
    auth::{Principal, TokenError},
    limits,
};

/// The API as a part of an edge's routes: all paths below `/admin`.
pub fn routes(admin: Arc<AdminApi>) -> BoxedFilter<(Response,)> {
    let query = warp::query::<HashMap<String, String>>().or(warp::any().map(HashMap::new)).unify();
    warp::path("admin")
        .and(warp::path::tail())
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(query)
        .and(warp::body::stream())
        .then(move |path: Tail, method, headers: HeaderMap, query, body| {
            let admin = admin.clone();
            async move { respond(serve(&admin, path.as_str(), &method, &headers, query, body).await) }
        })
        .boxed()
}

async fn serve(
    admin: &AdminApi,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
    query: HashMap<String, String>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<HttpResponse, HttpRefusal> {
    let (route, id) = route::find(method, path).ok_or_else(HttpRefusal::not_found)?;
    let Some(role) = route.role else { return Ok(HttpResponse::ok(&HealthReport { status: "ok" })) };
    let principal = administrator(admin, headers).await?;
    if principal.role < role {
        return Err(HttpRefusal::forbidden());
    }
    let taken = timeout(Duration::from_millis(limits::ADMIN_BODY_MS), take(body)).await;
    let body = taken.map_err(|_| HttpRefusal::invalid("the body did not come in time"))??;
    let accept = headers.get("accept").and_then(|value| value.to_str().ok());
    let accepts_html = accept.is_some_and(|accept| accept.contains("text/html"));
    let asked = AdminRequest { principal, id: id.to_string(), query, accepts_html, body };
    match route.task {
        RouteTask::Health => Ok(HttpResponse::ok(&HealthReport { status: "ok" })),
        RouteTask::Me => Ok(HttpResponse::ok(&CallerView::from(&asked.principal))),
        RouteTask::Conversations => conversations::list(admin, &asked).await,
        RouteTask::Messages => conversations::messages(admin, &asked).await,
        RouteTask::Events => audit::events(admin, &asked).await,
        RouteTask::States => audit::states(admin, &asked).await,
        RouteTask::Verification => audit::verification(admin, &asked).await,
        RouteTask::Report => audit::report(admin, &asked).await,
        RouteTask::Runs => knowledge::runs(admin, &asked).await,
        RouteTask::DocumentSets => knowledge::document_sets(admin, &asked).await,
        RouteTask::Connectors => connectors::list(admin, &asked).await,
        RouteTask::CreateConnector => connectors::create(admin, &asked).await,
        RouteTask::ReplaceConnector => connectors::replace(admin, &asked).await,
        RouteTask::DeleteConnector => connectors::delete(admin, &asked).await,
        RouteTask::IndexConnector => connectors::index(admin, &asked).await,
        RouteTask::Settings => settings::show(admin, &asked).await,
        RouteTask::ReplaceSettings => settings::replace(admin, &asked).await,
        RouteTask::Publish => publish::publish(admin, &asked).await,
    }
}

/// Identifies the caller by the token of the request.
async fn administrator(admin: &AdminApi, headers: &HeaderMap) -> Result<Principal, HttpRefusal> {
    let header = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => token.trim(),
        _ => return Err(HttpRefusal::unauthenticated()),
    };
    admin.auth.verify_administrator(token).await.map_err(|error| {
        tracing::debug!(%error, "an administrator's token was refused");
        match error {
            TokenError::Claim("role") => HttpRefusal::missing_role(),
            TokenError::NotAccepted => HttpRefusal::unauthenticated(),
            _ => HttpRefusal::invalid_token(),
        }
    })
}

async fn take(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Bytes, HttpRefusal> {
    let (mut body, mut taken) = (std::pin::pin!(body), Vec::new());
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| HttpRefusal::invalid("the body was cut off"))?;
        if taken.len() + part.remaining() > limits::ADMIN_BODY_MAX_BYTES {
            return Err(HttpRefusal::too_large());
        }
        taken.extend_from_slice(&part.copy_to_bytes(part.remaining()));
    }
    Ok(taken.into())
}
