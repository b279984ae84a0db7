//! The gateway client: one request, its retries, and the check that the answer comes from the API.
//!
//! Contract: [`Gateway::chat`] returns only an answer whose head was accepted; as none of its body was read yet,
//! everything before that point may be retried, also in another dialect if the gateway asks for one ([`Dialects`]). The
//! key goes into a header that is marked sensitive and into nothing else; redirects are not followed, since they would
//! take the request to another host.

use super::{
    dialect::Dialects,
    error::{GatewayConfigError, ModelError, excerpt, transport_detail},
    messages::ChatRequest,
    request,
    retry::{RETRIES_MAX, backoff, is_retryable, retry_after},
    stream::ChatStream,
    timeouts::Timeouts,
};
use crate::metrics::metrics;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, Url};
use std::time::{Duration, Instant};

/// The number of dialects that are tried for one request.
const DIALECTS_MAX: u32 = 6;
/// The time and the size within which the body of a refusal is read, for the log.
const REFUSAL_TIMEOUT_MS: u64 = 2_000;
const REFUSAL_MAX_BYTES: usize = 4 * 1024;
/// The largest answer that is not a stream: a batch of embeddings, as text.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A model gateway: address, key and connection pool. Clones share the pool.
#[derive(Clone)]
pub struct Gateway {
    client: Client,
    authorization: Option<HeaderValue>,
    base: Url,
    url: Url,
    timeouts: Timeouts,
    dialects: Dialects,
}

/// A failed attempt: final, to be retried after the gateway's wait (if any), or perhaps to be sent in another dialect.
enum Failure {
    Final(ModelError),
    Passing(ModelError, Option<Duration>),
    Refused(u16, Vec<u8>),
}

impl Gateway {
    /// Creates a gateway client. `base_url` ends before `/chat/completions`, usually in `/v1`.
    ///
    /// Without a key no `Authorization` header is sent. The process must have installed a rustls crypto provider.
    pub fn new(base_url: &str, key: Option<String>) -> Result<Self, GatewayConfigError> {
        Self::with_timeouts(base_url, key, Timeouts::default())
    }

    pub fn with_timeouts(base_url: &str, key: Option<String>, timeouts: Timeouts) -> Result<Self, GatewayConfigError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client = Client::builder()
            .default_headers(headers)
            .connect_timeout(timeouts.connect)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(GatewayConfigError::Client)?;
        let (base, url) = (endpoint_url(base_url, &[])?, endpoint_url(base_url, &["chat", "completions"])?);
        let authorization = key.map(|key| bearer(&key)).transpose()?;
        Ok(Self { client, authorization, base, url, timeouts, dialects: Dialects::default() })
    }

    /// Returns the same gateway with another key.
    pub fn with_key(&self, key: &str) -> Result<Self, GatewayConfigError> {
        Ok(Self { authorization: Some(bearer(key)?), ..self.clone() })
    }

    /// Sends the request with retries; returns once the response head is accepted.
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, ModelError> {
        let mut dialect = self.dialects.of(&request.model);
        let (mut body, sent) = (request::body(request, dialect), request::sent(request));
        let (mut retry, mut said_otherwise) = (0, 0);
        loop {
            let (error, wait) = match self.attempt(body.clone()).await {
                Ok(response) => {
                    if said_otherwise > 0 {
                        self.dialects.learn(&request.model, dialect);
                    }
                    return Ok(ChatStream::new(response, self.timeouts));
                }
                Err(Failure::Refused(code, refusal)) => match dialect.after(code, &refusal, &sent) {
                    Some(other) if said_otherwise < DIALECTS_MAX => {
                        tracing::info!(
                            model = request.model,
                            ?other,
                            "a model gateway needs another request dialect; using it from now on"
                        );
                        (dialect, said_otherwise) = (other, said_otherwise + 1);
                        body = request::body(request, dialect);
                        continue;
                    }
                    _ if !is_retryable(code) => return Err(ModelError::refused(code, &refusal)),
                    _ => (ModelError::refused(code, &refusal), None),
                },
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, wait)) => (error, wait),
            };
            if retry == RETRIES_MAX {
                return Err(error);
            }
            let wait = wait.unwrap_or_else(|| backoff(self.timeouts.first_retry, retry));
            retry += 1;
            metrics().gateway.retried();
            tracing::warn!(
                %error,
                detail = error.detail(),
                retry,
                wait_ms = wait.as_millis() as u64,
                "the model call failed; trying again"
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// Calls another endpoint once, with a JSON body in both directions.
    pub(super) async fn post(&self, endpoint: &str, body: &serde_json::Value) -> Result<Vec<u8>, ModelError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(endpoint);
        }
        let connect = |error| ModelError::Connect { detail: transport_detail(error) };
        let sent = self.request(url).header(ACCEPT, "application/json").body(body.to_string()).send();
        let answered = async {
            let mut response = sent.await.map_err(connect)?;
            if !response.status().is_success() {
                let code = response.status().as_u16();
                return Err(ModelError::refused(code, &refusal(response).await));
            }
            let mut answer = Vec::new();
            while let Some(part) = response.chunk().await.map_err(connect)? {
                answer.extend_from_slice(&part);
                if answer.len() > ANSWER_MAX_BYTES {
                    return Err(ModelError::TooLarge { detail: format!("more than {ANSWER_MAX_BYTES} bytes") });
                }
            }
            Ok(answer)
        };
        let late = |_| ModelError::Timeout { detail: format!("no answer in {:?}", self.timeouts.head) };
        tokio::time::timeout(self.timeouts.head, answered).await.map_err(late)?
    }

    fn request(&self, url: Url) -> RequestBuilder {
        let request = self.client.post(url);
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<Response, Failure> {
        let begun = Instant::now();
        let sent = self.request(self.url.clone()).body(body).send();
        let response = match tokio::time::timeout(self.timeouts.head, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                metrics().gateway.requested("connect");
                let detail = transport_detail(error);
                return Err(Failure::Passing(ModelError::Connect { detail }, None));
            }
            Err(_) => {
                metrics().gateway.requested("timeout");
                let detail = format!("no response head in {:?}", self.timeouts.head);
                return Err(Failure::Final(ModelError::Timeout { detail }));
            }
        };
        let code = response.status().as_u16();
        metrics().gateway.answered(code, begun.elapsed());
        if !response.status().is_success() {
            let wait = retry_after(response.headers());
            let body = refusal(response).await;
            return Err(match wait.filter(|_| is_retryable(code)) {
                Some(wait) => Failure::Passing(ModelError::refused(code, &body), Some(wait)),
                None => Failure::Refused(code, body),
            });
        }
        if is_page(response.headers()) {
            let detail = excerpt(&refusal(response).await);
            return Err(Failure::Final(ModelError::NotTheApi { detail }));
        }
        Ok(response)
    }
}

fn bearer(key: &str) -> Result<HeaderValue, GatewayConfigError> {
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| GatewayConfigError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns the URL of an endpoint; the base URL's query is kept.
fn endpoint_url(base_url: &str, path: &[&str]) -> Result<Url, GatewayConfigError> {
    let mut url = Url::parse(base_url.trim()).map_err(|_| GatewayConfigError::Url)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(GatewayConfigError::Url);
    }
    url.path_segments_mut().map_err(|()| GatewayConfigError::Url)?.pop_if_empty().extend(path);
    Ok(url)
}

/// Returns whether an answer is a page for people or other media, not the API's.
///
/// Gateways give their streams odd content types, or none; then the first bytes of the body decide.
fn is_page(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "text/html"
        || ["image/", "audio/", "video/", "multipart/"].iter().any(|kind| media_type.starts_with(kind))
}

/// Returns the beginning of an answer that is not a stream, for the log.
async fn refusal(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(bytes)) = response.chunk().await {
            body.extend_from_slice(&bytes);
            if body.len() >= REFUSAL_MAX_BYTES {
                break;
            }
        }
    };
    let limit = Duration::from_millis(REFUSAL_TIMEOUT_MS);
    // The bytes read by then are enough; a body that does not end is no reason to wait.
    let _ = tokio::time::timeout(limit, read).await;
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_built_from_the_base_url() {
        let url = |base: &str| endpoint_url(base, &["chat", "completions"]).map(String::from).ok();
        let plain = Some("https://h.example/v1/chat/completions".to_owned());
        assert_eq!(url("https://h.example/v1"), plain);
        assert_eq!(url("https://h.example/v1/"), plain);
        assert_eq!(
            url("http://h.example:8080/azure?api-version=1").as_deref(),
            Some("http://h.example:8080/azure/chat/completions?api-version=1")
        );
        assert_eq!(url("http://h.example").as_deref(), Some("http://h.example/chat/completions"));
        for odd in ["", "h.example/v1", "ftp://h.example", "mailto:a@h.example"] {
            assert_eq!(url(odd), None, "{odd}");
        }
    }
}
