//! A reply while it streams in.
//!
//! Contract: [`ChatStream::next`] waits for the network only when there is nothing to give, gives everything that has
//! arrived together, and answers `None` only after a complete reply: one with a finish reason at its end, however its
//! stream ended then, one with an earlier finish reason whose stream ended in order, or one with content and `[DONE]`.
//! Deltas that arrived before an error are given before the error. `next` is cancel-safe: a dropped `next` loses
//! nothing. Dropping the stream aborts the request.
//!
//! `spec/guide/providers.md` decides the cases in which gateways differ.

use super::{
    chunk::CompletionChunk,
    error::{ModelError, excerpt, transport_detail},
    json_repair,
    reply::{ModelReply, ReplyBuilder, ReplyDelta},
    sse::{SseEvent, SseSplitter},
    timeouts::Timeouts,
};
use crate::metrics::metrics;
use bytes::Bytes;
use futures_util::FutureExt;
use reqwest::Response;
use std::time::Duration;
use tokio::time::Instant;

/// The most text that is gathered into one batch, so that a frame made of it stays small.
const BATCH_MAX_BYTES: usize = 8 * 1024;
/// The background wait for the end of the body after `[DONE]`, to reuse the connection.
const DRAIN_TIMEOUT_MS: u64 = 1_000;
/// The wait for the rest of a stream after the finish reason: the usage comes with it or just after it.
const REST_TIMEOUT_MS: u64 = 5_000;
/// The largest answer that is not streamed.
const WHOLE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The header in which LiteLLM reports the cost of a call.
const COST_HEADER: &str = "x-litellm-response-cost";

/// A streamed reply. See the module's contract.
pub struct ChatStream {
    response: Option<Response>,
    splitter: SseSplitter,
    form: Form,
    builder: ReplyBuilder,
    /// Parsed, but not yet given to the caller.
    deltas: Vec<ReplyDelta>,
    end: Option<Result<(), ModelError>>,
    idle: Duration,
    begun: Instant,
    deadline: Instant,
}

/// The form of an answer's body.
enum Form {
    /// Not known before the first significant byte; holds the bytes before that.
    Unknown(Vec<u8>),
    Events,
    /// One completion as JSON, though a stream was requested.
    Whole(Vec<u8>),
}

impl ChatStream {
    pub(super) fn new(response: Response, timeouts: Timeouts) -> Self {
        let cost = response.headers().get(COST_HEADER);
        let cost_usd = cost.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Self {
            response: Some(response),
            splitter: SseSplitter::default(),
            form: Form::Unknown(Vec::new()),
            builder: ReplyBuilder::new(cost_usd),
            deltas: Vec::new(),
            end: None,
            idle: timeouts.idle,
            begun: Instant::now(),
            deadline: Instant::now() + timeouts.reply,
        }
    }

    /// Returns the next deltas: everything that has already arrived, with neighbouring deltas of one kind merged,
    /// without any timer. `None` after the end of a complete reply.
    pub async fn next(&mut self) -> Result<Option<Vec<ReplyDelta>>, ModelError> {
        while self.end.is_none() && self.deltas.is_empty() {
            let received = self.receive().await;
            self.take(received);
        }
        while self.end.is_none() && self.batch_bytes() < BATCH_MAX_BYTES {
            // The connection's own task hands over one packet at a time; it has to run once for the next one to be
            // seen. On an idle runtime this costs about a microsecond.
            tokio::task::yield_now().await;
            let Some(received) = self.received_already() else {
                break;
            };
            self.take(received);
        }
        if !self.deltas.is_empty() {
            return Ok(Some(std::mem::take(&mut self.deltas)));
        }
        match &self.end {
            Some(Err(error)) => {
                metrics().gateway.requested("broken");
                Err(error.clone())
            }
            _ => Ok(None),
        }
    }

    /// Returns the whole reply, after `next` returned `None`.
    pub fn into_reply(self) -> ModelReply {
        metrics().gateway.replied(self.begun.elapsed());
        self.builder.into_reply()
    }

    /// Waits for the next bytes; `None` is the end of the body.
    async fn receive(&mut self) -> Result<Option<Bytes>, ModelError> {
        let Some(response) = self.response.as_mut() else {
            return Ok(None);
        };
        let rest = Duration::from_millis(REST_TIMEOUT_MS);
        let idle = if self.builder.has_ended() { self.idle.min(rest) } else { self.idle };
        let until = self.deadline.min(Instant::now() + idle);
        match tokio::time::timeout_at(until, response.chunk()).await {
            Ok(received) => received.map_err(cut_off),
            Err(_) if until == self.deadline => {
                Err(ModelError::Timeout { detail: "the reply exceeded its time limit".to_owned() })
            }
            Err(_) => Err(ModelError::Stalled { detail: format!("nothing received for {:?}", self.idle) }),
        }
    }

    /// Returns the next bytes if they have arrived.
    fn received_already(&mut self) -> Option<Result<Option<Bytes>, ModelError>> {
        let received = self.response.as_mut()?.chunk().now_or_never()?;
        Some(received.map_err(cut_off))
    }

    fn take(&mut self, received: Result<Option<Bytes>, ModelError>) {
        let result = match received {
            Ok(Some(bytes)) => self.take_bytes(&bytes),
            Ok(None) => self.take_end_of_body().map(|is_done| Some(if is_done { End::Marked } else { End::OfBody })),
            Err(error) => Err(error),
        };
        match result {
            Ok(None) => {}
            Ok(Some(end)) => {
                self.end = Some(self.check_complete(end));
                self.drain();
            }
            Err(error) => {
                self.end = Some(self.check_broken(error));
                self.response = None;
            }
        }
    }

    /// Takes bytes; returns the end, when its marker was among them.
    fn take_bytes(&mut self, bytes: &[u8]) -> Result<Option<End>, ModelError> {
        let mut head = Vec::new();
        let bytes = match &mut self.form {
            Form::Unknown(begun) => {
                begun.extend_from_slice(bytes);
                let Some(form) = form_of(begun) else {
                    // Blanks that keep a connection alive are not scanned again and again.
                    if begun.trim_ascii().is_empty() {
                        begun.clear();
                    }
                    return if begun.len() > WHOLE_MAX_BYTES { Err(too_large()) } else { Ok(None) };
                };
                head.append(begun);
                self.form = form;
                head.as_slice()
            }
            Form::Events | Form::Whole(_) => bytes,
        };
        if let Form::Whole(whole) = &mut self.form {
            whole.extend_from_slice(bytes);
            let is_too_large = whole.len() > WHOLE_MAX_BYTES;
            return if is_too_large { Err(too_large()) } else { Ok(None) };
        }
        let (builder, deltas) = (&mut self.builder, &mut self.deltas);
        let mut taken = Ok(false);
        let pushed = self.splitter.push(bytes, |event| {
            taken = take_event(builder, deltas, event);
            matches!(taken, Ok(false))
        });
        pushed.map_err(|_| too_large())?;
        taken.map(|is_done| is_done.then_some(End::Marked))
    }

    /// Takes the end of the body. True: the end was marked.
    ///
    /// A last event without its empty line still counts; half an event means that the rest is missing. A whole
    /// completion is complete when it can be parsed.
    fn take_end_of_body(&mut self) -> Result<bool, ModelError> {
        let (builder, deltas) = (&mut self.builder, &mut self.deltas);
        if let Form::Whole(whole) = &self.form {
            let whole = whole.trim_ascii();
            return take_whole(builder, deltas, whole.strip_prefix(BYTE_ORDER_MARK).unwrap_or(whole));
        }
        let mut taken = Ok(false);
        std::mem::take(&mut self.splitter).finish(|event| {
            taken = take_event(builder, deltas, event);
            false
        });
        match taken {
            Err(ModelError::NotTheApi { detail }) => Err(ModelError::Truncated { detail }),
            taken => taken,
        }
    }

    /// Checks that the reply is complete, now that its stream has ended in order.
    fn check_complete(&self, end: End) -> Result<(), ModelError> {
        let is_told = matches!(end, End::Marked) && self.builder.has_content();
        if !self.builder.has_finish_reason() && !is_told {
            let detail = "the stream ended without a finish reason".to_owned();
            return Err(ModelError::Truncated { detail });
        }
        Ok(())
    }

    /// Accepts a stream that broke after its finish reason, unless content followed that reason.
    fn check_broken(&self, error: ModelError) -> Result<(), ModelError> {
        if !self.builder.has_ended() {
            return Err(error);
        }
        tracing::warn!(%error, detail = error.detail(), "a model's stream broke after its end; the reply is kept");
        Ok(())
    }

    /// Returns the connection to the pool in the background: that needs the body read to its end, which may come a
    /// packet after `[DONE]`. The caller does not wait for it.
    fn drain(&mut self) {
        let Some(mut response) = self.response.take() else {
            return;
        };
        tokio::spawn(async move {
            let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
            // After the timeout the connection is closed instead, at no other cost.
            let _ = tokio::time::timeout(Duration::from_millis(DRAIN_TIMEOUT_MS), rest).await;
        });
    }

    fn batch_bytes(&self) -> usize {
        let sizes = self.deltas.iter().map(|delta| match delta {
            ReplyDelta::Text(text) | ReplyDelta::Reasoning(text) => text.len(),
        });
        sizes.sum()
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns the form of a body that begins with these bytes. `None`: too few bytes.
fn form_of(begun: &[u8]) -> Option<Form> {
    let begun = begun.trim_ascii_start();
    if begun.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(begun) {
        return None;
    }
    match begun.strip_prefix(BYTE_ORDER_MARK).unwrap_or(begun).trim_ascii_start().first() {
        None => None,
        Some(b'{') => Some(Form::Whole(Vec::new())),
        Some(_) => Some(Form::Events),
    }
}

/// The way in which a stream ended in order.
#[derive(Clone, Copy)]
enum End {
    Marked,
    OfBody,
}

/// Takes one event; true for the end marker.
fn take_event(
    builder: &mut ReplyBuilder,
    deltas: &mut Vec<ReplyDelta>,
    event: SseEvent<'_>,
) -> Result<bool, ModelError> {
    let mut data = event.data.strip_prefix(BYTE_ORDER_MARK).unwrap_or(event.data).trim_ascii();
    // Some proxies wrap events in events.
    while let Some(inner) = data.strip_prefix(b"data:") {
        data = inner.trim_ascii_start();
    }
    if matches!(data, b"[DONE]" | b"\"[DONE]\"") {
        return Ok(true);
    }
    let Err(error) = take_json(builder, deltas, data) else { return Ok(false) };
    let ModelError::NotTheApi { .. } = error else { return Err(error) };
    if let Some(values) = json_repair::values(data).filter(|values| values[0].starts_with(b"{")) {
        return take_each(builder, deltas, values, event);
    }
    // Chunks without an empty line between them come as one event.
    if data.contains(&b'\n') {
        for line in data.split(|byte| *byte == b'\n') {
            if take_event(builder, deltas, SseEvent { data: line, ..event })? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    if event.kind == b"error" && !builder.has_ended() {
        return Err(ModelError::reported(data));
    }
    // Comments, keep-alives and proxies' notices hold no part of the answer, so skipping them loses nothing.
    let is_aside = match data.first() {
        Some(b'{') => false,
        Some(b'<') => !matches!(event.kind, b"" | b"message"),
        _ => true,
    };
    if is_aside || builder.has_ended() { Ok(false) } else { Err(error) }
}

/// Takes values that came together; true where the end marker is among them.
fn take_each(
    builder: &mut ReplyBuilder,
    deltas: &mut Vec<ReplyDelta>,
    values: Vec<&[u8]>,
    event: SseEvent<'_>,
) -> Result<bool, ModelError> {
    for data in values {
        if take_event(builder, deltas, SseEvent { data, ..event })? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes a body that is JSON: one completion, which its end marks as whole, or chunks one after the other.
fn take_whole(builder: &mut ReplyBuilder, deltas: &mut Vec<ReplyDelta>, json: &[u8]) -> Result<bool, ModelError> {
    let Err(error) = take_json(builder, deltas, json) else { return Ok(true) };
    let ModelError::NotTheApi { .. } = error else { return Err(error) };
    match json_repair::values(json) {
        Some(values) => take_each(builder, deltas, values, SseEvent { kind: b"", data: json }),
        None => Err(error),
    }
}

/// Takes the JSON text of a chunk, or of a whole completion.
fn take_json(builder: &mut ReplyBuilder, deltas: &mut Vec<ReplyDelta>, json: &[u8]) -> Result<(), ModelError> {
    let not_the_api = |error| ModelError::NotTheApi { detail: format!("{error}, in: {}", excerpt(json)) };
    let error = match CompletionChunk::parse(json) {
        Ok(chunk) => return builder.take(&chunk, deltas),
        Err(error) => not_the_api(error),
    };
    // Parsed again, after the defects are mended.
    let text = String::from_utf8_lossy(json);
    let mended = json_repair::mended(text.as_bytes());
    match CompletionChunk::parse(mended.as_deref().unwrap_or(text.as_bytes())) {
        Ok(chunk) => builder.take(&chunk, deltas),
        Err(_) => Err(error),
    }
}

fn too_large() -> ModelError {
    ModelError::TooLarge { detail: "an event of the stream is too large".to_owned() }
}

fn cut_off(error: reqwest::Error) -> ModelError {
    let detail = transport_detail(error);
    ModelError::Truncated { detail }
}
