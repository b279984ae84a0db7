//! Answers and refusals as HTTP.

use chrono::Utc;
use serde::Serialize;
use warp::http::{Response, StatusCode};

use crate::{
    knowledge::KnowledgeStoreError,
    nats::{AppendError, ReadError},
    wire::frames::{self, ErrorCode},
};

/// The answer to a served request.
#[derive(Debug)]
pub struct HttpResponse {
    status: StatusCode,
    body: Vec<u8>,
    /// A page's content security policy. `None`: the body is JSON.
    policy: Option<String>,
}

/// The reason why a request is not served. Its body is an `error` frame.
#[derive(Debug, PartialEq)]
pub struct HttpRefusal {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl HttpResponse {
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("answers are maps with string keys");
        Self { status, body, policy: None }
    }

    pub fn ok(value: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, value)
    }

    /// Answers with a page for people.
    pub fn page(html: String, policy: String) -> Self {
        Self { status: StatusCode::OK, body: html.into_bytes(), policy: Some(policy) }
    }

    /// Answers with an empty body.
    pub fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: Vec::new(), policy: None }
    }
}

impl HttpRefusal {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The request lacks a token.
    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated, "a bearer token is needed")
    }

    pub fn invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::InvalidToken, "the token is not valid")
    }

    pub fn missing_role() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::MissingRole, "the token names no role")
    }

    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, "this needs another role")
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, "there is no such thing")
    }

    /// The request is malformed; `message` names the fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::ValidationError, message)
    }

    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ValidationError, "the body is too large")
    }

    /// The answer would be larger than an edge gives.
    pub fn too_much(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ValidationError, message)
    }

    fn storage(cause: &dyn std::fmt::Display) -> Self {
        tracing::warn!(%cause, "an administrator's request failed");
        let message = "the storage is not available, please try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::StorageError, message)
    }

    fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "an administrator's request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, "something went wrong on our side")
    }
}

impl From<ReadError> for HttpRefusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) | ReadError::NoKey(_) => Self::storage(&error),
            ReadError::Encrypted(_) => Self::internal(&error),
        }
    }
}

impl From<AppendError> for HttpRefusal {
    fn from(error: AppendError) -> Self {
        Self::storage(&error)
    }
}

impl From<KnowledgeStoreError> for HttpRefusal {
    fn from(error: KnowledgeStoreError) -> Self {
        Self::storage(&error)
    }
}

/// Builds the response of a served or refused request.
pub fn respond(served: Result<HttpResponse, HttpRefusal>) -> warp::reply::Response {
    let (status, body, policy) = match served {
        Ok(HttpResponse { status, body, policy }) => (status, body, policy),
        Err(HttpRefusal { status, code, message }) => {
            (status, frames::error(None, code, &message, Utc::now()).into(), None)
        }
    };
    let mut response = Response::builder().status(status).header("cache-control", "no-store");
    response = response.header("x-content-type-options", "nosniff");
    if status == StatusCode::UNAUTHORIZED {
        response = response.header("www-authenticate", "Bearer");
    }
    response = match policy {
        Some(policy) => {
            response.header("content-type", "text/html; charset=utf-8").header("content-security-policy", policy)
        }
        None if body.is_empty() => response,
        None => response.header("content-type", "application/json"),
    };
    response.body(body.into()).expect("the headers are ASCII")
}
