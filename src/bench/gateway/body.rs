//! The gateway's answers as HTTP bodies: a whole text, or tokens at their pace.
//!
//! Contract: a paced token is one chunk, written by itself and stamped right before; a late token is written at once, so the
//! pace does not drift on a busy machine. A flat-out turn puts many events in one chunk and waits only for the socket.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::clock::now_ns;
use super::super::plan::{TurnPlan, write_token};
use super::GatewayLog;

/// Events in one chunk of a flat-out turn.
const FLAT_OUT_EVENTS: u32 = 32;
/// Fewer events make a chunk when they exceed this size.
const FLAT_OUT_BYTES: usize = 16 * 1024;
/// Size of an event's JSON without its text.
const EVENT_BYTES: usize = 160;

/// The body of an answer.
pub enum GatewayReply {
    Whole(Option<Bytes>),
    Stream(Box<TokenStream>),
}

impl GatewayReply {
    pub fn whole(text: Bytes) -> GatewayReply {
        GatewayReply::Whole(Some(text))
    }

    pub fn stream(tokens: TokenStream) -> GatewayReply {
        GatewayReply::Stream(Box::new(tokens))
    }
}

impl Body for GatewayReply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            GatewayReply::Whole(text) => Poll::Ready(text.take()),
            GatewayReply::Stream(tokens) => tokens.poll_chunk(cx),
        };
        data.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            GatewayReply::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            GatewayReply::Stream(_) => SizeHint::default(),
        }
    }
}

/// The stream of a plan's tokens.
pub struct TokenStream {
    plan: TurnPlan,
    with_usage: bool,
    log: Arc<GatewayLog>,
    started: Instant,
    /// The next token; one past the last = the end of the stream.
    next: u32,
    ended: bool,
    /// The last chunk must reach the socket before the next one is produced.
    flush_first: bool,
    timer: Pin<Box<Sleep>>,
}

impl TokenStream {
    pub fn new(plan: TurnPlan, with_usage: bool, log: Arc<GatewayLog>) -> TokenStream {
        let started = Instant::now();
        TokenStream {
            plan,
            with_usage,
            log,
            started,
            next: 0,
            ended: false,
            flush_first: false,
            timer: Box::pin(sleep_until(started)),
        }
    }

    /// Produces the next chunk.
    ///
    /// 1. Gives the last paced chunk time to be written.
    /// 2. Waits for the next token's time.
    /// 3. Produces the token, or the end of the stream after the last one.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.flush_first) {
            // The HTTP layer flushes its buffer when the body is pending.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.next >= self.plan.tokens {
            return Poll::Ready(Some(self.end()));
        }
        if self.plan.rate > 0 && self.next > 0 {
            std::task::ready!(self.timer.as_mut().poll(cx));
        }
        Poll::Ready(Some(self.speak()))
    }

    fn speak(&mut self) -> Bytes {
        let now_ns = now_ns();
        if self.next == 0 {
            self.log.wrote_first(self.plan.id, now_ns);
        }
        let events = match self.plan.rate {
            0 => FLAT_OUT_EVENTS.min(self.plan.tokens - self.next),
            _ => 1,
        };
        let mut text = String::with_capacity(events as usize * EVENT_BYTES);
        for _ in 0..events {
            self.write_event(&mut text, now_ns);
            self.next += 1;
            if text.len() > FLAT_OUT_BYTES {
                break;
            }
        }
        if self.plan.rate > 0 {
            self.flush_first = true;
            let offset = Duration::from_secs(u64::from(self.next)) / self.plan.rate;
            self.timer.as_mut().reset(self.started + offset);
        }
        Bytes::from(text)
    }

    fn write_event(&self, out: &mut String, now_ns: u64) {
        let id = self.plan.id;
        // Writing to a String cannot fail. A token has no characters that JSON escapes.
        let _ = write!(
            out,
            "data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":0,\
             \"model\":\"bench\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\""
        );
        write_token(out, self.next, now_ns, self.plan.pad);
        out.push_str("\"},\"finish_reason\":null}]}\n\n");
    }

    fn end(&mut self) -> Bytes {
        self.ended = true;
        let id = self.plan.id;
        let head = format!(
            "data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":0,\
             \"model\":\"bench\",\"choices\":["
        );
        let mut text = head.clone();
        text.push_str("{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
        if self.with_usage {
            let tokens = self.plan.tokens;
            let usage = format!(
                "],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{tokens},\
                 \"total_tokens\":{}}}}}\n\n",
                u64::from(tokens) + 1
            );
            text.push_str(&head);
            text.push_str(&usage);
        }
        text.push_str("data: [DONE]\n\n");
        self.log.wrote_last(id, now_ns());
        Bytes::from(text)
    }
}

/// Returns the answer to a call without streaming: a title, a judgement.
pub fn whole_completion() -> String {
    serde_json::json!({
        "id": "bench",
        "object": "chat.completion",
        "created": 0,
        "model": "bench",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "ok"},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
    .to_string()
}
