//! The frame traces of events.

use super::{super::frame_trace::FrameTrace, Event};

impl Event {
    /// Returns the trace of the model call that this event ends.
    pub fn shown(&self) -> Option<&FrameTrace> {
        match self {
            Event::TurnModelReplied(e) => e.shown.as_ref(),
            Event::TurnReleased(e) => e.shown.as_ref(),
            Event::TurnCompleted(e) => e.shown.as_ref(),
            Event::TurnFailed(e) => e.shown.as_ref(),
            _ => None,
        }
    }

    /// Empties the trace. False: there was nothing to empty.
    pub fn empty_shown(&mut self) -> bool {
        let shown = match self {
            Event::TurnModelReplied(e) => &mut e.shown,
            Event::TurnReleased(e) => &mut e.shown,
            Event::TurnCompleted(e) => &mut e.shown,
            Event::TurnFailed(e) => &mut e.shown,
            _ => return false,
        };
        let emptied = shown.as_ref().map(FrameTrace::emptied).filter(|emptied| Some(emptied) != shown.as_ref());
        let is_less = emptied.is_some();
        *shown = emptied.or(shown.take());
        is_less
    }
}
