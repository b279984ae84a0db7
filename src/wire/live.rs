//! The header that numbers the frames of a turn between worker and edge.
//!
//! One header, `Turnstream-Frame: {turn} {epoch} {n} {kind} {call} {offset} {length} {chunks}`, so that an edge can order,
//! deduplicate and notice gaps without parsing the frame, which is forwarded unchanged.

use std::fmt;

use uuid::Uuid;

pub const HEADER: &str = "Turnstream-Frame";

/// The metadata of a live frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMark {
    pub turn: Uuid,
    /// Sequence of the `turn.started` that the worker runs under; frames of an older epoch are void.
    pub epoch: u64,
    /// Number of the frame in this turn and epoch, from 0 without gaps.
    pub n: u64,
    pub kind: LiveKind,
    /// Index of the model call in the turn; for tool activity, of the call that requested it.
    pub call: u32,
    /// For tokens: bytes of this model call's text before the frame.
    pub offset: u64,
    /// For tokens: bytes of text in the frame.
    pub length: u64,
    /// Frames of tool activity that the turn had before this one, over all epochs.
    pub chunks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveKind {
    Token,
    Reasoning,
    /// A sentence for the time until the answer.
    Preamble,
    Chunk,
    /// A frame after a tool's result that clients without streaming are shown, too.
    Notice,
    Prompt,
    /// A worker asks the model again: the frames shown of this model call are void.
    Restart,
    /// No frame for clients, and of no turn: the conversation has gained an owner, so its watchers check their access again.
    /// Edges of the version before drop the frame.
    Owner,
    /// The turn's last frame. The process that stored the terminal event publishes it, so it may come from outside the
    /// epoch's count.
    Terminal,
}

impl LiveKind {
    const ALL: [(LiveKind, &'static str); 9] = [
        (LiveKind::Token, "token"),
        (LiveKind::Reasoning, "reasoning"),
        (LiveKind::Preamble, "preamble"),
        (LiveKind::Chunk, "chunk"),
        (LiveKind::Notice, "notice"),
        (LiveKind::Prompt, "prompt"),
        (LiveKind::Restart, "restart"),
        (LiveKind::Owner, "owner"),
        (LiveKind::Terminal, "terminal"),
    ];

    /// Returns true if the frame is output of a model call.
    pub fn is_of_call(self) -> bool {
        matches!(self, Self::Token | Self::Reasoning | Self::Preamble)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(kind, _)| *kind)
    }
}

impl fmt::Display for FrameMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrameMark { turn, epoch, n, kind, call, offset, length, chunks } = self;
        write!(f, "{} {epoch} {n} {} {call} {offset} {length} {chunks}", turn.simple(), kind.name())
    }
}

impl FrameMark {
    /// Returns the number of the turn's model calls that had ended their output before this frame.
    pub fn calls_before(&self) -> u32 {
        match self.kind {
            LiveKind::Token | LiveKind::Reasoning | LiveKind::Preamble | LiveKind::Restart => self.call,
            LiveKind::Chunk | LiveKind::Notice | LiveKind::Prompt => self.call.saturating_add(1),
            LiveKind::Owner => 0,
            LiveKind::Terminal => u32::MAX,
        }
    }

    /// Returns the number of the turn's frames of tool activity before this frame.
    pub fn chunks_before(&self) -> u64 {
        if self.kind == LiveKind::Terminal { u64::MAX } else { self.chunks }
    }

    /// Parses the header's value.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(' ');
        let mark = Self {
            turn: parts.next()?.parse().ok()?,
            epoch: parts.next()?.parse().ok()?,
            n: parts.next()?.parse().ok()?,
            kind: LiveKind::parse(parts.next()?)?,
            call: parts.next()?.parse().ok()?,
            offset: parts.next()?.parse().ok()?,
            length: parts.next()?.parse().ok()?,
            chunks: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(mark)
    }
}

/// A client's position in a turn: the `seq` of the resume extension, opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeCursor {
    pub turn: Uuid,
    pub epoch: u64,
    /// The number of the next frame of that epoch.
    pub next_n: u64,
    /// The model call of the text being shown; the texts of earlier calls were shown.
    pub call: u32,
    /// The bytes shown of that model call's text, and their epoch.
    pub shown: u64,
    pub text_epoch: u64,
    /// The number of frames of tool activity shown.
    pub chunks: u64,
}

impl fmt::Display for ResumeCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResumeCursor { turn, epoch, next_n, call, shown, text_epoch, chunks } = self;
        write!(f, "{}.{epoch}.{next_n}.{call}.{shown}.{text_epoch}.{chunks}", turn.simple())
    }
}

impl ResumeCursor {
    /// Returns the cursor behind a turn's terminal frame.
    pub fn ended(turn: Uuid) -> Self {
        Self { turn, epoch: u64::MAX, next_n: 0, call: 0, shown: 0, text_epoch: 0, chunks: 0 }
    }

    /// Returns true if the turn's terminal frame was shown.
    pub fn is_ended(&self) -> bool {
        self.epoch == u64::MAX
    }

    /// Parses a `seq`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let cursor = Self {
            turn: parts.next()?.parse().ok()?,
            epoch: parts.next()?.parse().ok()?,
            next_n: parts.next()?.parse().ok()?,
            call: parts.next()?.parse().ok()?,
            shown: parts.next()?.parse().ok()?,
            text_epoch: parts.next()?.parse().ok()?,
            chunks: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_round_trips() {
        for (kind, _) in LiveKind::ALL {
            let mark =
                FrameMark { turn: Uuid::new_v4(), epoch: 7, n: 3, kind, call: 1, offset: 512, length: 9, chunks: 2 };
            assert_eq!(FrameMark::parse(&mark.to_string()), Some(mark));
        }
        assert_eq!(FrameMark::parse("x 1 2 token 0 0 0 0"), None);
    }

    #[test]
    fn a_cursor_round_trips() {
        let cursor =
            ResumeCursor { turn: Uuid::new_v4(), epoch: 9, next_n: 4, call: 2, shown: 77, text_epoch: 8, chunks: 3 };
        assert_eq!(ResumeCursor::parse(&cursor.to_string()), Some(cursor));
        assert_eq!(ResumeCursor::parse("garbage"), None);
    }
}
