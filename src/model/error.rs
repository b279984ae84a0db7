//! Errors of model calls.
//!
//! Contract: `Display` holds only this program's own words, so that no text of a gateway can reach a visitor; the cause
//! is kept in [`ModelError::detail`], bounded, for logs.

/// A gateway that cannot be set up from its configuration.
#[derive(thiserror::Error, Debug)]
pub enum GatewayConfigError {
    #[error("the gateway URL is not an absolute http or https URL")]
    Url,
    #[error("the gateway key holds characters that an HTTP header cannot carry")]
    Key,
    #[error("the HTTP client could not be built")]
    Client(#[source] reqwest::Error),
}

/// A model call that gave no complete reply.
#[derive(thiserror::Error, Debug, Clone)]
pub enum ModelError {
    /// The gateway refused the request, after retries where the status allows them.
    #[error("the model gateway answered with status {code}")]
    Status { code: u16, detail: String },
    /// No connection, or it broke before the response head, after retries.
    #[error("the model gateway could not be reached")]
    Connect { detail: String },
    /// No response head in time, or a reply that took longer than any reply may.
    #[error("the model gateway did not answer in time")]
    Timeout { detail: String },
    /// The stream ended, or broke, before its end marker.
    #[error("the model's answer was cut off")]
    Truncated { detail: String },
    /// The body is not a stream of chat completion chunks.
    #[error("the model gateway's answer is not a chat completion stream")]
    NotTheApi { detail: String },
    /// The gateway reported an error inside its stream.
    #[error("the model gateway reported an error while answering")]
    Reported { detail: String },
    /// A content filter refused the request, or stopped the answer with an error.
    #[error("the model gateway's content filter stopped the call")]
    Filtered { detail: String },
    /// The stream went silent.
    #[error("the model's answer stalled")]
    Stalled { detail: String },
    /// The reply is larger than a reply may be.
    #[error("the model's answer is too large")]
    TooLarge { detail: String },
}

impl ModelError {
    /// Creates the error for a body that reports one in place of an answer.
    pub(super) fn reported(body: &[u8]) -> Self {
        let detail = excerpt(body);
        if is_filter(body) { Self::Filtered { detail } } else { Self::Reported { detail } }
    }

    /// Creates the error for a refusal with this status.
    pub(super) fn refused(code: u16, body: &[u8]) -> Self {
        let detail = excerpt(body);
        if matches!(code, 400 | 403 | 422) && is_filter(body) {
            Self::Filtered { detail }
        } else {
            Self::Status { code, detail }
        }
    }

    /// Returns the cause, possibly in the gateway's own words: for logs, never for a client.
    pub fn detail(&self) -> &str {
        match self {
            Self::Status { detail, .. }
            | Self::Connect { detail }
            | Self::Timeout { detail }
            | Self::Truncated { detail }
            | Self::NotTheApi { detail }
            | Self::Reported { detail }
            | Self::Filtered { detail }
            | Self::Stalled { detail }
            | Self::TooLarge { detail } => detail,
        }
    }
}

/// The longest piece of foreign text kept in an error: enough to recognise the cause.
const DETAIL_MAX_CHARS: usize = 300;

/// Returns whether a content filter caused an error, by the words that providers use.
fn is_filter(body: &[u8]) -> bool {
    const WORDS: [&str; 5] = [
        "content_filter",
        "content management policy",
        "content_policy_violation",
        "responsibleaipolicy",
        "data_inspection_failed",
    ];
    let body = String::from_utf8_lossy(body).to_lowercase();
    WORDS.iter().any(|words| body.contains(words))
}

/// Returns a bounded, one-line piece of a gateway's answer.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(DETAIL_MAX_CHARS * 4)];
    let text = String::from_utf8_lossy(head);
    let one_line: Vec<&str> = text.split_whitespace().collect();
    one_line.join(" ").chars().take(DETAIL_MAX_CHARS).collect()
}

/// Returns a transport error with its causes, without the URL, which may carry credentials.
pub(super) fn transport_detail(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        detail.push_str(": ");
        detail.push_str(&cause.to_string());
        source = cause.source();
    }
    detail
}
