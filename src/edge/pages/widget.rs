//! The files of the widget, for host pages of any origin.
//!
//! The loader is `no-cache` with an ETag under its stable URL, `/widget/v1/widget.js`. Files under the release,
//! `/widget/v1/{release}/…`, are immutable. A release that this edge does not have is answered with 404 rather than with files
//! of another one: the loader then asks the next edge.

use warp::{
    Filter, Rejection, Reply,
    filters::BoxedFilter,
    http::{HeaderMap, StatusCode, header},
    reply::Response,
};

use crate::widget::{LOADER, WidgetFile, WidgetFiles};

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Browsers keep the loader and ask whether it has changed.
const REVALIDATED: &str = "public, no-cache";

pub fn routes() -> BoxedFilter<(Response,)> {
    let stable = warp::path!("widget" / "v1" / String).and(warp::get()).and(warp::header::headers_cloned()).and_then(
        |name: String, headers: HeaderMap| async move {
            let files = WidgetFiles::current();
            match files.get(LOADER).filter(|_| name == LOADER) {
                Some(file) => Ok::<_, Rejection>(answer(file, &headers, REVALIDATED)),
                None => Err(warp::reject::not_found()),
            }
        },
    );
    let released = warp::path!("widget" / "v1" / String / String)
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and_then(|release: String, name: String, headers: HeaderMap| async move {
            let files = WidgetFiles::current();
            match files.get(&name).filter(|_| release == files.release) {
                Some(file) => Ok::<_, Rejection>(answer(file, &headers, IMMUTABLE)),
                None => Err(warp::reject::not_found()),
            }
        });
    stable.or(released).unify().boxed()
}

fn answer(file: &WidgetFile, headers: &HeaderMap, cache: &'static str) -> Response {
    let mut response = if has(headers, header::IF_NONE_MATCH, &file.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if takes_gzip(headers) {
        warp::reply::with_header(file.gzipped.clone(), header::CONTENT_ENCODING, "gzip").into_response()
    } else {
        file.text.clone().into_response()
    };
    let mut set = |name, value: &str| {
        header::HeaderValue::from_str(value).map(|value| response.headers_mut().insert(name, value))
    };
    let fields = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, cache),
        (header::ETAG, &file.etag),
        (header::VARY, "accept-encoding"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    for (name, value) in fields {
        set(name, value).ok();
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
        HeaderMap::from_iter([(name, header::HeaderValue::from_static(value))])
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

    #[test]
    fn a_known_file_is_not_sent_again() {
        let files = WidgetFiles::current();
        let file = files.get(LOADER).unwrap();
        let status = |etag: &str| {
            let etag = header::HeaderValue::from_str(etag).unwrap();
            answer(file, &HeaderMap::from_iter([(header::IF_NONE_MATCH, etag)]), REVALIDATED).status()
        };
        assert_eq!(
            status(&format!("\"other\", W/{}", file.etag)),
            304,
            "proxies weaken the validators of what they compress"
        );
        assert_eq!(status("*"), 304);
        assert_eq!(status("\"other\""), 200);
    }
}
