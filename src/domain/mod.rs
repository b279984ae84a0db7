//! The pure core: what happened to a conversation, what may happen next, and what a worker must do now.
//!
//! Invariant: nothing in this room does I/O, reads a clock, makes an id or logs. Time and new ids arrive in commands.
//!
//! - [`event`]: the catalogue of what can happen; [`answer`], [`attachment`], [`interaction`]: parts of it.
//! - [`conversation`]: `evolve(state, event)`, the fold.
//! - [`turn`]: the state of a running turn and `next_step(turn)`.
//! - [`decide`]: `decide(state, command) -> event | refusal`.

pub mod answer;
pub mod attachment;
pub mod conversation;
pub mod decide;
pub mod event;
pub mod interaction;
pub mod session;
pub mod turn;

pub use conversation::{Conversation, FinishedTurn, Message, Outcome, Recorded};
pub use decide::{Command, Refusal, decide};
pub use event::Event;
pub use turn::{Call, Step, Turn, next_step};
