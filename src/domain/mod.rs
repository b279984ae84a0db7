//! The pure core: events, the fold, decisions, and the worker's next step.
//!
//! Invariant: nothing in this room does I/O, reads a clock, makes an id or logs. Time and new ids arrive in commands.
//!
//! - [`event`]: the event catalogue; [`answer`], [`interaction`], [`request`], [`session`]: parts of it.
//! - [`conversation`]: `evolve(state, event)`, the fold.
//! - [`digest`]: the digests that chain stored events.
//! - [`title`]: titles of conversations.
//! - [`frame_trace`]: the record of the frames of a model call.
//! - [`turn`]: the state of a running turn and `next_step(turn)`.
//! - [`decide`]: `decide(state, command) -> event | refusal`.

pub mod answer;
pub mod conversation;
pub mod decide;
pub mod digest;
pub mod elicitation;
pub mod elicited_form;
pub mod event;
pub mod field;
pub mod frame_trace;
pub mod interaction;
pub mod request;
pub mod session;
pub mod title;
pub mod turn;

pub use conversation::{Conversation, FinishedTurn, Message, RecordedEvent, TurnOutcome};
pub use decide::{Command, Refusal, decide};
pub use digest::Digest;
pub use event::Event;
pub use turn::{CallState, NextStep, Turn, next_step};
