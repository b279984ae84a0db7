//! The files of the widget, for host pages of any origin.
//!
//! The loader is `no-cache` with an ETag under its stable URL, `/widget/v1/widget.js`. Files under the release,
//! `/widget/v1/{release}/…`, are immutable. A release that this edge does not have is answered with 404 rather than with files
//! of another one: the loader then asks the next edge.

use warp::{
    Filter, Rejection,
    filters::BoxedFilter,
    http::{HeaderMap, HeaderValue, header},
    reply::Response,
};

use super::served;
use crate::widget::{LOADER, StaticFile, WidgetFiles};

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

fn answer(file: &StaticFile, headers: &HeaderMap, cache: &'static str) -> Response {
    let mut response = served(file, headers, "text/javascript; charset=utf-8", cache);
    let fields = response.headers_mut();
    fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    fields.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

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
