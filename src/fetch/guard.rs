//! The rules for URLs and addresses that may be fetched: pure decisions, no I/O.
//!
//! The sources of URLs (the model, a page's redirect, a sitemap) are not trusted. Addresses that are reachable from
//! here and not from the public internet stay out of reach, unless the operator lists their `host:port`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use url::{Host, Url};

use crate::limits;

/// The reason why a URL is not fetched, told to the model and to the operator of an ingest.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FetchRefusal {
    #[error("this is not a URL that can be fetched")]
    NotAUrl,
    #[error("only http and https URLs are fetched")]
    Scheme,
    #[error("a URL with a user name or password is not fetched")]
    Credentials,
    #[error("the host is written in an unusual way")]
    Spelling,
    #[error("the port {0} is not fetched from")]
    Port(u16),
    #[error("the host `{0}` is not on the public internet")]
    Host(String),
}

/// The allowances beyond the public internet's web ports: `host:port`, exactly as a URL names them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchPolicy {
    allowed: Vec<(String, u16)>,
}

impl FetchPolicy {
    /// Parses a comma-separated list of `host:port`. The error is the malformed entry.
    pub fn parse(list: &str) -> Result<Self, String> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let pair = |entry: &str| {
            let (host, port) = entry.rsplit_once(':')?;
            let port = port.parse().ok().filter(|port| *port != 0)?;
            Host::parse(host).ok().map(|host| (host.to_string(), port))
        };
        let allowed = entries.map(|entry| pair(entry).ok_or_else(|| entry.to_string())).collect::<Result<_, _>>()?;
        Ok(Self { allowed })
    }

    /// Allows the host and port of a URL that the operator has configured.
    pub fn and(mut self, url: &Url) -> Self {
        if let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) {
            self.allowed.push((host.to_string(), port));
        }
        self
    }

    /// Returns whether the operator lists this URL's host and port.
    pub fn lists(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return false };
        let host = host.to_string();
        self.allowed.iter().any(|(name, number)| *name == host && *number == port)
    }

    /// Checks a URL from an untrusted source.
    pub fn check(&self, text: &str) -> Result<Url, FetchRefusal> {
        if text.len() > limits::FETCH_URL_MAX_BYTES {
            return Err(FetchRefusal::NotAUrl);
        }
        let url = Url::parse(text.trim()).map_err(|_| FetchRefusal::NotAUrl)?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(FetchRefusal::Scheme);
        }
        // Programs disagree about these characters, and attacks exploit that; the parser would drop or replace them.
        if text.trim().contains(|c: char| c == '\\' || c.is_control() || c.is_whitespace()) {
            return Err(FetchRefusal::Spelling);
        }
        self.check_parsed(&url)?;
        if written_host(text.trim()).is_none_or(|written| !is_plain(&written, &url)) {
            return Err(FetchRefusal::Spelling);
        }
        Ok(url)
    }

    /// Checks a URL that is made of checked parts, such as the target of a redirect.
    pub fn check_parsed(&self, url: &Url) -> Result<(), FetchRefusal> {
        if !["http", "https"].contains(&url.scheme()) {
            return Err(FetchRefusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchRefusal::Credentials);
        }
        if self.lists(url) {
            return Ok(());
        }
        match url.host() {
            Some(Host::Domain(name)) if is_local_name(name) => return Err(FetchRefusal::Host(name.to_string())),
            Some(Host::Ipv4(address)) if !is_public_v4(address) => return Err(FetchRefusal::Host(address.to_string())),
            Some(Host::Ipv6(address)) if !is_public_v6(address) => return Err(FetchRefusal::Host(address.to_string())),
            Some(_) => {}
            None => return Err(FetchRefusal::NotAUrl),
        }
        match url.port_or_known_default() {
            Some(80 | 443) => Ok(()),
            port => Err(FetchRefusal::Port(port.unwrap_or_default())),
        }
    }
}

impl fmt::Display for FetchPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> = self.allowed.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        f.write_str(&entries.join(","))
    }
}

/// Returns the host between `//` and the port, path, query or fragment, as it was written.
fn written_host(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next()?,
    };
    Some(host.to_string())
}

/// Returns whether a host is written canonically: an address in its usual form, and a name without percent escapes or
/// letters that only look like ASCII. Names in other scripts are accepted.
fn is_plain(written: &str, url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => written == address.to_string(),
        Some(Host::Ipv6(_)) => written.starts_with('['),
        Some(Host::Domain(name)) if name.split('.').any(|label| label.starts_with("xn--")) => !written.contains('%'),
        Some(Host::Domain(name)) => written.eq_ignore_ascii_case(name),
        None => false,
    }
}

/// Returns whether a name never leads to the public internet: single labels, and the top-level names of local networks.
fn is_local_name(name: &str) -> bool {
    const LOCAL: &[&str] = &[
        "localhost",
        "localdomain",
        "local",
        "internal",
        "intranet",
        "private",
        "corp",
        "home",
        "lan",
        "arpa",
        "test",
        "invalid",
        "onion",
        "alt",
    ];
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match name.rsplit_once('.') {
        Some((_, last)) => last.is_empty() || LOCAL.contains(&last),
        None => true,
    }
}

/// Returns whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IPv4 ranges outside of the public internet, from IANA's special-purpose registry, and one cloud's metadata service
/// that answers at an address which looks public.
const V4_SPECIAL: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([168, 63, 129, 16], 32),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 3),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let inside =
        |(base, bits): &([u8; 4], u32)| (address.to_bits() ^ Ipv4Addr::from(*base).to_bits()) >> (32 - bits) == 0;
    !V4_SPECIAL.iter().any(inside)
}

/// Special ranges within `2000::/3`: protocol assignments with Teredo and benchmarks, documentation (two), 6to4, AS112,
/// the old test network.
///
/// Only `2000::/3` is assigned to the public internet, which leaves out loopback, local, multicast, mapped, compatible
/// and translated addresses.
const V6_SPECIAL: &[([u16; 3], u32)] = &[
    ([0x2001, 0, 0], 23),
    ([0x2001, 0x0db8, 0], 32),
    ([0x2002, 0, 0], 16),
    ([0x2620, 0x4f, 0x8000], 48),
    ([0x3ffe, 0, 0], 16),
    ([0x3fff, 0, 0], 20),
];

fn is_public_v6(address: Ipv6Addr) -> bool {
    let inside = |([a, b, c], bits): &([u16; 3], u32)| {
        let base = Ipv6Addr::new(*a, *b, *c, 0, 0, 0, 0, 0);
        (address.to_bits() ^ base.to_bits()) >> (128 - bits) == 0
    };
    let parts = address.segments();
    // An IPv4 address in an interface id (ISATAP) is the target of a tunnel, so it has to be public too.
    let tunnel = parts[4] & 0xfdff == 0 && parts[5] == 0x5efe;
    let inner = Ipv4Addr::from_bits((u32::from(parts[6]) << 16) | u32::from(parts[7]));
    parts[0] >> 13 == 1 && !V6_SPECIAL.iter().any(inside) && (!tunnel || is_public_v4(inner))
}
