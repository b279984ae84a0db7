//! Events as client frames, in one place: the worker uses it when something happens, an edge when a client catches up.

use std::borrow::Cow;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{
    frames::{
        Answer, CancelledData, ChunkData, ChunkState, ConfirmationData, ErrorCode, EventualData, Frame, Nested,
        RawResponse, TokenData, error,
    },
    live::Kind,
};
use crate::domain::event::{CallRequested, Event, FailureReason, Prompt, TurnCompleted, TurnFailed};

/// A frame and what kind it is.
pub type Rendered = (Kind, Bytes);

/// The frames that tell a client of an event of its turn; `stream` false leaves out the `stream_*` ones.
///
/// A tool call is not among them: its intent holds no arguments, so its caller shows it with [`tool_call`].
pub fn render(request_id: &str, stream: bool, event: &Event, now: DateTime<Utc>) -> Vec<Rendered> {
    match event {
        Event::TurnParked(e) => prompt(request_id, stream, &e.prompt, now),
        Event::TurnToolReturned(e) if stream => {
            let result = RawResponse::ToolResult { name: &e.name, is_error: e.is_error, result: &e.result };
            vec![(Kind::Chunk, chunk(request_id, &e.name, result, now))]
        }
        Event::TurnCompleted(e) => vec![(Kind::Terminal, completed(e, now))],
        Event::TurnFailed(e) => vec![(Kind::Terminal, failed(e, now))],
        Event::TurnCancelled(e) => vec![(Kind::Terminal, cancelled(&e.request_id, now))],
        Event::TurnToolCalled(_)
        | Event::TurnToolReturned(_)
        | Event::SessionOpened(_)
        | Event::ConversationRenamed(_)
        | Event::TurnRequested(_)
        | Event::TurnStarted(_)
        | Event::TurnReleased(_)
        | Event::TurnModelReplied(_)
        | Event::TurnResumed(_) => Vec::new(),
    }
}

/// A pending prompt, then the call that it is about.
pub fn prompt(request_id: &str, stream: bool, prompt: &Prompt, now: DateTime<Utc>) -> Vec<Rendered> {
    let Prompt::Approval { tool, arguments, description, .. } = prompt;
    let data = Nested { request_id, data: ConfirmationData { tool_id: tool, action_description: description } };
    let frame = Frame::WriteConfirmationRequired { request_id, timestamp: now.timestamp_millis(), data };
    let mut frames = vec![(Kind::Prompt, frame.to_bytes())];
    if stream {
        frames.push((Kind::Chunk, tool_call(request_id, tool, arguments, now)));
    }
    frames
}

/// A tool is being called.
pub fn tool_call(request_id: &str, name: &str, arguments: &str, now: DateTime<Utc>) -> Bytes {
    chunk(request_id, name, RawResponse::ToolCall { name, arguments }, now)
}

/// What was streamed of the running model call is void.
pub fn restarted(request_id: &str, now: DateTime<Utc>) -> Bytes {
    chunk(request_id, "turn_restarted", RawResponse::TurnRestarted {}, now)
}

/// New text of the answer.
pub fn token(request_id: &str, token: &str, now: DateTime<Utc>) -> Bytes {
    Frame::StreamToken { request_id, timestamp: now.timestamp_millis(), token, data: TokenData { request_id, token } }
        .to_bytes()
}

/// New text of the model's reasoning.
pub fn reasoning(request_id: &str, token: &str, now: DateTime<Utc>) -> Bytes {
    Frame::StreamReasoning {
        request_id,
        timestamp: now.timestamp_millis(),
        token,
        data: TokenData { request_id, token },
    }
    .to_bytes()
}

/// Something of a turn that was streamed, as the log has it.
pub enum Streamed<'a> {
    /// The text of a finished model call: its index in the turn, the epoch that it was streamed under.
    Text { call: u32, epoch: u64, text: Cow<'a, str> },
    /// Tool activity; the number counts that of the turn from 0.
    Chunk { n: u64, frame: Bytes },
}

/// What was streamed according to a turn's events, in their order.
pub fn streamed<'a>(
    request_id: &'a str,
    events: &'a [Event],
    now: DateTime<Utc>,
) -> impl Iterator<Item = Streamed<'a>> + 'a {
    let (mut replies, mut chunks) = (0, 0);
    let mut calls: &[CallRequested] = &[];
    events.iter().filter_map(move |event| match event {
        Event::TurnModelReplied(e) => {
            calls = &e.calls;
            replies += 1;
            Some(Streamed::Text { call: replies - 1, epoch: e.epoch, text: Cow::Borrowed(&e.text) })
        }
        Event::TurnCompleted(e) => {
            Some(Streamed::Text { call: e.call?, epoch: e.epoch, text: Cow::Owned(e.response.text()) })
        }
        event => {
            let frame = activity(request_id, event, calls, now)?;
            chunks += 1;
            Some(Streamed::Chunk { n: chunks - 1, frame })
        }
    })
}

/// The frame of an event that is tool activity; `calls` are those of the model's last reply.
fn activity(request_id: &str, event: &Event, calls: &[CallRequested], now: DateTime<Utc>) -> Option<Bytes> {
    match event {
        // One that waited for approval was shown with its prompt.
        Event::TurnToolCalled(e) => {
            let call = calls.iter().find(|call| call.id == e.call && !call.confirm)?;
            Some(tool_call(request_id, &call.name, &call.arguments, now))
        }
        Event::TurnParked(e) => {
            let Prompt::Approval { tool, arguments, .. } = &e.prompt;
            Some(tool_call(request_id, tool, arguments, now))
        }
        Event::TurnToolReturned(_) => render(request_id, true, event, now).pop().map(|(_, frame)| frame),
        _ => None,
    }
}

fn chunk(request_id: &str, node: &str, raw_response: RawResponse, now: DateTime<Utc>) -> Bytes {
    let data = ChunkData { request_id, node, state: ChunkState { raw_response } };
    Frame::StreamChunk { request_id, timestamp: now.timestamp_millis(), node, data }.to_bytes()
}

fn completed(e: &TurnCompleted, now: DateTime<Utc>) -> Bytes {
    let data = EventualData {
        request_id: &e.request_id,
        status: 200,
        data: Answer {
            message_id: e.message_id,
            response: &e.response,
            needs_escalation: e.needs_escalation,
            citations: &e.citations,
            usage: e.usage.map(Into::into),
        },
    };
    Frame::EventualResponse { request_id: &e.request_id, timestamp: now.timestamp_millis(), status: 200, data }
        .to_bytes()
}

fn failed(e: &TurnFailed, now: DateTime<Utc>) -> Bytes {
    let (code, message) = match e.reason {
        FailureReason::Model => (ErrorCode::AgentError, "The assistant could not answer. Please try again."),
        FailureReason::TooLarge => (ErrorCode::AgentError, "The assistant's answer was too long."),
        FailureReason::NoGatewayKey => (ErrorCode::AgentError, "The assistant is not set up to answer."),
        FailureReason::Expired => (ErrorCode::AgentError, "This message could not be answered in time."),
        FailureReason::Poison => (ErrorCode::AgentError, "The assistant failed repeatedly on this message."),
    };
    error(Some(&e.request_id), code, message, now)
}

fn cancelled(request_id: &str, now: DateTime<Utc>) -> Bytes {
    let data = CancelledData { request_id, status: 499 };
    Frame::Cancelled { request_id, timestamp: now.timestamp_millis(), status: 499, data }.to_bytes()
}
