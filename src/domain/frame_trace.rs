//! The frame trace of a model call: its cuts into frames, their times, and the text beside the answer.
//!
//! With the trace a replay gives the frames that a client saw, not only the text that they add up to.
//!
//! Invariant: recording a frame costs a few bytes in growing buffers and nothing else, for it happens while the model is
//! being relayed.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Bits of a frame's first number that hold its kind; the higher bits are its length.
const KIND_BITS: u32 = 2;

/// The frame trace of a model call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Shown")]
pub struct FrameTrace {
    /// Time of the first frame, in whole milliseconds.
    pub at: DateTime<Utc>,
    /// Base64 of two numbers a frame, each in LEB128: its bytes of text times 4 plus its kind (0 = token, 1 = reasoning, 2
    /// = preamble), and the milliseconds since the frame before it.
    pub frames: String,
    /// Text of the reasoning and preamble frames, concatenated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub aside: String,
    /// Text of the token frames that follows the event's own text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rest: String,
    /// The trace is incomplete: a limit was reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// The kind of frame that shows text of a model call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Token,
    Reasoning,
    Preamble,
}

/// One frame of a model call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedFrame {
    pub kind: FrameKind,
    pub text: String,
    pub at: DateTime<Utc>,
}

/// Records the frames of the running model call.
#[derive(Debug, Default)]
pub struct FrameRecorder {
    /// Text of the answer so far, shown or not.
    text: String,
    aside: String,
    packed: Vec<u8>,
    first_ms: i64,
    last_ms: i64,
    /// The limit of text beside the answer is reached.
    aside_is_full: bool,
    cut: bool,
}

impl FrameKind {
    const ALL: [Self; 3] = [Self::Token, Self::Reasoning, Self::Preamble];
}

impl FrameRecorder {
    /// Returns the text of the answer so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends text of the answer, whether or not the client streams.
    pub fn say(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Records a sent frame. A token's text is given to [`FrameRecorder::say`] as well.
    pub fn frame(&mut self, kind: FrameKind, text: &str, now: DateTime<Utc>) {
        if kind != FrameKind::Token {
            self.aside_is_full |= self.aside.len() + text.len() > limits::SHOWN_ASIDE_MAX_BYTES;
            if self.aside_is_full {
                self.cut = true;
                return;
            }
        }
        if self.packed.len() >= limits::SHOWN_FRAMES_MAX_BYTES {
            self.cut = true;
            return;
        }
        if kind != FrameKind::Token {
            self.aside.push_str(text);
        }
        let now_ms = now.timestamp_millis();
        if self.packed.is_empty() {
            (self.first_ms, self.last_ms) = (now_ms, now_ms);
        }
        // After a clock step backwards no frame is earlier than the one before it.
        let since = u64::try_from(now_ms - self.last_ms).unwrap_or(0);
        self.last_ms = self.last_ms.max(now_ms);
        push_number(&mut self.packed, (text.len() as u64) << KIND_BITS | kind as u64);
        push_number(&mut self.packed, since);
    }

    /// Returns the trace for an event that holds `own` as its text. `None`: no frame was shown.
    pub fn trace(&self, own: &str) -> Option<FrameTrace> {
        if self.packed.is_empty() {
            return None;
        }
        let rest = self.text.strip_prefix(own).unwrap_or(&self.text);
        let kept = &rest[..rest.floor_char_boundary(limits::SHOWN_REST_MAX_BYTES)];
        Some(FrameTrace {
            at: DateTime::from_timestamp_millis(self.first_ms).unwrap_or_default(),
            frames: BASE64_STANDARD.encode(&self.packed),
            aside: self.aside.clone(),
            rest: kept.to_string(),
            cut: self.cut || kept.len() < rest.len(),
        })
    }
}

impl FrameTrace {
    /// Returns the trace without its frames, for an event that would be too large otherwise.
    pub fn emptied(&self) -> Self {
        Self { at: self.at, frames: String::new(), aside: String::new(), rest: String::new(), cut: true }
    }

    /// Returns the frames in order, for the event's own text.
    ///
    /// Text that no frame covers comes in one more at the end.
    pub fn unpack(&self, own: &str) -> Vec<TracedFrame> {
        let text = format!("{own}{}", self.rest);
        let (mut text, mut aside) = (text.as_str(), self.aside.as_str());
        let (mut pieces, mut at) = (Vec::new(), self.at);
        let packed = BASE64_STANDARD.decode(&self.frames).unwrap_or_default();
        let mut packed = packed.as_slice();
        while let Some((kind, length, since)) = next_frame(&mut packed) {
            let source = if kind == FrameKind::Token { &mut text } else { &mut aside };
            let Some((taken, others)) = source.split_at_checked(length) else { break };
            *source = others;
            at = at.checked_add_signed(since).unwrap_or(at);
            pieces.push(TracedFrame { kind, text: taken.to_string(), at });
        }
        if !text.is_empty() {
            pieces.push(TracedFrame { kind: FrameKind::Token, text: text.to_string(), at });
        }
        pieces
    }
}

fn next_frame(packed: &mut &[u8]) -> Option<(FrameKind, usize, TimeDelta)> {
    let (head, since) = (take_number(packed)?, take_number(packed)?);
    let kind = FrameKind::ALL.get((head & ((1 << KIND_BITS) - 1)) as usize)?;
    let since = i64::try_from(since).ok().and_then(TimeDelta::try_milliseconds)?;
    Some((*kind, usize::try_from(head >> KIND_BITS).ok()?, since))
}

/// Appends a number in LEB128.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, others) = bytes.split_first()?;
        *bytes = others;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_764_000_000_000 + ms).unwrap()
    }

    fn piece(kind: FrameKind, text: &str, ms: i64) -> TracedFrame {
        TracedFrame { kind, text: text.into(), at: at(ms) }
    }

    fn token(recorder: &mut FrameRecorder, text: &str, ms: i64) {
        recorder.say(text);
        recorder.frame(FrameKind::Token, text, at(ms));
    }

    #[test]
    fn a_frame_trace_reproduces_its_frames() {
        let mut recorder = FrameRecorder::default();
        recorder.frame(FrameKind::Preamble, "One moment.", at(0));
        recorder.frame(FrameKind::Reasoning, "hm, ", at(200));
        recorder.frame(FrameKind::Reasoning, "漢字", at(205));
        token(&mut recorder, "It is ", 90_000);
        token(&mut recorder, "4.", 89_000);
        token(&mut recorder, " \n", 90_001);
        let shown = recorder.trace("It is 4.").unwrap();
        assert_eq!((shown.rest.as_str(), shown.cut), (" \n", false));
        let expected = [
            piece(FrameKind::Preamble, "One moment.", 0),
            piece(FrameKind::Reasoning, "hm, ", 200),
            piece(FrameKind::Reasoning, "漢字", 205),
            piece(FrameKind::Token, "It is ", 90_000),
            piece(FrameKind::Token, "4.", 90_000),
            piece(FrameKind::Token, " \n", 90_001),
        ];
        assert_eq!(shown.unpack("It is 4."), expected);
        // A terminal event without an answer holds the same text beside it.
        assert_eq!(recorder.trace("").unwrap().unpack(""), expected);
    }

    #[test]
    fn an_ordinary_token_takes_few_bytes() {
        let mut recorder = FrameRecorder::default();
        for n in 0..8_192 {
            token(&mut recorder, " word", n * 23);
        }
        let shown = recorder.trace(recorder.text()).unwrap();
        let bytes = serde_json::to_vec(&shown).unwrap().len();
        assert!(bytes * 10 < 8_192 * 28, "{bytes} bytes");
        assert_eq!(shown.unpack(recorder.text()).len(), 8_192);
    }

    #[test]
    fn an_oversized_trace_is_cut_and_marked() {
        let mut recorder = FrameRecorder::default();
        recorder.frame(FrameKind::Reasoning, &"x".repeat(limits::SHOWN_ASIDE_MAX_BYTES), at(0));
        recorder.frame(FrameKind::Reasoning, "y", at(1));
        token(&mut recorder, &"é".repeat(limits::SHOWN_REST_MAX_BYTES), 2);
        let shown = recorder.trace("").unwrap();
        assert!(shown.cut && shown.aside.len() == limits::SHOWN_ASIDE_MAX_BYTES);
        assert_eq!(shown.rest.len(), limits::SHOWN_REST_MAX_BYTES);
        // The token frame is longer than the text that is left of it.
        let lengths: Vec<_> = shown.unpack("").iter().map(|piece| (piece.kind, piece.text.len())).collect();
        assert_eq!(lengths, [(FrameKind::Reasoning, shown.aside.len()), (FrameKind::Token, shown.rest.len())]);

        let mut recorder = FrameRecorder::default();
        while !recorder.cut {
            token(&mut recorder, "a", 0);
        }
        token(&mut recorder, "the rest", 0);
        let pieces = recorder.trace(recorder.text()).unwrap().unpack(recorder.text());
        assert_eq!(pieces.len(), limits::SHOWN_FRAMES_MAX_BYTES / 2 + 1);
        assert_eq!(pieces.last().unwrap().text, "athe rest");
    }

    #[test]
    fn malformed_traces_hide_no_text() {
        let shown = |packed: &[u8]| FrameTrace {
            at: at(0),
            frames: BASE64_STANDARD.encode(packed),
            aside: String::new(),
            rest: String::new(),
            cut: false,
        };
        let whole = [piece(FrameKind::Token, "é", 0)];
        for packed in [&[][..], &[4, 0], &[3, 0], &[0xff; 30], &[0x80], &[8], &[0xff, 0xff, 0xff, 0xff, 0x7f, 0]] {
            assert_eq!(shown(packed).unpack("é"), whole, "{packed:?}");
        }
        assert_eq!(FrameTrace { frames: "no base64".into(), ..shown(&[]) }.unpack("é"), whole);
        assert_eq!(shown(&[8, 0]).emptied().unpack("é"), whole);
    }
}
