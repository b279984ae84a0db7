//! Events as the frames that a client was shown, with the time of each.
//!
//! The client is one that watched the conversation from its beginning and lost nothing on the way. Three kinds of frames are
//! not in the log: replies to actions other than `send_message`, keepalives, and tokens of a worker that died before it stored
//! them. [`FrameReconstructor::gaps`] counts the last.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    domain::{
        Conversation, Event, RecordedEvent, Turn,
        event::{Resolution, TurnRequested},
        frame_trace::{FrameKind, TracedFrame},
    },
    wire::render,
};

/// A client's action, or a frame shown to the client, with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaybackMoment {
    pub at: DateTime<Utc>,
    pub what: MomentKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MomentKind {
    /// The visitor sent a message.
    Asked { name: String, message: String },
    /// A person or a deadline answered the pending prompt.
    Decided(Resolution),
    /// A frame was shown.
    Frame(Bytes),
}

/// Turns a conversation's events into a client's frames.
#[derive(Default)]
pub struct FrameReconstructor {
    /// Restricts the frames to the turns of this session.
    session: Option<Uuid>,
    state: Conversation,
    call: CallDisplay,
    held: Option<HeldEnding>,
    gaps: u64,
}

/// The frames of the current model call by workers that did not finish it.
#[derive(Default)]
struct CallDisplay {
    has_text: bool,
    /// The call was restarted: a client that has seen text of it is shown no more.
    is_muted: bool,
}

/// The end of a turn cancelled while a worker held it: the worker may still store the frames it had sent before.
struct HeldEnding {
    turn: Uuid,
    request: TurnRequested,
    cancelled_at: DateTime<Utc>,
    /// The model call was muted at the end, as in [`CallDisplay`].
    is_muted: bool,
    /// The end and the moments after it.
    moments: Vec<PlaybackMoment>,
}

impl FrameReconstructor {
    /// Creates a watcher of every turn, or of one session's turns.
    pub fn new(session: Option<Uuid>) -> Self {
        Self { session, ..Self::default() }
    }

    /// Takes the next event and returns the moments up to it that are certain by now.
    pub fn take(&mut self, recorded: &RecordedEvent) -> Vec<PlaybackMoment> {
        let before = self.state.turn.clone();
        self.state.evolve(recorded);
        let moments = match (&recorded.event, before) {
            (Event::TurnRequested(e), _) => self.requested(e, recorded),
            (Event::TurnReleased(e), _) if self.held.as_ref().is_some_and(|held| held.turn == e.turn) => {
                return self.let_go(recorded);
            }
            (event, Some(turn)) if event.turn() == Some(turn.request.turn) && self.shows(&turn) => {
                self.of_turn(&turn, recorded)
            }
            _ => vec![],
        };
        match &mut self.held {
            Some(held) if !matches!(recorded.event, Event::TurnCancelled(_)) => {
                held.moments.extend(moments);
                vec![]
            }
            _ => moments,
        }
    }

    /// Returns the moments still held back: there are no more events for now.
    pub fn rest(&mut self) -> Vec<PlaybackMoment> {
        self.held.take().map(|held| held.moments).unwrap_or_default()
    }

    /// Counts the model calls that may have looked different to the client, because the log does not hold all of their frames.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Returns the state after the taken events.
    pub fn state(&self) -> &Conversation {
        &self.state
    }

    fn shows(&self, turn: &Turn) -> bool {
        self.session.is_none_or(|session| session == turn.request.session)
    }

    fn requested(&mut self, e: &TurnRequested, recorded: &RecordedEvent) -> Vec<PlaybackMoment> {
        // A request that came too late or twice starts no turn.
        let begun = self.state.turn.as_ref().filter(|turn| turn.requested_seq == recorded.seq && self.shows(turn));
        if begun.is_none() {
            return vec![];
        }
        self.call = CallDisplay::default();
        let asked = MomentKind::Asked { name: e.user.name.clone(), message: e.message.clone() };
        let accepted = MomentKind::Frame(render::accepted(Some(&e.request_id), recorded.time));
        vec![PlaybackMoment { at: recorded.time, what: asked }, PlaybackMoment { at: recorded.time, what: accepted }]
    }

    /// Takes an event of the active turn; `turn` is the turn's state before the event.
    fn of_turn(&mut self, turn: &Turn, recorded: &RecordedEvent) -> Vec<PlaybackMoment> {
        let (request, event) = (&turn.request, &recorded.event);
        if epoch(event).is_some_and(|epoch| !turn.held_under(epoch)) {
            return vec![];
        }
        let at = recorded.time;
        let mut moments = self.said(request, event, at);
        match event {
            Event::TurnStarted(e) if e.item == turn.item => {
                let died = turn.epoch.is_some();
                self.gaps += u64::from(died && request.stream);
                if self.call.has_text {
                    self.call = CallDisplay { has_text: false, is_muted: true };
                    moments.push(frame(at, render::restarted(&request.request_id, at)));
                }
            }
            Event::TurnToolCalled(e) if request.stream => {
                // A call that waited for a person was shown with its prompt.
                let call = turn.call(&e.call).map(|call| &call.request).filter(|call| !call.waits());
                moments.extend(
                    call.map(|call| frame(at, render::tool_call(&request.request_id, &call.name, &call.arguments, at))),
                );
            }
            Event::TurnResumed(e) => moments.push(PlaybackMoment { at, what: MomentKind::Decided(e.resolution) }),
            _ => {}
        }
        let rendered = render::render(&request.request_id, request.stream, event, at);
        moments.extend(rendered.into_iter().map(|(_, bytes)| frame(at, bytes)));
        match event {
            Event::TurnCancelled(_) => self.cancelled(turn, at, moments),
            _ => moments,
        }
    }

    /// Returns the model's frames, if the event ends a model call.
    fn said(&mut self, request: &TurnRequested, event: &Event, at: DateTime<Utc>) -> Vec<PlaybackMoment> {
        let (own, preamble) = match event {
            Event::TurnModelReplied(e) => (e.text.clone(), e.preamble.as_ref()),
            Event::TurnCompleted(e) => (e.call.map(|_| e.response.text()).unwrap_or_default(), e.preamble.as_ref()),
            Event::TurnFailed(_) | Event::TurnReleased(_) => (String::new(), None),
            _ => return vec![],
        };
        let is_muted = self.call.is_muted;
        let pieces = match event.shown() {
            Some(shown) => {
                self.gaps += u64::from(shown.cut);
                shown.unpack(&own)
            }
            // An event from before frames were traced, or of a client without streaming: text and preamble stand for the
            // frames.
            None if request.stream => {
                let preamble = preamble.map(|text| TracedFrame { kind: FrameKind::Preamble, text: text.clone(), at });
                let text = Some(own).filter(|text| !text.is_empty());
                self.gaps += u64::from(text.is_some());
                let text = text.map(|text| TracedFrame { kind: FrameKind::Token, text, at });
                preamble.into_iter().chain(text).collect()
            }
            None => vec![],
        };
        match event {
            Event::TurnReleased(_) => {
                self.call.has_text |= !is_muted && pieces.iter().any(|piece| piece.kind == FrameKind::Token);
            }
            _ => self.call = CallDisplay::default(),
        }
        if is_muted || !request.stream { vec![] } else { frames(&request.request_id, &pieces) }
    }

    /// Ends a turn that a worker may still be at work on.
    fn cancelled(&mut self, turn: &Turn, at: DateTime<Utc>, mut moments: Vec<PlaybackMoment>) -> Vec<PlaybackMoment> {
        // The worker of an earlier cancelled turn has had a whole turn's time to store its frames.
        let mut before = self.rest();
        if turn.epoch.is_some() && turn.park.is_none() && turn.request.stream {
            let request = turn.request.clone();
            let is_muted = self.call.is_muted;
            self.held = Some(HeldEnding { turn: request.turn, request, cancelled_at: at, is_muted, moments });
        } else {
            before.append(&mut moments);
        }
        before
    }

    /// Takes the frames that the worker of a cancelled turn had sent.
    fn let_go(&mut self, recorded: &RecordedEvent) -> Vec<PlaybackMoment> {
        let Some(held) = self.held.take() else { return vec![] };
        let shown = recorded.event.shown().filter(|_| !held.is_muted);
        self.gaps += u64::from(shown.is_some_and(|shown| shown.cut));
        let mut pieces = shown.map(|shown| shown.unpack("")).unwrap_or_default();
        // Frames sent after the end were not shown any more.
        pieces.retain(|piece| piece.at <= held.cancelled_at);
        let mut moments = frames(&held.request.request_id, &pieces);
        moments.extend(held.moments);
        moments
    }
}

/// Returns the epoch under which a worker wrote the event.
fn epoch(event: &Event) -> Option<u64> {
    match event {
        Event::TurnReleased(e) => Some(e.epoch),
        Event::TurnModelReplied(e) => Some(e.epoch),
        Event::TurnToolCalled(e) => Some(e.epoch),
        Event::TurnToolReturned(e) => Some(e.epoch),
        Event::TurnParked(e) => Some(e.epoch),
        Event::TurnCompleted(e) => Some(e.epoch),
        Event::TurnFailed(e) => Some(e.epoch),
        Event::SessionOpened(_)
        | Event::SessionIdentified(_)
        | Event::ConversationRenamed(_)
        | Event::TurnRequested(_)
        | Event::TurnStarted(_)
        | Event::TurnResumed(_)
        | Event::TurnCancelled(_)
        | Event::Erased(_)
        | Event::Unreadable(_) => None,
    }
}

fn frames(request_id: &str, pieces: &[TracedFrame]) -> Vec<PlaybackMoment> {
    let frames = pieces.iter().map(|TracedFrame { kind: voice, text, at }| {
        let bytes = match voice {
            FrameKind::Token => render::token(request_id, text, *at),
            FrameKind::Reasoning => render::reasoning(request_id, text, *at),
            FrameKind::Preamble => render::preamble(request_id, text, *at),
        };
        frame(*at, bytes)
    });
    frames.collect()
}

fn frame(at: DateTime<Utc>, bytes: Bytes) -> PlaybackMoment {
    PlaybackMoment { at, what: MomentKind::Frame(bytes) }
}
