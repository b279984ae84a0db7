//! One WebSocket, with limits on reading, writing and closing.
//!
//! The upgrade is done here rather than by warp: its WebSocket allocates 128 KiB of read buffer for every connection and
//! copies every outgoing frame into a new string.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::frame_limiter::{FrameLimitError, FrameLimiter, FrameMemory};
use crate::limits;

/// The close code for a client that needs another token: a retry with the same one is no use.
const TOKEN_CLOSE_CODE: u16 = 4401;

/// The reason why this side closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    TooLarge,
    NotUtf8,
    Protocol,
    /// The server stops or restarts; the client may go on with another one.
    Restart,
    /// The client does not read fast enough; a new connection starts from the log.
    TooSlow,
    /// The client does not send a frame fast enough.
    TooLate,
    /// The client does not answer pings.
    Silent,
    /// The client has opened no session for too long.
    NoSession,
    /// The client's token is not valid.
    BadToken,
    /// The client's token has expired.
    Expired,
    /// Tokens can't be verified now.
    Unverified,
}

impl CloseReason {
    /// Returns the name under which the close is counted.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::TooLarge => "too_large",
            CloseReason::NotUtf8 => "not_utf8",
            CloseReason::Protocol => "protocol",
            CloseReason::Restart => "restart",
            CloseReason::TooSlow => "too_slow",
            CloseReason::TooLate => "too_late",
            CloseReason::Silent => "silent",
            CloseReason::NoSession => "no_session",
            CloseReason::BadToken => "bad_token",
            CloseReason::Expired => "expired",
            CloseReason::Unverified => "unverified",
        }
    }

    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            CloseReason::TooLarge => (CloseCode::Size, "the frame is too large"),
            CloseReason::NotUtf8 => (CloseCode::Invalid, "the text is not UTF-8"),
            CloseReason::Protocol => (CloseCode::Protocol, "protocol violation"),
            CloseReason::Restart => (CloseCode::Restart, "the server restarts"),
            CloseReason::TooSlow => (CloseCode::Again, "too many frames waited for this client"),
            CloseReason::TooLate => (CloseCode::Policy, "the frame took too long"),
            CloseReason::Silent => (CloseCode::Policy, "pings are not answered"),
            CloseReason::NoSession => (CloseCode::Policy, "no session was opened"),
            CloseReason::BadToken => (CloseCode::Library(TOKEN_CLOSE_CODE), "the token is not valid"),
            CloseReason::Expired => (CloseCode::Library(TOKEN_CLOSE_CODE), "the token has expired"),
            CloseReason::Unverified => (CloseCode::Again, "tokens can't be verified now"),
        };
        CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
    }
}

/// A client's message, or the end of the connection.
pub enum SocketInput {
    Text(Utf8Bytes),
    Binary,
    /// The connection is over, or must be closed for this reason.
    End(Option<CloseReason>),
}

pub struct Socket {
    inner: WebSocketStream<FrameLimiter<TcpStream>>,
    /// The number of messages read, control frames included.
    read: u64,
    /// True while the library keeps the buffer of a large message.
    is_swollen: bool,
}

impl Socket {
    /// Takes over the TCP connection of an accepted upgrade; `rooms` is the process's memory for unfinished frames.
    pub async fn new(upgraded: Upgraded, rooms: FrameMemory) -> io::Result<Self> {
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| io::Error::other("the upgraded connection is not the TCP connection that was accepted"))?;
        let intake = FrameLimiter::new(parts.io.into_inner(), parts.read_buf, rooms);
        Ok(Self { inner: websocket(intake).await, read: 0, is_swollen: false })
    }

    /// Releases the buffer of a large message.
    ///
    /// The library would keep it for the life of the connection, so the WebSocket starts anew as soon as it holds no unread
    /// bytes.
    pub async fn shrunk(mut self) -> Self {
        let holds_nothing = self.inner.get_ref().passed() == Some(self.read);
        if self.is_swollen && holds_nothing && self.inner.flush().await.is_ok() {
            self.inner = websocket(self.inner.into_inner()).await;
            self.is_swollen = false;
        }
        self
    }

    pub fn is_swollen(&self) -> bool {
        self.is_swollen
    }

    /// Lets the client send frames with attachments from now on.
    pub fn allow_large(&mut self) {
        self.inner.get_mut().allow_large();
    }

    /// Returns the time of the client's last byte.
    pub fn heard_at(&self) -> Instant {
        self.inner.get_ref().heard_at()
    }

    /// Sends a ping. Returns false if the client is gone.
    pub async fn ping(&mut self) -> bool {
        let ping = self.inner.send(Message::Ping(Bytes::new()));
        matches!(timeout(Duration::from_millis(limits::SOCKET_WRITE_MS), ping).await, Ok(Ok(())))
    }

    /// Returns the next message; control pings are answered on the way. Cancel-safe.
    pub async fn read(&mut self) -> SocketInput {
        loop {
            let next = self.inner.next().await;
            self.read += u64::from(matches!(next, Some(Ok(_))));
            return match next {
                Some(Ok(Message::Text(text))) => {
                    self.is_swollen |= text.len() > limits::CLIENT_FRAME_MAX_BYTES;
                    SocketInput::Text(text)
                }
                Some(Ok(Message::Binary(_))) => SocketInput::Binary,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(Error::Capacity(_))) => SocketInput::End(Some(CloseReason::TooLarge)),
                Some(Err(Error::Io(error))) => SocketInput::End(excess(&error)),
                Some(Err(Error::Utf8(_))) => SocketInput::End(Some(CloseReason::NotUtf8)),
                // The client is gone without a close frame: a network, or a page that was left.
                Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => SocketInput::End(None),
                Some(Err(Error::Protocol(_))) => SocketInput::End(Some(CloseReason::Protocol)),
                Some(Ok(Message::Close(_)) | Err(_)) | None => SocketInput::End(None),
            };
        }
    }

    /// Writes frames in one go. Returns false if the client is gone or has not read for too long.
    pub async fn write(&mut self, frames: &mut Vec<Bytes>) -> bool {
        let work = async {
            for frame in frames.drain(..) {
                // Frames are JSON, serialised here or by a worker; a frame that is not UTF-8 is not worth a connection.
                match Utf8Bytes::try_from(frame) {
                    Ok(text) => self.inner.feed(Message::Text(text)).await?,
                    Err(_) => tracing::error!("a frame is not UTF-8"),
                }
            }
            self.inner.flush().await
        };
        matches!(timeout(Duration::from_millis(limits::SOCKET_WRITE_MS), work).await, Ok(Ok(())))
    }

    /// Sends the close frame, then waits a moment for the client to take note, reading and ignoring its remaining bytes.
    ///
    /// Closing a socket with unread data would reset the connection and lose the close frame.
    pub async fn close(mut self, why: Option<CloseReason>) {
        let deadline = Instant::now() + Duration::from_millis(limits::CLOSE_WAIT_MS);
        let said = timeout_at(deadline, async {
            match why {
                Some(why) => self.inner.send(Message::Close(Some(why.frame()))).await,
                // The client has closed: its close frame's answer is waiting to be written.
                None => self.inner.flush().await,
            }
        });
        if !matches!(said.await, Ok(Ok(()))) || why.is_none() {
            return;
        }
        let stream = &mut self.inner.get_mut().stream;
        // The client may wait for the end of the connection before it goes on.
        if !matches!(timeout_at(deadline, stream.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        let mut ignored = [0u8; 4096];
        while let Ok(Ok(n)) = timeout_at(deadline, stream.read(&mut ignored)).await {
            if n == 0 {
                return;
            }
        }
    }
}

/// The intake enforces the current limit on frames, so the library gets the largest one.
async fn websocket(intake: FrameLimiter<TcpStream>) -> WebSocketStream<FrameLimiter<TcpStream>> {
    let config = WebSocketConfig::default()
        .read_buffer_size(limits::SOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(limits::WRITE_BATCH_BYTES)
        .max_message_size(Some(limits::LARGE_FRAME_MAX_BYTES))
        .max_frame_size(Some(limits::LARGE_FRAME_MAX_BYTES));
    WebSocketStream::from_raw_socket(intake, Role::Server, Some(config)).await
}

/// Returns the reason why the intake refuses to read on, if it does.
fn excess(error: &io::Error) -> Option<CloseReason> {
    match error.get_ref()?.downcast_ref::<FrameLimitError>()? {
        FrameLimitError::TooLarge => Some(CloseReason::TooLarge),
        FrameLimitError::TooLate => Some(CloseReason::TooLate),
    }
}
