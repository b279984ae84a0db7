//! URLs: checked, and printed without their secrets.

use url::Url;

/// Returns whether a text is the URL of a web server.
pub(super) fn is_web(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
}

/// Returns whether a text names a NATS server: `host`, `host:port`, or a URL.
pub(super) fn is_nats(text: &str) -> bool {
    let whole = if text.contains("://") { text.to_string() } else { format!("nats://{text}") };
    Url::parse(&whole).is_ok_and(|url| {
        ["nats", "tls", "ws", "wss"].contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty())
    })
}

/// Removes possible secrets from a URL: user and password, values of the query, fragment.
///
/// A text that is not a URL may be a mistyped one, so only its end is kept.
pub fn without_secrets(url: &str) -> String {
    let (address, rest) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let address = match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}***{}", &address[..scheme + 3], &address[at..]),
        (None, Some(at)) => format!("***{}", &address[at..]),
        _ => address.to_string(),
    };
    let Some(query) = rest.strip_prefix('?') else { return address };
    let (query, _) = query.split_once('#').unwrap_or((query, ""));
    let names = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None => "***".to_string(),
    });
    format!("{address}?{}", names.collect::<Vec<_>>().join("&"))
}

/// Removes possible secrets from several URLs, separated by commas.
pub fn each_without_secrets(urls: &str) -> String {
    urls.split(',').map(|url| without_secrets(url.trim())).collect::<Vec<_>>().join(",")
}
