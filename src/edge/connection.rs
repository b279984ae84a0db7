//! The loop of a client's connection.
//!
//! Contract of [`serve`]: actions are served one after the other, in the order of the frames, while the frames of running turns wait
//! in a bounded queue; so an action's answer always precedes the frames that the action causes. One task, one `select!`:
//! (1) takes an action and answers it; or takes the live frames that are there; or a host's event; or, while a turn is open, checks
//! silent turns; or drains; or stops, or notices that one of the connection's times is over;
//! (2) writes everything in one go;
//! (3) closes when the client does not keep up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use tokio::time::{Instant, sleep_until};

use super::{
    Edge, actions,
    client::{
        ClientIdentity, Connection,
        deadlines::{ConnectionDeadlines, ExpiredDeadline},
    },
    policy::quota::ConnectionSlot,
    transport::socket::{CloseReason, Socket, SocketInput},
};
use crate::{
    limits,
    metrics::metrics,
    wire::frames::{self, ErrorCode},
};

/// Serves a client until the client leaves or stops reading, or the edge stops.
pub async fn serve(edge: Arc<Edge>, mut socket: Socket, caller: ClientIdentity) {
    let (listener, mut live) = edge.hub.listener();
    let (draining, shutdown) = (edge.draining.clone(), edge.shutdown.clone());
    let lagging = listener.lagging().clone();
    let mut times = ConnectionDeadlines::new(&edge, caller.principal.as_ref());
    let (mut connection, mut pushes) = Connection::new(edge, listener, caller);
    let mut open = metrics().connections.opened();
    let (mut check_at, mut drains, mut pings) = (Instant::now(), false, false);
    let why = loop {
        tokio::select! {
            message = socket.read() => match message {
                SocketInput::Text(text) => {
                    times.acted(connection.principal.is_some());
                    actions::dispatch(&mut connection, text).await;
                    if connection.has_session {
                        socket.allow_large();
                    }
                }
                SocketInput::Binary => connection.refuse_binary(),
                SocketInput::End(why) => break why,
            },
            Some(frame) = live.next() => connection.take_live(frame, &mut live).await,
            Some(event) = pushes.recv() => connection.out.push(event),
            () = sleep_until(check_at), if !connection.delivery.is_idle() => {
                connection.look_after_silent_turns().await;
                check_at = Instant::now() + Duration::from_millis(limits::SILENCE_CHECK_MS / 4);
            }
            () = draining.cancelled(), if !drains => drains = true,
            over = times.next(connection.has_session) => match over {
                ExpiredDeadline::Pause if times.is_silent(socket.heard_at()) => break Some(CloseReason::Silent),
                ExpiredDeadline::Pause => pings = true,
                ExpiredDeadline::Session => break Some(CloseReason::NoSession),
                ExpiredDeadline::Token => {
                    connection.out.push(token_error("the token has expired"));
                    socket.write(&mut connection.out).await;
                    break Some(CloseReason::Expired);
                }
            },
            () = shutdown.cancelled() => break Some(CloseReason::Restart),
        }
        let written = async {
            let writes = connection.out.is_empty() || socket.write(&mut connection.out).await;
            if writes && (!std::mem::take(&mut pings) || socket.ping().await) { Ok(()) } else { Err(()) }
        };
        match lagging.run_until_cancelled(written).await {
            Some(Ok(())) => {}
            None => break Some(CloseReason::TooSlow),
            Some(Err(())) => return,
        }
        if drains && connection.delivery.is_idle() {
            break Some(CloseReason::Restart);
        }
        if socket.is_swollen() {
            socket = socket.shrunk().await;
        }
    };
    drop(connection);
    if let Some(why) = why {
        open.closes(why.name());
    }
    socket.close(why).await;
}

/// Tells a client that its token is not valid, and closes. The connection holds its slot meanwhile.
pub async fn refuse(mut socket: Socket, why: CloseReason, place: ConnectionSlot) {
    let words = match why {
        CloseReason::Unverified => "tokens can't be verified now, please try again",
        _ => "the token is not valid",
    };
    if socket.write(&mut vec![token_error(words)]).await {
        socket.close(Some(why)).await;
    }
    drop(place);
}

pub(super) fn token_error(words: &str) -> Bytes {
    metrics().connections.error(&ErrorCode::InvalidToken.name());
    frames::error(None, ErrorCode::InvalidToken, words, Utc::now())
}
