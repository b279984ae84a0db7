//! Core NATS: messages without a stream.
//!
//! The client library's own types are used where a wrapper would add nothing; they enter the product here.

use std::time::Duration;

pub use async_nats::{Client, HeaderMap, Message, Subscriber};
use async_nats::{Request, client::RequestErrorKind};
use bytes::Bytes;
use tokio::time::timeout;

/// The reason why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No subscriber: the request reached no process.
    #[error("no responders")]
    NoResponders,
    #[error("{0}")]
    NoAnswer(String),
}

/// Returns headers with these names and values.
pub fn headers<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    pairs.into_iter().for_each(|(name, value)| headers.insert(name, value));
    headers
}

/// Returns a header of a message.
pub fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}

/// Sends a request and waits for the answer for at most `wait`.
///
/// The library's own timeout begins only when its queue has room; `grace` is the time for that.
pub async fn request(
    client: &Client,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    (wait, grace): (Duration, Duration),
) -> Result<Message, RequestError> {
    let request = Request::new().headers(headers).payload(payload).timeout(Some(wait));
    match timeout(wait + grace, client.send_request(subject, request)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Err(RequestError::NoResponders),
        Ok(Err(error)) => Err(RequestError::NoAnswer(error.to_string())),
        Err(_) => Err(RequestError::NoAnswer("NATS does not accept the request".into())),
    }
}
