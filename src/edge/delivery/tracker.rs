//! Delivery tracking: the frames of watched turns that a connection has been shown.
//!
//! Contract: of a turn's frames, those of an older epoch and those already shown are dropped, the rest come in order, a
//! missing frame is noticed, and the terminal frame is shown once. When a worker takes over and asks the model again, a client
//! that has seen text of that model call gets a marker; then a client of the resume extension gets the text anew, a standard
//! client none of it, for the final answer holds it all.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    limits,
    live::hub::LiveFrame,
    subjects::ConversationKey,
    wire::live::{FrameMark, LiveKind, ResumeCursor},
};

/// Ended turns that a connection remembers, so that their late frames open nothing.
const ENDED_MAX: usize = 64;

/// The decision about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameVerdict {
    Show,
    Drop,
    /// Frames before this one are missing.
    Gap,
}

/// The delivery cursor of one turn on one connection.
#[derive(Debug)]
pub struct TurnCursor {
    pub key: ConversationKey,
    pub request_id: String,
    epoch: u64,
    next_n: u64,
    /// The model call of the text being shown, the bytes shown of it, and their epoch.
    call: u32,
    shown: u64,
    text_epoch: u64,
    /// The amount of the turn's tool activity shown.
    chunks: u64,
    /// The model call with text that is no longer shown.
    muted_call: Option<u32>,
    /// True if frames may be lost before the next one, so that the log may have more than was shown.
    behind: bool,
    /// The epoch under which the turn parked when its prompt was last shown.
    pub prompted: Option<u64>,
    /// True if the turn was requested on this connection, so that its client can place the frames.
    asked_here: bool,
    pub heard_at: Instant,
    pub sent_at: Instant,
}

struct WatchedConversation {
    key: ConversationKey,
    /// True to show every turn of the conversation, not only those requested on this connection.
    all: bool,
}

/// The delivery tracker of a connection, over all its turns.
#[derive(Default)]
pub struct DeliveryTracker {
    turns: HashMap<Uuid, TurnCursor>,
    conversations: HashMap<Uuid, WatchedConversation>,
    ended: VecDeque<Uuid>,
    /// True if the client speaks the resume extension, so that a second run's text may be shown to it.
    pub resumes: bool,
}

impl DeliveryTracker {
    pub fn new(resumes: bool) -> Self {
        Self { resumes, ..Self::default() }
    }

    /// Watches a conversation; with `all`, every turn of it.
    pub fn watch(&mut self, key: &ConversationKey, all: bool) {
        let watched =
            self.conversations.entry(key.conversation).or_insert(WatchedConversation { key: key.clone(), all });
        watched.all |= all;
    }

    /// Returns true if one more conversation may be watched, or this one is watched already.
    pub fn may_watch(&self, conversation: Uuid) -> bool {
        self.conversations.len() < limits::CONNECTION_WATCHED || self.conversations.contains_key(&conversation)
    }

    /// Opens a turn, unless it is open or has ended.
    pub fn open(&mut self, key: &ConversationKey, turn: Uuid, request_id: &str, epoch: Option<u64>) {
        if self.ended.contains(&turn) {
            return;
        }
        let now = Instant::now();
        self.turns.entry(turn).or_insert_with(|| TurnCursor {
            key: key.clone(),
            request_id: request_id.to_string(),
            epoch: epoch.unwrap_or(0),
            next_n: 0,
            call: 0,
            shown: 0,
            text_epoch: 0,
            chunks: 0,
            muted_call: None,
            behind: false,
            prompted: None,
            asked_here: false,
            heard_at: now,
            sent_at: now,
        });
    }

    /// Opens a turn that the client has seen up to a cursor.
    pub fn open_at(&mut self, key: &ConversationKey, request_id: &str, cursor: ResumeCursor) {
        self.ended.retain(|turn| *turn != cursor.turn);
        self.open(key, cursor.turn, request_id, Some(cursor.epoch));
        if let Some(view) = self.turns.get_mut(&cursor.turn) {
            view.epoch = cursor.epoch;
            view.next_n = cursor.next_n;
            view.call = cursor.call;
            view.shown = cursor.shown;
            view.text_epoch = cursor.text_epoch;
            view.chunks = cursor.chunks;
        }
    }

    pub fn get_mut(&mut self, turn: Uuid) -> Option<&mut TurnCursor> {
        self.turns.get_mut(&turn)
    }

    /// Records that the client has requested a turn on this connection.
    pub fn asked_here(&mut self, turn: Uuid) {
        if let Some(view) = self.turns.get_mut(&turn) {
            view.asked_here = true;
        }
    }

    /// Returns true if the turn is open and was requested on this connection.
    pub fn was_asked_here(&self, turn: Uuid) -> bool {
        self.turns.get(&turn).is_some_and(|view| view.asked_here)
    }

    pub fn is_open(&self, turn: Uuid) -> bool {
        self.turns.contains_key(&turn)
    }

    /// Returns true if the connection watches every turn of a conversation.
    pub fn watches_all(&self, conversation: Uuid) -> bool {
        self.conversations.get(&conversation).is_some_and(|watched| watched.all)
    }

    /// Returns true for the first frame of a turn that began elsewhere.
    pub fn is_strange(&self, frame: &LiveFrame) -> bool {
        !self.turns.contains_key(&frame.mark.turn)
            && !self.ended.contains(&frame.mark.turn)
            && self.watches_all(frame.conversation)
    }

    /// Stops watching a conversation. Returns its open turns, with the ids of their requests.
    pub fn forget(&mut self, conversation: Uuid) -> Vec<(Uuid, String)> {
        self.conversations.remove(&conversation);
        let of_it = |view: &TurnCursor| view.key.conversation == conversation;
        let open = self.turns.extract_if(|_, view| of_it(view)).map(|(turn, view)| (turn, view.request_id));
        let open: Vec<_> = open.collect();
        open.iter().for_each(|(turn, _)| self.remember_ended(*turn));
        open
    }

    /// Returns true if the turn was shown to its end here.
    pub fn has_ended(&self, turn: Uuid) -> bool {
        self.ended.contains(&turn)
    }

    /// Returns true if no turn is open.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// Returns the open turns from which nothing came for `silence`.
    pub fn silent(&self, silence: Duration) -> Vec<Uuid> {
        self.turns.iter().filter(|(_, view)| view.heard_at.elapsed() >= silence).map(|(turn, _)| *turn).collect()
    }

    pub fn watched(&self) -> impl Iterator<Item = Uuid> {
        self.conversations.keys().copied()
    }

    /// Closes a turn without an end. Returns its conversation if nothing else of it is watched.
    pub fn close(&mut self, turn: Uuid) -> Option<Uuid> {
        let conversation = self.turns.remove(&turn)?.key.conversation;
        let others = self.turns.values().any(|view| view.key.conversation == conversation);
        if others || self.watches_all(conversation) {
            return None;
        }
        self.conversations.remove(&conversation);
        Some(conversation)
    }

    /// Closes a turn after its terminal frame was shown. Returns its conversation if nothing else of it is watched.
    pub fn end(&mut self, turn: Uuid) -> Option<Uuid> {
        self.remember_ended(turn);
        self.close(turn)
    }

    fn remember_ended(&mut self, turn: Uuid) {
        self.ended.push_back(turn);
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }

    /// Returns the key of a watched conversation.
    pub fn key(&self, conversation: Uuid) -> Option<&ConversationKey> {
        self.conversations.get(&conversation).map(|watched| &watched.key)
    }

    /// Judges a frame, and counts the frame as shown when the verdict is to show or drop it.
    pub fn judge(&mut self, frame: &LiveFrame) -> FrameVerdict {
        let mark = frame.mark;
        if self.ended.contains(&mark.turn) || mark.kind == LiveKind::Owner {
            return FrameVerdict::Drop;
        }
        if !self.turns.contains_key(&mark.turn) {
            match self.conversations.get(&frame.conversation) {
                // A turn that began elsewhere; its requestId is in its frames, which need not be parsed.
                Some(watched) if watched.all => {
                    let key = watched.key.clone();
                    self.open(&key, mark.turn, "", None);
                }
                _ => return FrameVerdict::Drop,
            }
        }
        let resumes = self.resumes;
        self.turns.get_mut(&mark.turn).map_or(FrameVerdict::Drop, |view| view.judge(mark, resumes))
    }

    /// Returns true if frames in the log may be missing before this one: a client that resumes is owed them.
    pub fn owes_something(&self, frame: &LiveFrame) -> bool {
        self.resumes && self.turns.get(&frame.mark.turn).is_some_and(|view| view.owes_something(frame.mark))
    }

    /// Goes on with a frame although frames before it are lost.
    ///
    /// Text of its model call is no longer shown, unless the text begins with this frame.
    pub fn skip_to(&mut self, mark: FrameMark) {
        if let Some(view) = self.turns.get_mut(&mark.turn) {
            let begins = mark.kind == LiveKind::Token && mark.offset == 0 && mark.call > view.call;
            view.epoch = mark.epoch;
            view.next_n = mark.n;
            view.muted_call = (!begins).then_some(mark.call);
            view.behind = true;
        }
    }
}

impl TurnCursor {
    /// Returns the position up to which the turn has been shown.
    pub fn cursor(&self, turn: Uuid) -> ResumeCursor {
        let TurnCursor { epoch, next_n, call, shown, text_epoch, chunks, .. } = *self;
        ResumeCursor { turn, epoch, next_n, call, shown, text_epoch, chunks }
    }

    /// Voids the shown text of a model call if it is of another run than this one. Returns true if it was.
    pub fn void_text(&mut self, call: u32, epoch: u64) -> bool {
        let void = call == self.call && self.shown > 0 && self.text_epoch != epoch;
        if void {
            self.shown = 0;
        }
        void
    }

    /// Takes the whole text of a finished model call, from the log. Returns the part that was not shown yet.
    pub fn take_text<'a>(&mut self, call: u32, epoch: u64, text: &'a str) -> &'a str {
        if call < self.call {
            return "";
        }
        let from = if call == self.call { usize::try_from(self.shown).unwrap_or(usize::MAX) } else { 0 };
        self.muted_call = self.muted_call.filter(|muted| *muted > call);
        (self.call, self.shown, self.text_epoch) = (call, text.len() as u64, epoch);
        text.get(from..).unwrap_or_default()
    }

    /// Takes tool activity, from the log or as a frame. Returns true if it was not shown yet.
    pub fn take_chunk(&mut self, n: u64) -> bool {
        let new = n >= self.chunks;
        self.chunks = self.chunks.max(n + 1);
        new
    }

    /// Records whether the log may have more of the turn than was taken.
    pub fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// Returns true if frames in the log may be missing before this one, which comes next.
    fn owes_something(&self, mark: FrameMark) -> bool {
        let outside = mark.epoch == u64::MAX;
        let newer = mark.epoch > self.epoch;
        if !outside && mark.n != if newer { 0 } else { self.next_n } {
            return false;
        }
        let of_muted = mark.kind.is_of_call() && self.muted_call == Some(mark.call);
        // The last frames of an earlier epoch can be lost without a gap in the numbers, or all of its frames: then this frame
        // is the first one that comes, and does not begin the turn.
        let begins = (mark.kind.is_of_call() || mark.kind == LiveKind::Restart) && mark.call == 0;
        let after_takeover = newer && (self.epoch > 0 || !begins);
        !of_muted && (self.behind || self.muted_call.is_some() || after_takeover)
    }

    /// Returns true if this text was already shown from the log.
    fn has_shown(&self, mark: FrameMark) -> bool {
        let same_run = mark.call == self.call && mark.epoch == self.text_epoch;
        mark.call < self.call || (same_run && mark.offset < self.shown)
    }

    fn judge(&mut self, mark: FrameMark, resumes: bool) -> FrameVerdict {
        self.heard_at = Instant::now();
        // Published from outside the epoch, by the process that stored the terminal event.
        if mark.epoch == u64::MAX {
            return FrameVerdict::Show;
        }
        if mark.epoch < self.epoch || (mark.epoch == self.epoch && mark.n < self.next_n) {
            return FrameVerdict::Drop;
        }
        let expected = if mark.epoch > self.epoch { 0 } else { self.next_n };
        if mark.n > expected {
            return FrameVerdict::Gap;
        }
        self.epoch = mark.epoch;
        self.next_n = mark.n + 1;
        match mark.kind {
            LiveKind::Restart if self.call == mark.call && self.shown > 0 => {
                self.shown = 0;
                self.muted_call = (!resumes).then_some(mark.call);
                FrameVerdict::Show
            }
            LiveKind::Restart => {
                self.muted_call = self.muted_call.filter(|_| !resumes);
                FrameVerdict::Drop
            }
            kind if kind.is_of_call() && self.muted_call == Some(mark.call) => FrameVerdict::Drop,
            LiveKind::Token if self.has_shown(mark) => FrameVerdict::Drop,
            LiveKind::Token => {
                self.call = mark.call;
                self.shown = mark.offset + mark.length;
                self.text_epoch = mark.epoch;
                FrameVerdict::Show
            }
            LiveKind::Reasoning | LiveKind::Preamble => FrameVerdict::Show,
            // Shown from the log already.
            LiveKind::Prompt if self.prompted == Some(mark.epoch) => FrameVerdict::Drop,
            LiveKind::Prompt => {
                self.prompted = Some(mark.epoch);
                FrameVerdict::Show
            }
            LiveKind::Chunk | LiveKind::Notice if !self.take_chunk(mark.chunks) => FrameVerdict::Drop,
            LiveKind::Chunk | LiveKind::Notice | LiveKind::Terminal => FrameVerdict::Show,
            LiveKind::Owner => FrameVerdict::Drop,
        }
    }
}

#[cfg(test)]
mod tests;
