//! Fetches one URL.
//!
//! Each hop is checked anew: the URL, then every address behind its name; the connection goes to exactly the checked
//! addresses, so a name that resolves differently a second time changes nothing.

use std::{
    error::Error,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use reqwest::{
    Client, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION},
    redirect,
};
use tokio::time::timeout;
use url::{Host, Url};

use super::guard::{FetchPolicy, FetchRefusal, is_public};
use crate::limits;

/// The reason why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Refused(#[from] FetchRefusal),
    #[error("the host's name can't be resolved")]
    Unresolved,
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
    #[error("the server answered {0}")]
    Status(u16),
    #[error("too many redirects")]
    Redirects,
    #[error("the content is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the content is compressed, which was not asked for")]
    Compressed,
    #[error("the server took too long")]
    TimedOut,
}

/// A fetched document.
#[derive(Debug)]
pub struct FetchResponse {
    /// The final URL, after redirects.
    pub url: Url,
    /// The media type in lower case, without parameters; empty if the server names none.
    pub content_type: String,
    /// The encoding of text, as the server names it.
    pub charset: Option<String>,
    pub body: Vec<u8>,
}

/// A resolver of host names.
pub trait NameResolver: Send + Sync {
    fn lookup<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

/// The machine's own resolver.
struct SystemNames;

impl NameResolver for SystemNames {
    fn lookup<'a>(&'a self, host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// Fetches under a policy. It keeps no cookies, no connections and no cache.
#[derive(Clone)]
pub struct Fetcher {
    policy: FetchPolicy,
    names: Arc<dyn NameResolver>,
}

impl Fetcher {
    /// Creates a fetcher with the machine's resolver.
    pub fn new(policy: FetchPolicy) -> Self {
        Self::with_names(policy, Arc::new(SystemNames))
    }

    /// Creates a fetcher with its own resolver.
    pub fn with_names(policy: FetchPolicy, names: Arc<dyn NameResolver>) -> Self {
        Self { policy, names }
    }

    /// Fetches a URL from an untrusted source, in bounded time and size.
    pub async fn fetch(&self, url: &str, headers: &HeaderMap) -> Result<FetchResponse, FetchError> {
        let limit = Duration::from_millis(limits::FETCH_TIMEOUT_MS);
        timeout(limit, self.follow(url, headers)).await.map_err(|_| FetchError::TimedOut)?
    }

    async fn follow(&self, url: &str, headers: &HeaderMap) -> Result<FetchResponse, FetchError> {
        let mut url = self.policy.check(url)?;
        let origin = url.origin();
        for _ in 0..=limits::FETCH_REDIRECTS_MAX {
            // Headers for one server (a token, say) are not sent to another.
            let own = if url.origin() == origin { headers.clone() } else { HeaderMap::new() };
            let response = self.hop(&url, own).await?;
            if !response.status().is_redirection() {
                return body(url, response).await;
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = target.ok_or(FetchError::Status(response.status().as_u16()))?;
            url = match Url::parse(target) {
                Ok(_) => self.policy.check(target)?,
                Err(_) => {
                    let joined = url.join(target).map_err(|_| FetchRefusal::NotAUrl)?;
                    self.policy.check(joined.as_str())?
                }
            };
        }
        Err(FetchError::Redirects)
    }

    /// Sends one request, to checked addresses.
    async fn hop(&self, url: &Url, headers: HeaderMap) -> Result<Response, FetchError> {
        let addresses = self.addresses(url).await?;
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(PinnedResolver(addresses.clone())))
            .connect_timeout(Duration::from_millis(limits::FETCH_CONNECT_MS))
            .user_agent(concat!("turnstream/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(unreachable)?;
        let request = client.get(url.clone()).headers(headers).header(ACCEPT_ENCODING, "identity");
        let response = request.send().await.map_err(unreachable)?;
        match response.remote_addr() {
            Some(peer) if !addresses.iter().any(|address| address.ip() == peer.ip()) => {
                Err(FetchRefusal::Host(peer.ip().to_string()).into())
            }
            _ => Ok(response),
        }
    }

    /// Returns the addresses behind a URL's host; one address that is not public fails them all.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, FetchError> {
        let port = url.port_or_known_default().ok_or(FetchRefusal::NotAUrl)?;
        let found = match url.host().ok_or(FetchRefusal::NotAUrl)? {
            Host::Ipv4(address) => vec![IpAddr::V4(address)],
            Host::Ipv6(address) => vec![IpAddr::V6(address)],
            Host::Domain(name) => self.names.lookup(name).await.map_err(|_| FetchError::Unresolved)?,
        };
        if found.is_empty() {
            return Err(FetchError::Unresolved);
        }
        if !self.policy.lists(url) && !found.iter().all(|address| is_public(*address)) {
            return Err(FetchRefusal::Host(url.host_str().unwrap_or_default().to_string()).into());
        }
        Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

/// A resolver that answers every name with the checked addresses.
struct PinnedResolver(Vec<SocketAddr>);

impl Resolve for PinnedResolver {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

fn unreachable(error: reqwest::Error) -> FetchError {
    let mut cause: &dyn Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    FetchError::Unreachable(cause.to_string())
}

/// Reads a body up to the limit, regardless of its announced length.
async fn body(url: Url, response: Response) -> Result<FetchResponse, FetchError> {
    if !response.status().is_success() {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(FetchError::Compressed);
    }
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let content_type = parts.next().unwrap_or_default();
    let charset = parts.find_map(|part| part.strip_prefix("charset=").map(|name| name.trim_matches('"').to_string()));
    let mut body = Vec::new();
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(unreachable)?;
        if body.len() + part.len() > limits::FETCH_MAX_BYTES {
            return Err(FetchError::TooLarge(limits::FETCH_MAX_BYTES));
        }
        body.extend_from_slice(&part);
    }
    Ok(FetchResponse { url, content_type, charset, body })
}
