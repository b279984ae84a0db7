//! A reply while it streams in.
//!
//! Contract: [`ChatStream::next`] waits for the network only when there is nothing to give, gives
//! everything that has arrived together, and answers `None` only after a complete reply: a finish
//! reason, and then `[DONE]` or a clean end of the body. What arrived before an error is given
//! before the error. It is cancel-safe: a dropped `next` loses nothing. Dropping the stream aborts
//! the request.

use super::chunk::Chunk;
use super::error::{ModelError, excerpt, transport_detail};
use super::gateway::Timeouts;
use super::reply::{Delta, ModelReply, ReplyBuilder};
use super::sse::SseSplitter;
use bytes::Bytes;
use futures_util::FutureExt;
use reqwest::Response;
use std::time::Duration;
use tokio::time::Instant;

/// The most text that is gathered into one batch, so that a frame made of it stays small.
const BATCH_MAX_BYTES: usize = 8 * 1024;
/// How long the end of the body is waited for after `[DONE]`, aside, to reuse the connection.
const DRAIN_TIMEOUT_MS: u64 = 1_000;
/// The header in which LiteLLM reports what a call cost.
const COST_HEADER: &str = "x-litellm-response-cost";

/// A streamed reply. See the module's contract.
pub struct ChatStream {
    response: Option<Response>,
    splitter: SseSplitter,
    builder: ReplyBuilder,
    /// Parsed, but not yet given to the caller.
    deltas: Vec<Delta>,
    end: Option<Result<(), ModelError>>,
    idle: Duration,
    deadline: Instant,
}

impl ChatStream {
    pub(super) fn new(response: Response, timeouts: Timeouts) -> Self {
        let cost = response.headers().get(COST_HEADER);
        let cost_usd = cost.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Self {
            response: Some(response),
            splitter: SseSplitter::default(),
            builder: ReplyBuilder::new(cost_usd),
            deltas: Vec::new(),
            end: None,
            idle: timeouts.idle,
            deadline: Instant::now() + timeouts.reply,
        }
    }

    /// The next deltas: everything that has already arrived, with neighbouring deltas of one kind
    /// merged, without any timer. `None` after the end of a complete reply.
    pub async fn next(&mut self) -> Result<Option<Vec<Delta>>, ModelError> {
        while self.end.is_none() && self.deltas.is_empty() {
            let received = self.receive().await;
            self.take(received);
        }
        while self.end.is_none() && self.batch_bytes() < BATCH_MAX_BYTES {
            // The connection's own task hands over one packet at a time; it has to run once for
            // the next one to be seen. On an idle runtime this costs about a microsecond.
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
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(None),
        }
    }

    /// The whole reply, after `next` returned `None`.
    pub fn into_reply(self) -> ModelReply {
        self.builder.into_reply()
    }

    /// Waits for the next bytes; `None` is the end of the body.
    async fn receive(&mut self) -> Result<Option<Bytes>, ModelError> {
        let Some(response) = self.response.as_mut() else {
            return Ok(None);
        };
        let until = self.deadline.min(Instant::now() + self.idle);
        match tokio::time::timeout_at(until, response.chunk()).await {
            Ok(received) => received.map_err(cut_off),
            Err(_) if until == self.deadline => {
                Err(ModelError::Timeout { detail: "the reply took longer than a reply may".to_owned() })
            }
            Err(_) => Err(ModelError::Stalled { detail: format!("nothing received for {:?}", self.idle) }),
        }
    }

    /// The next bytes if they are there.
    fn received_already(&mut self) -> Option<Result<Option<Bytes>, ModelError>> {
        let received = self.response.as_mut()?.chunk().now_or_never()?;
        Some(received.map_err(cut_off))
    }

    fn take(&mut self, received: Result<Option<Bytes>, ModelError>) {
        let result = match received {
            Ok(Some(bytes)) => self.take_bytes(&bytes),
            Ok(None) => self.take_end_of_body().map(|()| true),
            Err(error) => Err(error),
        };
        match result {
            Ok(false) => {}
            Ok(true) => {
                self.end = Some(self.check_complete());
                self.drain();
            }
            Err(error) => {
                self.end = Some(Err(error));
                self.response = None;
            }
        }
    }

    /// True when the end marker was among the bytes.
    fn take_bytes(&mut self, bytes: &[u8]) -> Result<bool, ModelError> {
        let (builder, deltas) = (&mut self.builder, &mut self.deltas);
        let mut taken = Ok(false);
        let pushed = self.splitter.push(bytes, |event| {
            taken = take_event(builder, deltas, event);
            matches!(taken, Ok(false))
        });
        pushed.map_err(|_| ModelError::TooLarge { detail: "an event of the stream is too large".to_owned() })?;
        taken
    }

    /// The body ended by itself: a last event without its empty line still counts, half a one
    /// means that the rest is missing.
    fn take_end_of_body(&mut self) -> Result<(), ModelError> {
        let Some(event) = std::mem::take(&mut self.splitter).finish() else {
            return Ok(());
        };
        match take_event(&mut self.builder, &mut self.deltas, &event) {
            Err(ModelError::NotTheApi { detail }) => Err(ModelError::Truncated { detail }),
            taken => taken.map(|_| ()),
        }
    }

    fn check_complete(&self) -> Result<(), ModelError> {
        if !self.builder.has_finish_reason() {
            let detail = "the stream ended without a finish reason".to_owned();
            return Err(ModelError::Truncated { detail });
        }
        self.builder.check_calls()
    }

    /// Lets the connection return to the pool: it does so only when the body was read to its end,
    /// and that may come a packet after `[DONE]`. The caller does not wait for it.
    fn drain(&mut self) {
        let Some(mut response) = self.response.take() else {
            return;
        };
        tokio::spawn(async move {
            let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
            // Too late: the connection is closed instead, which is all the harm there is.
            let _ = tokio::time::timeout(Duration::from_millis(DRAIN_TIMEOUT_MS), rest).await;
        });
    }

    fn batch_bytes(&self) -> usize {
        let sizes = self.deltas.iter().map(|delta| match delta {
            Delta::Text(text) | Delta::Reasoning(text) => text.len(),
        });
        sizes.sum()
    }
}

/// Takes one event; true for the end marker.
fn take_event(builder: &mut ReplyBuilder, deltas: &mut Vec<Delta>, event: &[u8]) -> Result<bool, ModelError> {
    let event = event.trim_ascii();
    if event == b"[DONE]" {
        return Ok(true);
    }
    if event.is_empty() {
        return Ok(false);
    }
    let chunk: Chunk<'_> = serde_json::from_slice(event).map_err(|error| {
        let detail = format!("{error}, in: {}", excerpt(event));
        ModelError::NotTheApi { detail }
    })?;
    builder.take(&chunk, deltas)?;
    Ok(false)
}

fn cut_off(error: reqwest::Error) -> ModelError {
    let detail = transport_detail(error);
    ModelError::Truncated { detail }
}
