//! What a client's bytes may cost before they are a message.
//!
//! The WebSocket library has one limit for the life of a connection, so it is kept here: the stream under it reads the heads of
//! frames on their way. A large message is read only on a connection that may send one, only while the process has room for
//! it, and only for so long.

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
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_util::sync::PollSemaphore;

use crate::limits;

/// Why a message is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    TooLarge,
    TooLate,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the message is too large",
            Self::TooLate => "a large message takes too long",
        })
    }
}

impl std::error::Error for Excess {}

/// A stream that reads the heads of WebSocket frames on their way.
pub struct Intake<S> {
    pub stream: S,
    /// What was read before the stream was taken over.
    early: Bytes,
    heads: Heads,
    /// The largest message that may come now.
    most: usize,
    /// How long a large message may take.
    patience: Duration,
    room: PollSemaphore,
    /// Room for the large message that is coming, and until when it must have come.
    held: Option<OwnedSemaphorePermit>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Intake<S> {
    /// `room`: bytes of large messages that the process may hold.
    pub fn new(stream: S, early: Bytes, room: Arc<Semaphore>) -> Self {
        Self {
            stream,
            early,
            heads: Heads::default(),
            most: limits::CLIENT_FRAME_MAX_BYTES,
            patience: Duration::from_millis(limits::LARGE_FRAME_MS),
            room: PollSemaphore::new(room),
            held: None,
            deadline: None,
        }
    }

    /// How many messages have passed, control frames included; `None` while one is under way.
    pub fn passed(&self) -> Option<u64> {
        let between = self.heads.message.is_none() && self.heads.payload == 0 && self.heads.head.is_empty();
        between.then_some(self.heads.ended)
    }

    /// Lets large messages come from now on.
    pub fn allow_large(&mut self) {
        self.most = limits::LARGE_FRAME_MAX_BYTES;
    }

    /// Waits until the announced message may be read.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(announced) = self.heads.message else {
            self.held = None;
            self.deadline = None;
            return Poll::Ready(Ok(()));
        };
        if announced > self.most as u64 {
            return Poll::Ready(Err(io::Error::other(Excess::TooLarge)));
        }
        let announced = announced as usize;
        if announced <= limits::CLIENT_FRAME_MAX_BYTES {
            return Poll::Ready(Ok(()));
        }
        let patience = self.patience;
        if self.deadline.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::other(Excess::TooLate)));
        }
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if held < announced {
            let more = (announced - held) as u32;
            match (ready!(self.room.poll_acquire_many(context, more)), &mut self.held) {
                (Some(permit), Some(held)) => held.merge(permit),
                (permit, held) => *held = permit,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_room(context))?;
        // Nothing is read beyond the end of a large message, so that its buffer can be given up.
        let most = match (&self.held, usize::try_from(self.heads.payload)) {
            (Some(_), Ok(rest @ 1..)) => rest.min(buf.remaining()),
            _ => buf.remaining(),
        };
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        } else {
            let early = self.early.len().min(part.remaining());
            part.put_slice(&self.early[..early]);
            self.early.advance(early);
        }
        self.heads.pass(part.filled());
        let length = part.filled().len();
        buf.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Intake<S> {
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

/// Follows the frames of a stream of bytes.
#[derive(Default)]
struct Heads {
    /// The part of a head that was seen: at most 14 bytes.
    head: Vec<u8>,
    /// Bytes of the current frame's payload that are still to come.
    payload: u64,
    /// Size of the message that is coming, as far as its frames were announced; `None` between messages.
    message: Option<u64>,
    /// Whether the current frame is its message's last one, or a control frame.
    ends: bool,
    is_control: bool,
    /// Messages and control frames that have passed.
    ended: u64,
}

impl Heads {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let passed = self.payload.min(bytes.len() as u64);
                self.payload -= passed;
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
                    self.message = None;
                }
            }
        }
    }

    /// The length of the frame whose head is complete.
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
    use super::*;

    /// A frame as a client sends it, with a mask of zeros.
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
    fn frames_are_followed_however_they_are_cut() {
        // A message, a ping, a message in three parts with a ping in between.
        let parts = [(0x81, 5), (0x89, 3), (0x01, 300), (0x00, 70_000), (0x89, 0), (0x80, 0), (0x81, 0)];
        let bytes: Vec<u8> = parts.iter().flat_map(|(first, payload)| frame(*first, *payload)).collect();
        for piece in [1, 2, 7, 1_000, bytes.len()] {
            let mut heads = Heads::default();
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

    #[tokio::test]
    async fn a_large_message_needs_leave_room_and_time() {
        use futures_util::FutureExt;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let size = limits::CLIENT_FRAME_MAX_BYTES + 1;
        let excess = |error: io::Error| *error.get_ref().unwrap().downcast_ref::<Excess>().unwrap();
        let room = Arc::new(Semaphore::new(size));
        let mut read = [0; 14];
        let (mut client, server) = tokio::io::duplex(size);
        let announced = |server| {
            let head = Bytes::from(frame(0x81, size)).slice(..14);
            Intake::new(server, head, room.clone())
        };

        let mut refused = announced(tokio::io::duplex(1).1);
        refused.read_exact(&mut read).await.unwrap();
        assert_eq!(excess(refused.read(&mut read).await.unwrap_err()), Excess::TooLarge);

        let mut first = announced(server);
        first.allow_large();
        first.read_exact(&mut read).await.unwrap();
        client.write_all(&vec![0; size]).await.unwrap();
        first.read_exact(&mut vec![0; size]).await.unwrap();
        assert_eq!(room.available_permits(), 0, "until the message was served");

        let mut second = announced(tokio::io::duplex(1).1);
        second.allow_large();
        second.read_exact(&mut read).await.unwrap();
        assert!(second.read(&mut read).now_or_never().is_none(), "there is no room");
        second.deadline = None;
        second.patience = Duration::ZERO;
        assert_eq!(excess(second.read(&mut read).await.unwrap_err()), Excess::TooLate);
        drop(second);

        assert!(first.read(&mut read).now_or_never().is_none(), "nothing more comes");
        assert_eq!(room.available_permits(), size);
    }
}
