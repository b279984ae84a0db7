//! The effect of erased events on the fold.

use super::{Conversation, RecordedEvent};
use crate::domain::{
    event::kind,
    turn::{Park, ToolRound},
};

impl Conversation {
    /// Applies an event with erased content to the turn that was active then.
    ///
    /// An event was appended on the state before it and nothing else, so it was valid there, and its kind tells the effect.
    /// The call, prompt or answer that it named is gone. Proofs of a visitor's identity that it may have held no longer
    /// count.
    pub(super) fn take_erased(&mut self, kind: &'static str, recorded: &RecordedEvent) {
        self.erased |= kind == kind::SESSION_OPENED;
        let Some(turn) = &mut self.turn else { return };
        match kind {
            kind::TURN_MODEL_REPLIED => {
                turn.replies.push(ToolRound { text: String::new(), calls: Vec::new(), ended: None, opaque: None });
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
