//! The pages that an edge serves: the chat page at `/`, and the auditors' page at `/audit`, which shows nothing without a token.
//!
//! - [`widget`]: the files of the widget, for pages of other hosts.   - [`embed`]: the widget as a page, for frames.
//!
//! All of them are compressed for clients that take gzip, and not sent again to those that have them.

mod embed;
mod widget;

use std::sync::{Arc, LazyLock};

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    reply::Response,
};

use crate::{edge::Edge, widget::StaticFile};

const CHAT: &str = include_str!("visitors.html");
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

static CHAT_FILE: LazyLock<StaticFile> = LazyLock::new(|| StaticFile::new("chat", CHAT.into()));
static AUDIT_FILE: LazyLock<StaticFile> = LazyLock::new(|| StaticFile::new("audit", AUDIT.into()));

pub fn routes(edge: Arc<Edge>) -> BoxedFilter<(Response,)> {
    let headers = warp::header::headers_cloned();
    let chat = warp::path::end().and(warp::get()).and(headers).map(|headers| page(&CHAT_FILE, CHAT_POLICY, &headers));
    let audit =
        warp::path!("audit").and(warp::get()).and(headers).map(|headers| page(&AUDIT_FILE, &AUDIT_POLICY, &headers));
    chat.or(audit).unify().or(embed::routes(edge)).unify().or(widget::routes()).unify().boxed()
}

fn page(file: &StaticFile, policy: &str, headers: &HeaderMap) -> Response {
    let response = served(file, headers, "text/html; charset=utf-8", "no-cache");
    warp::reply::with_header(response, header::CONTENT_SECURITY_POLICY, policy).into_response()
}

/// Answers a request with a file, or with 304 to a client that has it.
fn served(file: &StaticFile, headers: &HeaderMap, content_type: &'static str, cache: &'static str) -> Response {
    let mut response = if has(headers, header::IF_NONE_MATCH, &file.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if takes_gzip(headers) {
        warp::reply::with_header(file.gzipped.clone(), header::CONTENT_ENCODING, "gzip").into_response()
    } else {
        file.text.clone().into_response()
    };
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(etag) = HeaderValue::from_str(&file.etag) {
        fields.insert(header::ETAG, etag);
    }
    response
}

/// Returns true if a header with a list of values has this one, or `*`. Weak validators match as well, as proxies make them.
fn has(headers: &HeaderMap, name: header::HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().trim_start_matches("W/"))
        .any(|value| value == wanted || value == "*")
}

/// Returns true if the client takes gzip: named, and not with the weight 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0);
        matches!(name.trim().to_ascii_lowercase().as_str(), "gzip" | "*") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn gzip_is_sent_to_clients_that_take_it() {
        for (value, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("br", false),
        ] {
            assert_eq!(takes_gzip(&headers(header::ACCEPT_ENCODING, value)), takes, "{value}");
        }
    }
}
