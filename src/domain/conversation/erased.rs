//! What an event means to the fold whose content was erased.

use super::{Conversation, Recorded};
use crate::domain::{
    event::kind,
    turn::{Park, Reply},
};

impl Conversation {
    /// Takes an event whose content was erased: what it meant for the turn that was active then.
    ///
    /// An event was appended on the state before it and nothing else, so it was valid there, and the kind tells what it did;
    /// which call, prompt or answer it was is gone. What it may have proved of a visitor counts no more.
    pub(super) fn take_erased(&mut self, kind: &'static str, recorded: &Recorded) {
        self.erased |= kind == kind::SESSION_OPENED;
        let Some(turn) = &mut self.turn else { return };
        match kind {
            kind::TURN_MODEL_REPLIED => {
                turn.replies.push(Reply { text: String::new(), calls: Vec::new(), ended: None, opaque: None });
            }
            kind::TURN_PARKED => {
                turn.park = turn.epoch.map(|_| Park::erased(recorded.time));
                return;
            }
            kind::TURN_TOOL_CALLED => {
                turn.progress_at = recorded.time;
                return;
            }
            kind::TURN_RESUMED => {
                turn.park = None;
                turn.item = recorded.seq;
                turn.epoch = None;
            }
            kind::TURN_TOOL_RETURNED => {}
            _ => return,
        }
        turn.progress_at = recorded.time;
        turn.claims = 0;
        let session = turn.request.session;
        if let Some(known) = self.known_mut(session) {
            (known.otp_sent, known.challenge, known.verified) = (false, None, false);
        }
    }
}
