//! Events as client frames, in one place: for the worker as events happen, for an edge when a client catches up.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::Map;
use uuid::Uuid;

use super::{
    frames::{
        CancelledData, ChunkData, ChunkState, ErrorCode, EventualData, FinalAnswer, Frame, NestedData, RawResponse,
        TokenData, error, immediate,
    },
    live::LiveKind,
    prompts::{ConfirmationData, InteractionData, OtpRequiredData, OtpSentData},
};
use crate::{
    domain::event::{
        CallRequested, CancelReason, Event, FailureReason, Prompt, ToolReturned, TurnCancelled, TurnCompleted,
        TurnFailed,
    },
    limits,
};

/// The level of authentication that a one-time password gives.
const OTP_LEVEL: &str = "end_user";

/// A frame with its kind.
pub type RenderedFrame = (LiveKind, Bytes);

/// Renders the frames that tell a client of an event of its turn; `stream` false leaves out the `stream_*` ones.
///
/// A tool call is not among them: its intent holds no arguments, so its caller shows it with [`tool_call`].
pub fn render(request_id: &str, stream: bool, event: &Event, now: DateTime<Utc>) -> Vec<RenderedFrame> {
    match event {
        Event::TurnParked(e) => prompt(request_id, stream, e.park, &e.prompt, now),
        Event::TurnToolReturned(e) => tool_returned(request_id, stream, e, now),
        Event::TurnCompleted(e) => vec![(LiveKind::Terminal, completed(e, now))],
        Event::TurnFailed(e) => vec![(LiveKind::Terminal, failed(e, now))],
        Event::TurnCancelled(e) => vec![(LiveKind::Terminal, cancelled(e, now))],
        Event::TurnToolCalled(_)
        | Event::SessionOpened(_)
        | Event::SessionIdentified(_)
        | Event::ConversationRenamed(_)
        | Event::TurnRequested(_)
        | Event::TurnStarted(_)
        | Event::TurnReleased(_)
        | Event::TurnModelReplied(_)
        | Event::TurnResumed(_)
        | Event::Erased(_)
        | Event::Unreadable(_) => Vec::new(),
    }
}

/// Renders a pending prompt, then the call that the prompt is about.
pub fn prompt(request_id: &str, stream: bool, park: Uuid, prompt: &Prompt, now: DateTime<Utc>) -> Vec<RenderedFrame> {
    let timestamp = now.timestamp_millis();
    let (frame, tool, arguments) = match prompt {
        Prompt::Approval { tool, arguments, description, .. } => {
            let data =
                NestedData { request_id, data: ConfirmationData { tool_id: tool, action_description: description } };
            (Frame::WriteConfirmationRequired { request_id, timestamp, data }, tool, arguments)
        }
        Prompt::Interaction { tool, arguments, form, reason, .. } => {
            let data = InteractionData { interaction_id: park, kind: form.kind(), spec: form.spec(), reason };
            let data = NestedData { request_id, data };
            (Frame::InteractionRequired { request_id, timestamp, data }, tool, arguments)
        }
        Prompt::Task { .. } => return vec![],
        // Its call was shown when it began.
        Prompt::Elicitation { form, reason, .. } => {
            let data = InteractionData { interaction_id: park, kind: form.kind(), spec: form.spec(), reason };
            let frame = Frame::InteractionRequired { request_id, timestamp, data: NestedData { request_id, data } };
            return vec![(LiveKind::Prompt, frame.to_bytes())];
        }
    };
    let mut frames = vec![(LiveKind::Prompt, frame.to_bytes())];
    if stream {
        frames.push((LiveKind::Chunk, tool_call(request_id, tool, arguments, now)));
    }
    frames
}

/// Renders a tool's result, then the verification that the tool requires.
fn tool_returned(request_id: &str, stream: bool, e: &ToolReturned, now: DateTime<Utc>) -> Vec<RenderedFrame> {
    let timestamp = now.timestamp_millis();
    let mut frames = Vec::new();
    if stream {
        let text = shortened(&e.result);
        let result = RawResponse::ToolResult { name: &e.name, is_error: e.is_error, result: &text };
        frames.push((LiveKind::Chunk, chunk(request_id, &e.name, result, now)));
    }
    let Some(otp) = &e.otp else { return frames };
    match &otp.sent {
        Some(sent) => {
            let data = OtpRequiredData {
                tool_id: &e.name,
                action_description: &otp.description,
                available_channels: &otp.channels,
                auth_level: OTP_LEVEL,
            };
            let required =
                Frame::OtpVerificationRequired { request_id, timestamp, data: NestedData { request_id, data } };
            let data = OtpSentData { channel: sent.channel, masked_destination: &sent.masked_destination };
            let sent = Frame::OtpSent { request_id, timestamp, data: NestedData { request_id, data } };
            frames.extend([(LiveKind::Notice, required.to_bytes()), (LiveKind::Notice, sent.to_bytes())]);
        }
        // The frame lacks the turn's requestId, which would end the turn for a client.
        None => {
            let message = "A verification code could not be sent. Please try again.";
            frames.push((LiveKind::Notice, error(None, ErrorCode::OtpSendFailed, message, now)));
        }
    }
    frames
}

/// Shortens a result for display: a result that is long as JSON text is cut, with a mark that says so.
fn shortened(result: &str) -> Cow<'_, str> {
    const MARK: &str = "\n[cut: the result is longer]";
    // No character takes more than six bytes in JSON.
    if result.len() <= limits::SHOWN_RESULT_MAX_BYTES / 6 {
        return Cow::Borrowed(result);
    }
    let escaped = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if u32::from(c) < 0x20 => 6,
        c => c.len_utf8(),
    };
    let (mut bytes, mut end) = (0, 0);
    for (at, c) in result.char_indices() {
        bytes += escaped(c);
        if bytes > limits::SHOWN_RESULT_MAX_BYTES {
            return Cow::Owned(format!("{}{MARK}", &result[..end]));
        }
        if bytes + MARK.len() < limits::SHOWN_RESULT_MAX_BYTES {
            end = at + c.len_utf8();
        }
    }
    Cow::Borrowed(result)
}

/// Renders the first frame of a turn: its message was accepted.
pub fn accepted(request_id: Option<&str>, now: DateTime<Utc>) -> Bytes {
    immediate(request_id, 202, "Processing your request...", Map::new(), now)
}

/// Renders a tool call.
pub fn tool_call(request_id: &str, name: &str, arguments: &str, now: DateTime<Utc>) -> Bytes {
    chunk(request_id, name, RawResponse::ToolCall { name, arguments }, now)
}

/// Renders the marker that voids the streamed part of the running model call.
pub fn restarted(request_id: &str, now: DateTime<Utc>) -> Bytes {
    chunk(request_id, "turn_restarted", RawResponse::TurnRestarted {}, now)
}

/// Renders new text of the answer.
pub fn token(request_id: &str, token: &str, now: DateTime<Utc>) -> Bytes {
    Frame::StreamToken { request_id, timestamp: now.timestamp_millis(), token, data: TokenData { request_id, token } }
        .to_bytes()
}

/// Renders a sentence for the time until the answer.
pub fn preamble(request_id: &str, token: &str, now: DateTime<Utc>) -> Bytes {
    let data = TokenData { request_id, token };
    Frame::StreamPreamble { request_id, timestamp: now.timestamp_millis(), token, data }.to_bytes()
}

/// Renders new text of the model's reasoning.
pub fn reasoning(request_id: &str, token: &str, now: DateTime<Utc>) -> Bytes {
    Frame::StreamReasoning {
        request_id,
        timestamp: now.timestamp_millis(),
        token,
        data: TokenData { request_id, token },
    }
    .to_bytes()
}

/// A streamed part of a turn, restored from the log.
pub enum StreamedPart<'a> {
    /// The text of a finished model call, with the call's index in the turn and the epoch of its stream.
    Text { call: u32, epoch: u64, text: Cow<'a, str> },
    /// A frame of tool activity or of its consequences; `n` counts these frames of the turn from 0.
    Chunk { n: u64, frame: Bytes },
}

/// Restores the frames shown for a turn's events, in their order; `stream` false leaves out frames that such a client is
/// not shown.
pub fn streamed<'a>(
    request_id: &'a str,
    stream: bool,
    events: &'a [Event],
    now: DateTime<Utc>,
) -> impl Iterator<Item = StreamedPart<'a>> + 'a {
    let (mut replies, mut chunks) = (0, 0);
    let mut calls: &[CallRequested] = &[];
    let mut begun = HashSet::new();
    events.iter().flat_map(move |event| match event {
        Event::TurnModelReplied(e) => {
            calls = &e.calls;
            replies += 1;
            let text = StreamedPart::Text { call: replies - 1, epoch: e.epoch, text: Cow::Borrowed(&e.text) };
            Vec::from_iter(stream.then_some(text))
        }
        Event::TurnCompleted(e) => {
            let text = |call| StreamedPart::Text { call, epoch: e.epoch, text: Cow::Owned(e.response.text()) };
            Vec::from_iter(e.call.filter(|_| stream).map(text))
        }
        // A call that is made again with answers to its questions is shown once.
        Event::TurnToolCalled(e) if !begun.insert(e.call.as_str()) => vec![],
        event => {
            let first = chunks;
            let frames = activity(request_id, stream, event, calls, now);
            chunks += frames.len() as u64;
            (first..).zip(frames).map(|(n, frame)| StreamedPart::Chunk { n, frame }).collect()
        }
    })
}

/// Renders the tool activity of an event; `calls` are those of the model's last reply.
fn activity(request_id: &str, stream: bool, event: &Event, calls: &[CallRequested], now: DateTime<Utc>) -> Vec<Bytes> {
    let frames = match event {
        // A call that waited for a person was shown with its prompt.
        Event::TurnToolCalled(e) if stream => {
            let call = calls.iter().find(|call| call.id == e.call && !call.waits());
            return call.map(|call| tool_call(request_id, &call.name, &call.arguments, now)).into_iter().collect();
        }
        Event::TurnParked(_) | Event::TurnToolReturned(_) => render(request_id, stream, event, now),
        _ => return vec![],
    };
    frames.into_iter().filter(|(kind, _)| *kind != LiveKind::Prompt).map(|(_, frame)| frame).collect()
}

fn chunk(request_id: &str, node: &str, raw_response: RawResponse, now: DateTime<Utc>) -> Bytes {
    let data = ChunkData { request_id, node, state: ChunkState { raw_response } };
    Frame::StreamChunk { request_id, timestamp: now.timestamp_millis(), node, data }.to_bytes()
}

fn completed(e: &TurnCompleted, now: DateTime<Utc>) -> Bytes {
    let data = EventualData {
        request_id: &e.request_id,
        status: 200,
        data: FinalAnswer {
            message_id: e.message_id,
            response: &e.response,
            needs_escalation: e.needs_escalation,
            escalation_reason: e.escalation_reason.as_deref(),
            citations: &e.citations,
            usage: e.usage.map(Into::into),
        },
    };
    Frame::EventualResponse { request_id: &e.request_id, timestamp: now.timestamp_millis(), status: 200, data }
        .to_bytes()
}

fn failed(e: &TurnFailed, now: DateTime<Utc>) -> Bytes {
    let (code, message) = match e.reason {
        FailureReason::Model | FailureReason::Other => {
            (ErrorCode::AgentError, "The assistant could not answer. Please try again.")
        }
        FailureReason::Cut => (
            ErrorCode::AgentError,
            "The assistant's answer was cut off before it began. Please ask for something shorter.",
        ),
        FailureReason::Filtered => (ErrorCode::AgentError, "The assistant's answer was withheld by a content filter."),
        FailureReason::TooLarge => (ErrorCode::AgentError, "The assistant's answer was too long."),
        FailureReason::NoConfiguration | FailureReason::NoGatewayKey => {
            (ErrorCode::AgentError, "The assistant is not set up to answer.")
        }
        FailureReason::Expired => (ErrorCode::AgentError, "This message could not be answered in time."),
        FailureReason::Poison => (ErrorCode::AgentError, "The assistant failed repeatedly on this message."),
    };
    error(Some(&e.request_id), code, message, now)
}

fn cancelled(e: &TurnCancelled, now: DateTime<Utc>) -> Bytes {
    let request_id = &e.request_id;
    let failed = |message| error(Some(request_id), ErrorCode::AgentError, message, now);
    match e.reason {
        None | Some(CancelReason::Superseded | CancelReason::Other) => {}
        Some(CancelReason::NoWorker) => return failed("Nobody was there to answer this message. Please try again."),
        Some(CancelReason::Operator) => return failed("This message could not be answered."),
    }
    let data = CancelledData { request_id, status: 499 };
    Frame::Cancelled { request_id, timestamp: now.timestamp_millis(), status: 499, data }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_cut_by_its_escaped_size_and_marked() {
        for (piece, times, is_cut) in [
            ("a", 32 * 1024, false),
            ("a", 33 * 1024, true),
            ("\u{1}", 5 * 1024, false),
            ("\u{1}", 64 * 1024, true),
            ("\"", 16 * 1024, false),
            ("\"\n", 16 * 1024, true),
            ("é🦀", 64 * 1024, true),
            ("", 1, false),
        ] {
            let whole = piece.repeat(times);
            let shown = shortened(&whole);
            assert_eq!(shown.ends_with("the result is longer]"), is_cut, "{times} times {piece:?}");
            let json = serde_json::to_string(&shown).unwrap();
            assert!(json.len() <= limits::SHOWN_RESULT_MAX_BYTES + 2, "{} bytes", json.len());
            assert!(is_cut || shown == whole);
            assert!(
                !is_cut
                    || (json.len() > limits::SHOWN_RESULT_MAX_BYTES - 64
                        && whole.starts_with(shown.split("\n[cut").next().unwrap()))
            );
        }
    }
}
