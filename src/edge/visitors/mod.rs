//! Widgets' requests over plain HTTP, from pages of other origins: `POST /internal/…` at the host's root.
//!
//! - [`returning`]: the session of a returning browser.   - [`restore`]: conversations of a visitor who proves an address.
//!
//! Every request names the agent; the agent's policy decides about the page and the organisation as it does for sessions. The
//! host's context is verified and not used up, since a widget sends the same one with each of its requests. Any page may read
//! the answers (`*`): forbidden data is refused, not hidden, and no cookies are involved.

pub mod restore;
pub mod returning;

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use chrono::Utc;
use futures_util::{Stream, StreamExt};
use serde_json::{Map, Value};
use tokio::time::timeout;
use warp::{
    Filter,
    filters::BoxedFilter,
    http::{HeaderMap, Method, StatusCode, response::Builder},
    path::Tail,
    reply::Response,
};

use super::{
    Edge,
    policy::{access::ClientPage, admission},
    transport::peer::PeerAddress,
};
use crate::{
    auth::{self, REFERENCE_ORG},
    limits,
    subjects::{self, ConversationKey},
    wire::{
        actions::{BadFrame, FrameFields, invalid},
        frames::{self, ErrorCode},
        stored::SessionRecord,
    },
};

/// A request that the agent's policy admits.
struct PageRequest {
    edge: Arc<Edge>,
    org: String,
    agent: String,
    fields: FrameFields,
    origin: Option<String>,
    /// The group of addresses that the visitor's address belongs to.
    source: String,
}

pub fn routes(edge: Arc<Edge>) -> BoxedFilter<(Response,)> {
    warp::path("internal")
        .and(warp::path::tail())
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<PeerAddress>())
        .and(warp::body::stream())
        .then(move |path: Tail, method: Method, headers: HeaderMap, peer: PeerAddress, body| {
            let edge = edge.clone();
            async move {
                if method == Method::OPTIONS {
                    return respond(StatusCode::NO_CONTENT, Bytes::new());
                }
                match serve(edge, path.as_str(), &method, (&headers, peer), body).await {
                    Ok(answer) => respond(StatusCode::OK, answer.to_string().into()),
                    Err(bad) => respond(status(bad.code), frames::error(None, bad.code, &bad.message, Utc::now())),
                }
            }
        })
        .boxed()
}

async fn serve(
    edge: Arc<Edge>,
    path: &str,
    method: &Method,
    (headers, peer): (&HeaderMap, PeerAddress),
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Value, BadFrame> {
    let is_known = ["resume-by-fingerprint", "identity/request-otp", "identity/verify-otp", "identity/resolve"];
    if method != Method::POST || !is_known.contains(&path) {
        return Err(BadFrame { code: ErrorCode::NotFound, message: "there is no such thing".into() });
    }
    let origin = headers.get("origin").map(|origin| origin.to_str().unwrap_or_default().to_string());
    let address = edge.quota.address(peer.0, headers).ok_or_else(|| invalid("`X-Forwarded-For` can't be read"))?;
    edge.quota.write_from(address).map_err(admission::too_much)?;
    let taken = timeout(Duration::from_millis(limits::INTERNAL_BODY_MS), take(body)).await;
    let fields = FrameFields::of(taken.map_err(|_| invalid("the body did not come in time"))??);
    let agent = fields.required_text("agentId")?.to_string();
    let context = fields.raw("authContext");
    let admitted = edge.widgets.admit(Some(&agent), origin.as_deref(), context, Utc::now().timestamp()).await;
    let org = admitted.map_err(admission::refused)?.org.unwrap_or_else(|| REFERENCE_ORG.to_string());
    let asked = PageRequest { edge, org, agent, fields, origin, source: subjects::source_of(address) };
    match path {
        "resume-by-fingerprint" => returning::resume(&asked).await,
        "identity/request-otp" => restore::request(&asked).await,
        "identity/verify-otp" => restore::verify(&asked).await,
        _ => restore::resolve(&asked).await,
    }
}

impl PageRequest {
    /// Returns the session that the request names.
    ///
    /// A session of another organisation, of an agent that forbids the page, or with more proof than an anonymous visitor has,
    /// counts as missing.
    async fn session(&self) -> Result<(Arc<SessionRecord>, ConversationKey), BadFrame> {
        let id = self.fields.required_session()?.ok_or_else(session_not_found)?;
        let is_theirs = |record: &SessionRecord| {
            record.org == self.org && self.may_reach(record.owner.as_deref(), record.proved.as_deref())
        };
        let record = self.edge.sessions.find(id, is_theirs).await?.ok_or_else(session_not_found)?;
        let key = self.edge.key(&record.org, record.conversation).ok_or_else(session_not_found)?;
        let may = self.edge.may_use(&record, &key, None, ClientPage::Of(self.origin.as_deref())).await?;
        may.then_some((record, key)).ok_or_else(session_not_found)
    }

    fn may_reach(&self, owner: Option<&str>, proved: Option<&str>) -> bool {
        !self.edge.auth.is_on() || auth::may_reach(None, &self.org, owner, proved)
    }
}

fn session_not_found() -> BadFrame {
    BadFrame { code: ErrorCode::SessionNotFound, message: "there is no such session".into() }
}

async fn take(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Map<String, Value>, BadFrame> {
    let (mut body, mut taken) = (std::pin::pin!(body), Vec::new());
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| invalid("the body was cut off"))?;
        if taken.len() + part.remaining() > limits::INTERNAL_BODY_MAX_BYTES {
            return Err(invalid("the body is too large"));
        }
        taken.extend_from_slice(&part.copy_to_bytes(part.remaining()));
    }
    serde_json::from_slice(&taken).map_err(|_| invalid("the body is not a JSON object"))
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::AgentNotAuthorized | ErrorCode::OriginNotAllowed => StatusCode::FORBIDDEN,
        ErrorCode::AuthContextInvalid => StatusCode::UNAUTHORIZED,
        ErrorCode::SessionNotFound | ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::StorageError => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::OtpSendFailed => StatusCode::BAD_GATEWAY,
        ErrorCode::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Builds a response that any page may read.
fn respond(status: StatusCode, body: Bytes) -> Response {
    let mut response = Builder::new()
        .status(status)
        .header("access-control-allow-origin", "*")
        .header("access-control-allow-methods", "POST, OPTIONS")
        .header("access-control-allow-headers", "content-type")
        .header("access-control-max-age", "600")
        .header("cache-control", "no-store");
    if !body.is_empty() {
        response = response.header("content-type", "application/json");
    }
    response.body(body.into()).expect("the headers are constants")
}
