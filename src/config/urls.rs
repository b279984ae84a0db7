//! Printing of URLs without their secrets.

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
