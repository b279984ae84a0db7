//! Pages, by their origin.

use url::Url;

/// Returns true if one of the patterns allows a page's origin. A page without one is allowed by `*` alone.
pub fn is_allowed(patterns: &[String], origin: Option<&str>) -> bool {
    let origin = origin.and_then(parse);
    patterns.iter().any(|pattern| match (pattern.trim(), &origin) {
        ("*", _) => true,
        (_, None) => false,
        (pattern, Some(origin)) => fits(pattern, origin),
    })
}

/// Parses an origin as browsers write it: scheme, host and port, and not even a slash behind them.
pub fn parse(text: &str) -> Option<Url> {
    let url = bare(text)?;
    let written = url.origin().ascii_serialization();
    let with_port = format!("{written}:{}", url.port_or_known_default()?);
    [written, with_port].iter().any(|form| form.eq_ignore_ascii_case(text)).then_some(url)
}

/// Parses an origin and nothing more: scheme, host, port. A path is no part of it, so that
/// `https://evil.example/.shop.example` is no page of the shop.
fn bare(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_public = url.username().is_empty() && url.password().is_none();
    let is_web = ["http", "https"].contains(&url.scheme()) && url.host_str().is_some();
    (is_bare && is_public && is_web).then_some(url)
}

fn fits(pattern: &str, origin: &Url) -> bool {
    let same = |a: &Url| a.scheme() == origin.scheme() && a.port_or_known_default() == origin.port_or_known_default();
    match pattern.split_once("://*.") {
        Some((scheme, domain)) => {
            let Some(base) = bare(&format!("{scheme}://{domain}")).filter(same) else { return false };
            let (Some(base), Some(host)) = (base.host_str(), origin.host_str()) else { return false };
            host == base || host.strip_suffix(base).is_some_and(|rest| rest.ends_with('.'))
        }
        None => bare(pattern).is_some_and(|exact| same(&exact) && exact.host_str() == origin.host_str()),
    }
}
