//! `/embed?agent=…`: the widget as a whole page, for frames of host pages.
//!
//! The origins of the agent's policy may frame it; without a policy, this edge's own pages alone, since a page around the frame
//! could lead a visitor's clicks to an approval. The frame's connection has the edge's own origin, which the policy names as well.

use std::sync::Arc;

use url::form_urlencoded;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::{HeaderMap, header},
    reply::Response,
};

use super::served;
use crate::{
    edge::Edge,
    widget::{LOADER, PATH, StaticFile},
};

/// Parameters of the query that are attributes of the widget's script tag.
const ATTRIBUTES: [&str; 6] = ["agent", "lang", "theme", "title", "greeting", "examples"];

pub fn routes(edge: Arc<Edge>) -> BoxedFilter<(Response,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::path!("embed")
        .and(warp::get())
        .and(query)
        .and(warp::header::headers_cloned())
        .then(move |query: String, headers: HeaderMap| {
            let edge = edge.clone();
            async move { embed(&edge, &query, &headers).await }
        })
        .boxed()
}

async fn embed(edge: &Edge, query: &str, headers: &HeaderMap) -> Response {
    let given: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, value)| ATTRIBUTES.contains(&name.as_ref()) && !value.is_empty())
        .collect();
    let agent = given.iter().find(|(name, _)| name == "agent").map(|(_, agent)| agent.as_ref());
    let ancestors = match agent {
        Some(agent) => edge.widgets.origins(agent).await,
        None => None,
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'self' {}",
        sources(&ancestors.unwrap_or_default())
    );
    let file = StaticFile::new("embed", page(&given));
    let response = served(&file, headers, "text/html; charset=utf-8", "no-cache");
    warp::reply::with_header(response, header::CONTENT_SECURITY_POLICY, policy).into_response()
}

fn page<T: AsRef<str>>(given: &[(T, T)]) -> String {
    let attributes: String =
        given.iter().map(|(name, value)| format!(" data-{}=\"{}\"", name.as_ref(), escape(value.as_ref()))).collect();
    let lang = given.iter().find(|(name, _)| name.as_ref() == "lang").map_or("en", |(_, lang)| lang.as_ref());
    format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1, interactive-widget=resizes-content\">\n\
         <title>Chat</title>\n<link rel=\"icon\" href=\"data:,\">\n</head>\n<body>\n\
         <script async src=\"{PATH}/{LOADER}\" data-mode=\"page\"{attributes}></script>\n</body>\n</html>\n",
        escape(lang)
    )
}

/// Returns the sources of a Content-Security-Policy for the origins of a widget policy; patterns with other characters are left out.
fn sources(origins: &[String]) -> String {
    let is_plain = |origin: &&str| origin.chars().all(|c| c.is_ascii_alphanumeric() || "*.-:/[]".contains(c));
    let mut sources = Vec::new();
    for origin in origins.iter().map(|origin| origin.trim()).filter(is_plain) {
        sources.push(origin.to_string());
        // In widget policies `https://*.host` is `https://host` as well.
        if let Some((scheme, host)) = origin.split_once("://*.") {
            sources.push(format!("{scheme}://{host}"));
        }
    }
    sources.join(" ")
}

/// Returns a text as the value of an attribute in double quotes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_cannot_leave_its_attribute() {
        let html = page(&[("agent", "a\"><script>alert(1)</script>"), ("lang", "de\" onload=\"x")]);
        assert!(html.contains("data-agent=\"a&quot;>&lt;script>alert(1)&lt;/script>\""));
        assert_eq!(html.matches("<script").count(), 1);
        assert!(html.contains("<html lang=\"de&quot; onload=&quot;x\">"));
    }

    #[test]
    fn an_origin_cannot_add_a_directive() {
        let origins = ["https://shop.example", "https://*.example.com:444", "https://a; script-src *", "x\r\ny"]
            .map(String::from);
        assert_eq!(sources(&origins), "https://shop.example https://*.example.com:444 https://example.com:444");
    }
}
