//! The pure core: what happened to a conversation, what may happen next, and what a worker must do now.
//!
//! Invariant: nothing in this room does I/O, reads a clock, makes an id or logs. Time and new ids arrive in commands.
//!
//! - [`event`]: the catalogue of what can happen; [`answer`], [`interaction`], [`request`], [`session`]: parts of it.
//! - [`conversation`]: `evolve(state, event)`, the fold.
//! - [`elicitation`]: questions of a tool in the middle of its call; [`elicited_form`]: the forms that they become.
//! - [`digest`]: what chains stored events.   - [`title`]: what a conversation is called.
//! - [`shown`]: how a model call was shown.
//! - [`turn`]: the state of a running turn and `next_step(turn)`.
//! - [`decide`]: `decide(state, command) -> event | refusal`.

pub mod answer;
pub mod conversation;
pub mod decide;
pub mod digest;
pub mod elicitation;
pub mod elicited_form;
pub mod event;
pub mod interaction;
pub mod request;
pub mod session;
pub mod shown;
pub mod title;
pub mod turn;

pub use conversation::{Conversation, FinishedTurn, Message, Outcome, Recorded};
pub use decide::{Command, Refusal, decide};
pub use digest::Digest;
pub use event::Event;
pub use turn::{Call, Step, Turn, next_step};
