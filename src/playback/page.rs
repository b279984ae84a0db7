//! A page that plays a conversation back as its client saw it, with its pauses.
//!
//! The server listens on a loopback address and accepts only requests for that address from its own page: another site's page
//! that is open in the same browser can't read the conversation.
//!
//! The server sends one JSON text for each moment, and the playback position after each change. The page sends
//! `{"do": "play" | "pause" | "step" | "restart" | "speed", "speed"?: "original" | "full" | number}`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep_until},
};
use warp::{
    Filter, Rejection, Reply,
    http::StatusCode,
    ws::{Message, WebSocket, Ws},
};

use super::{
    frames::{MomentKind, PlaybackMoment},
    speed::PlaybackSpeed,
};
use crate::{domain::event::Resolution, limits};

const PAGE: &str = include_str!("page.html");
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' ws:; \
    img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The position and speed of one playback.
struct Player {
    moments: Arc<Vec<PlaybackMoment>>,
    next: usize,
    speed: PlaybackSpeed,
    plays: bool,
    /// The time at which the next moment is due.
    due: Instant,
}

/// A command from the page.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum PageCommand {
    Play,
    Pause,
    Step,
    Restart,
    Speed { speed: Value },
}

/// Serves the page. Each open page has a playback of its own.
pub async fn serve(listener: TcpListener, moments: Vec<PlaybackMoment>, speed: PlaybackSpeed) -> io::Result<()> {
    let (moments, address) = (Arc::new(moments), listener.local_addr()?);
    let page = warp::path::end().and(warp::get()).map(|| {
        let page = warp::reply::with_header(warp::reply::html(PAGE), "content-security-policy", PAGE_POLICY);
        warp::reply::with_header(page, "x-content-type-options", "nosniff").into_response()
    });
    let socket = warp::path!("ws").and(warp::ws()).map(move |ws: Ws| {
        let player = Player::new(moments.clone(), speed);
        let ws = ws.max_message_size(limits::REPLAY_WORD_MAX_BYTES).max_frame_size(limits::REPLAY_WORD_MAX_BYTES);
        ws.on_upgrade(|socket| play(socket, player)).into_response()
    });
    let refused = |_: Rejection| async { Ok::<_, Rejection>(StatusCode::FORBIDDEN.into_response()) };
    let routes = own(address).and(page.or(socket).unify()).recover(refused);
    warp::serve(routes).incoming(listener).run().await;
    Ok(())
}

/// Accepts requests that name this address in `Host`, and come from the page served there or without an `Origin`.
fn own(address: SocketAddr) -> impl Filter<Extract = (), Error = Rejection> + Clone {
    let hosts = [address.to_string(), format!("localhost:{}", address.port())];
    let headers = warp::header::optional("host").and(warp::header::optional("origin"));
    let check = move |host: Option<String>, origin: Option<String>| {
        let is_own = hosts.iter().any(|own| {
            host.as_ref() == Some(own) && origin.as_ref().is_none_or(|origin| *origin == format!("http://{own}"))
        });
        async move { if is_own { Ok(()) } else { Err(warp::reject::reject()) } }
    };
    headers.and_then(check).untuple_one()
}

/// Plays to one page until it closes.
///
/// 1. Takes the page's command, or sends the moment that is due.
/// 2. Sends the position when it has changed.
async fn play(mut socket: WebSocket, mut player: Player) {
    let mut sent = socket.send(player.standing()).await;
    while sent.is_ok() {
        tokio::select! {
            word = socket.next() => match word {
                Some(Ok(message)) if message.is_text() => {
                    for answer in player.obey(message.to_str().unwrap_or_default()) {
                        sent = sent.and(socket.feed(answer).await);
                    }
                    sent = sent.and(socket.flush().await);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            () = sleep_until(player.due), if player.plays => {
                if let Some(moment) = player.step() {
                    sent = socket.send(moment).await;
                }
                if player.is_over() {
                    player.plays = false;
                    sent = sent.and(socket.send(player.standing()).await);
                }
            }
        }
    }
}

impl Player {
    fn new(moments: Arc<Vec<PlaybackMoment>>, speed: PlaybackSpeed) -> Self {
        Self { plays: !moments.is_empty(), moments, next: 0, speed, due: Instant::now() }
    }

    fn is_over(&self) -> bool {
        self.next >= self.moments.len()
    }

    /// Executes a command of the page and returns the replies.
    fn obey(&mut self, text: &str) -> Vec<Message> {
        let Ok(word) = serde_json::from_str(text) else { return vec![] };
        let mut answers = vec![];
        match word {
            PageCommand::Play => self.plays = !self.is_over(),
            PageCommand::Pause => self.plays = false,
            PageCommand::Step => {
                self.plays = false;
                answers.extend(self.step());
            }
            PageCommand::Restart => {
                (self.next, self.plays) = (0, !self.moments.is_empty());
                answers.push(Message::text(json!({ "restarted": true }).to_string()));
            }
            PageCommand::Speed { speed } => {
                let speed = speed.as_str().map_or_else(|| speed.to_string(), str::to_string);
                self.speed = speed.parse().unwrap_or(self.speed);
            }
        }
        self.wait();
        answers.push(self.standing());
        answers
    }

    /// Returns the next moment for the page.
    fn step(&mut self) -> Option<Message> {
        let moment = self.moments.get(self.next)?;
        self.next += 1;
        let message = told(moment, self.next);
        self.wait();
        Some(message)
    }

    /// Sets the due time of the next moment, counted from now.
    fn wait(&mut self) {
        let before = self.next.checked_sub(1).and_then(|last| self.moments.get(last)).map(|moment| moment.at);
        let wait = self.moments.get(self.next).map(|next| self.speed.between(before, next.at)).unwrap_or_default();
        self.due = Instant::now() + wait.min(Duration::from_millis(limits::REPLAY_PAUSE_MAX_MS));
    }

    /// Returns the playback position for the page.
    fn standing(&self) -> Message {
        let speed = match self.speed {
            PlaybackSpeed::Times(times) => json!(times),
            PlaybackSpeed::Full => json!("full"),
        };
        let standing = json!({ "n": self.next, "of": self.moments.len(), "plays": self.plays, "speed": speed });
        Message::text(json!({ "standing": standing }).to_string())
    }
}

/// Encodes the n-th moment for the page.
fn told(moment: &PlaybackMoment, n: usize) -> Message {
    let at = moment.at.timestamp_millis();
    let text = match &moment.what {
        MomentKind::Asked { name, message } => {
            json!({ "at": at, "n": n, "asked": { "name": name, "message": message } })
        }
        MomentKind::Decided(resolution) => json!({ "at": at, "n": n, "decided": words(*resolution) }),
        MomentKind::Frame(frame) => {
            let frame: Result<&RawValue, _> = serde_json::from_slice(frame);
            json!({ "at": at, "n": n, "frame": frame.ok() })
        }
    };
    Message::text(text.to_string())
}

fn words(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Approved => "Approved",
        Resolution::Submitted => "Answered",
        Resolution::Declined => "Declined",
        Resolution::Expired => "No answer in time",
    }
}
