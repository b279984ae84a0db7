//! The pages that an edge serves: the chat page at `/`, and the auditors' page at `/audit`, which shows nothing without a token.
//!
//! - [`widget`]: the files of the widget, for pages of other hosts.

mod widget;

use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use warp::{Filter, Reply, filters::BoxedFilter, reply::Response};

const CHAT: &str = include_str!("widget.html");
const CHAT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self' ws: wss:; img-src data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'";

const AUDIT: &str = include_str!("auditors.html");
/// The page shows untrusted text, so only its own script may run.
static AUDIT_POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = AUDIT.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>"));
    let hash = BASE64_STANDARD.encode(Sha256::digest(script.map_or("", |(script, _)| script)));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; connect-src 'self'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
});

pub fn routes() -> BoxedFilter<(Response,)> {
    let chat = warp::path::end().and(warp::get()).map(|| page(CHAT, CHAT_POLICY));
    let audit = warp::path!("audit").and(warp::get()).map(|| page(AUDIT, &AUDIT_POLICY));
    chat.or(audit).unify().or(widget::routes()).unify().boxed()
}

fn page(html: &'static str, policy: &str) -> Response {
    let page = warp::reply::with_header(warp::reply::html(html), "content-security-policy", policy);
    warp::reply::with_header(page, "x-content-type-options", "nosniff").into_response()
}
