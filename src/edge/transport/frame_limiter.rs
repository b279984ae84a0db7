//! Limits on a client's bytes before they form a message.
//!
//! The WebSocket library has one limit for the life of a connection, so the stream below the library enforces the current one:
//! it reads the frame headers that pass. A message may take a limited time, and is read only while the process has room for its
//! received part; a large message only on a connection that may send it, and at a minimum pace.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::budget::{BudgetShare, MemoryBudget};
use crate::limits;

/// The reason why a message is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameLimitError {
    TooLarge,
    TooLate,
}

impl fmt::Display for FrameLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the message is too large",
            Self::TooLate => "the message takes too long",
        })
    }
}

impl std::error::Error for FrameLimitError {}

/// Memory for the unfinished messages of a process.
#[derive(Clone)]
pub struct FrameMemory {
    /// Room for ordinary messages, as far as one is longer than [`limits::FRAME_FREE_BYTES`].
    small: Arc<MemoryBudget>,
    /// Room for messages with attachments.
    large: Arc<MemoryBudget>,
}

impl Default for FrameMemory {
    fn default() -> Self {
        Self {
            small: MemoryBudget::new(limits::SMALL_FRAMES_BYTES, limits::CLIENT_FRAME_MAX_BYTES),
            large: MemoryBudget::new(limits::LARGE_FRAMES_BYTES, limits::LARGE_FRAME_MAX_BYTES),
        }
    }
}

/// The time that a message may take.
#[derive(Clone, Copy)]
struct MessageDeadline {
    small: Duration,
    large: Duration,
    /// The time in which [`limits::LARGE_FRAME_PACE_BYTES`] of a large message must come.
    pace: Duration,
}

impl Default for MessageDeadline {
    fn default() -> Self {
        Self {
            small: Duration::from_millis(limits::SMALL_FRAME_MS),
            large: Duration::from_millis(limits::LARGE_FRAME_MS),
            pace: Duration::from_millis(limits::LARGE_FRAME_PACE_MS),
        }
    }
}

/// A stream that reads the headers of the WebSocket frames passing through it.
pub struct FrameLimiter<S> {
    pub stream: S,
    /// Bytes that were read before the stream was taken over.
    early: Bytes,
    heads: HeadParser,
    /// The size of the largest message that may come now.
    most: usize,
    patience: MessageDeadline,
    rooms: FrameMemory,
    /// The message that is being received, with its memory and its deadlines.
    coming: Option<PartialMessage>,
    /// The time when bytes last arrived.
    heard_at: Instant,
}

struct PartialMessage {
    share: BudgetShare,
    is_large: bool,
    deadline: Pin<Box<Sleep>>,
    /// The next check of a large message's pace, and the number of its bytes at the previous check.
    pace: Pin<Box<Sleep>>,
    seen: u64,
    /// True if the message has waited for room since then, which is not its client's fault.
    waited: bool,
}

impl<S> FrameLimiter<S> {
    /// Wraps a stream; `early` are the bytes that were already read from it.
    pub fn new(stream: S, early: Bytes, rooms: FrameMemory) -> Self {
        Self {
            stream,
            early,
            heads: HeadParser::default(),
            most: limits::CLIENT_FRAME_MAX_BYTES,
            patience: MessageDeadline::default(),
            rooms,
            coming: None,
            heard_at: Instant::now(),
        }
    }

    /// Returns the number of messages that have passed, control frames included; `None` while one is under way.
    pub fn passed(&self) -> Option<u64> {
        let between = self.heads.message.is_none() && self.heads.payload == 0 && self.heads.head.is_empty();
        between.then_some(self.heads.ended)
    }

    /// Allows large messages from now on.
    pub fn allow_large(&mut self) {
        self.most = limits::LARGE_FRAME_MAX_BYTES;
    }

    /// Returns the time of the client's last byte.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Waits until `more` bytes of the incoming message may be read.
    fn poll_room(&mut self, more: usize, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(announced) = self.heads.message else {
            self.coming = None;
            return Poll::Ready(Ok(()));
        };
        if announced > self.most as u64 {
            return Poll::Ready(Err(io::Error::other(FrameLimitError::TooLarge)));
        }
        let (announced, come) = (announced as usize, self.heads.come as usize);
        let is_large = announced > limits::CLIENT_FRAME_MAX_BYTES;
        let (patience, rooms) = (self.patience, &self.rooms);
        // A fragmented message may become a large one.
        let coming = match self.coming.take().filter(|coming| coming.is_large == is_large) {
            Some(coming) => coming,
            None => PartialMessage {
                share: if is_large { rooms.large.share() } else { rooms.small.share() },
                is_large,
                deadline: Box::pin(sleep(if is_large { patience.large } else { patience.small })),
                pace: Box::pin(sleep(patience.pace)),
                seen: self.heads.come,
                waited: false,
            },
        };
        let coming = self.coming.insert(coming);
        if coming.is_late(self.heads.come, patience.pace, context) {
            return Poll::Ready(Err(io::Error::other(FrameLimitError::TooLate)));
        }
        let wanted = (come + more).min(announced);
        let wanted = if is_large { wanted } else { wanted.saturating_sub(limits::FRAME_FREE_BYTES) };
        let room = coming.share.poll_reach(wanted, context);
        coming.waited |= room.is_pending();
        room.map(Ok)
    }
}

impl PartialMessage {
    /// Returns true if the message has taken too long, or too little of it came since the last check.
    fn is_late(&mut self, come: u64, pace: Duration, context: &mut Context<'_>) -> bool {
        if self.deadline.as_mut().poll(context).is_ready() {
            return true;
        }
        while self.is_large && self.pace.as_mut().poll(context).is_ready() {
            if !self.waited && come - self.seen < limits::LARGE_FRAME_PACE_BYTES {
                return true;
            }
            (self.seen, self.waited) = (come, false);
            self.pace.as_mut().reset(Instant::now() + pace);
        }
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameLimiter<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Reading stops at the end of a large message, so that its buffer can be released.
        let is_large = self.heads.message.is_some_and(|announced| announced > limits::CLIENT_FRAME_MAX_BYTES as u64);
        let most = match (is_large, usize::try_from(self.heads.payload)) {
            (true, Ok(rest @ 1..)) => rest.min(buf.remaining()),
            _ => buf.remaining(),
        };
        ready!(self.poll_room(most, context))?;
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        } else {
            let early = self.early.len().min(part.remaining());
            part.put_slice(&self.early[..early]);
            self.early.advance(early);
        }
        self.heads.pass(part.filled());
        if !part.filled().is_empty() {
            self.heard_at = Instant::now();
        }
        let length = part.filled().len();
        buf.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameLimiter<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Follows the frames in a stream of bytes.
#[derive(Default)]
struct HeadParser {
    /// The part of a frame header seen so far: at most 14 bytes.
    head: Vec<u8>,
    /// Payload bytes of the current frame that are still to come.
    payload: u64,
    /// The size of the incoming message, as far as its frames were announced; `None` between messages.
    message: Option<u64>,
    /// Bytes of that message that have come.
    come: u64,
    /// True if the current frame is its message's last one.
    ends: bool,
    is_control: bool,
    /// The number of messages and control frames that have passed.
    ended: u64,
}

impl HeadParser {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let passed = self.payload.min(bytes.len() as u64);
                self.payload -= passed;
                self.come += if self.is_control { 0 } else { passed };
                bytes = &bytes[passed as usize..];
            } else {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                let Some(length) = self.length() else { continue };
                self.begin(length);
            }
            if self.payload == 0 && self.head.is_empty() && (self.ends || self.is_control) {
                self.ended += 1;
                if !self.is_control {
                    (self.message, self.come) = (None, 0);
                }
            }
        }
    }

    /// Returns the length of the frame if its header is complete.
    fn length(&self) -> Option<u64> {
        let [_, second, extended @ ..] = &self.head[..] else { return None };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (short, more) = match second & 0x7f {
            126 => (0, 2),
            127 => (0, 8),
            short => (u64::from(short), 0),
        };
        if extended.len() < more + mask {
            return None;
        }
        Some(extended[..more].iter().fold(short, |length, byte| (length << 8) | u64::from(*byte)))
    }

    fn begin(&mut self, length: u64) {
        self.is_control = self.head[0] & 0x08 != 0;
        self.ends = self.head[0] & 0x80 != 0;
        self.payload = length;
        if !self.is_control {
            self.message = Some(self.message.unwrap_or(0).saturating_add(length));
        }
        self.head.clear();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Builds a client's frame with a mask of zeros.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(0x80 | payload as u8),
            126..0x1_0000 => frame.extend([&[0xfe], &(payload as u16).to_be_bytes()[..]].concat()),
            _ => frame.extend([&[0xff], &(payload as u64).to_be_bytes()[..]].concat()),
        }
        frame.extend(vec![0; 4 + payload]);
        frame
    }

    #[test]
    fn frames_are_parsed_across_any_packet_boundary() {
        // A message, a ping, a message in three parts with a ping in between.
        let parts = [(0x81, 5), (0x89, 3), (0x01, 300), (0x00, 70_000), (0x89, 0), (0x80, 0), (0x81, 0)];
        let bytes: Vec<u8> = parts.iter().flat_map(|(first, payload)| frame(*first, *payload)).collect();
        for piece in [1, 2, 7, 1_000, bytes.len()] {
            let mut heads = HeadParser::default();
            let mut largest = 0;
            for piece in bytes.chunks(piece) {
                heads.pass(piece);
                largest = largest.max(heads.message.unwrap_or(0));
            }
            assert_eq!((heads.message, heads.payload, heads.head.len(), heads.ended), (None, 0, 0, 5), "{piece}");
            if piece < 1_000 {
                assert_eq!(largest, 70_300, "{piece}");
            }
        }
    }

    const LARGE: usize = limits::CLIENT_FRAME_MAX_BYTES + 1;

    fn excess(error: io::Error) -> FrameLimitError {
        *error.get_ref().unwrap().downcast_ref::<FrameLimitError>().unwrap()
    }

    fn rooms(small: usize, large: usize) -> FrameMemory {
        FrameMemory { small: MemoryBudget::new(small, small / 4), large: MemoryBudget::new(large, large / 4) }
    }

    /// Opens a connection on which the client has sent the header of a message of this size.
    async fn announced(
        size: usize,
        rooms: &FrameMemory,
    ) -> (tokio::io::DuplexStream, FrameLimiter<tokio::io::DuplexStream>) {
        let (client, server) = tokio::io::duplex(8 * size);
        let whole = frame(0x81, size);
        let head = Bytes::from(whole).slice(..if size > 0xffff { 14 } else { 8 });
        let mut intake = FrameLimiter::new(server, head.clone(), rooms.clone());
        intake.read_exact(&mut vec![0; head.len()]).await.unwrap();
        (client, intake)
    }

    #[tokio::test]
    async fn a_large_message_needs_permission() {
        let (_client, mut refused) = announced(LARGE, &FrameMemory::default()).await;
        assert_eq!(excess(refused.read(&mut [0; 14]).await.unwrap_err()), FrameLimitError::TooLarge);
    }

    #[tokio::test]
    async fn only_received_bytes_take_budget() {
        let rooms = rooms(1, 4 * LARGE);
        let mut idle = Vec::new();
        for _ in 0..20 {
            let (client, mut intake) = announced(LARGE, &rooms).await;
            intake.allow_large();
            assert!(intake.read(&mut [0; 100]).now_or_never().is_none(), "nothing has come");
            idle.push((client, intake));
        }
        let (mut client, mut busy) = announced(LARGE, &rooms).await;
        busy.allow_large();
        client.write_all(&vec![0; LARGE]).await.unwrap();
        busy.read_exact(&mut vec![0; LARGE]).await.unwrap();
        assert!(rooms.large.free() <= 3 * LARGE, "until the message was served");
        assert!(busy.read(&mut [0; 100]).now_or_never().is_none(), "nothing more comes");
        drop(idle);
        assert_eq!(rooms.large.free(), 4 * LARGE);
    }

    #[tokio::test]
    async fn a_message_has_a_deadline_and_a_large_one_a_minimum_rate() {
        const HOUR: Duration = Duration::from_secs(3_600);
        for (size, patience) in [
            (1_000, MessageDeadline { small: Duration::ZERO, large: HOUR, pace: HOUR }),
            (LARGE, MessageDeadline { small: HOUR, large: Duration::ZERO, pace: HOUR }),
            (LARGE, MessageDeadline { small: HOUR, large: HOUR, pace: Duration::ZERO }),
        ] {
            let (_client, mut slow) = announced(size, &FrameMemory::default()).await;
            slow.allow_large();
            slow.patience = patience;
            assert_eq!(excess(slow.read(&mut [0; 14]).await.unwrap_err()), FrameLimitError::TooLate, "{size}");
        }
    }

    #[tokio::test]
    async fn unfinished_messages_share_a_budget() {
        let size = 3 * limits::FRAME_FREE_BYTES;
        let rooms = rooms(4 * size, 1);
        let mut waiting = 0;
        let mut open = Vec::new();
        for _ in 0..12 {
            let (mut client, mut intake) = announced(size, &rooms).await;
            client.write_all(&vec![0; size - 1]).await.unwrap();
            waiting += usize::from(intake.read_exact(&mut vec![0; size - 1]).now_or_never().is_none());
            open.push((client, intake));
        }
        assert!((1..12).contains(&waiting), "{waiting} of 12 wait for room");
        let (mut client, mut short) = announced(limits::FRAME_FREE_BYTES, &rooms).await;
        client.write_all(&vec![0; limits::FRAME_FREE_BYTES]).await.unwrap();
        short.read_exact(&mut vec![0; limits::FRAME_FREE_BYTES]).await.expect("a short message does not wait");
    }
}
