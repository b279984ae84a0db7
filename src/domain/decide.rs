//! Decides commands against the fold.
//!
//! A decision is valid only for the state that it was taken on. The log enforces this: an event is appended with the fold's
//! last sequence as expected, and after a lost race the command is decided again on the new state.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    conversation::{Conversation, TurnOutcome},
    event::{
        CancelReason, ConversationRenamed, Event, OtpPurpose, Prompt, Resolution, SessionIdentified, SessionOpened,
        TurnCancelled, TurnReleased, TurnRequested, TurnResumed, TurnStarted,
    },
    turn::{Park, Turn},
};

/// A request to change a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Open a session; the first session of a conversation also starts it.
    Open(SessionOpened),
    /// Set the title, over any earlier one.
    Rename { title: String, by: Option<Uuid> },
    /// Name the conversation unless it has a title.
    SetTitle { title: String },
    /// Request a turn.
    Request(TurnRequested),
    /// Claim the work item with this sequence.
    ///
    /// `over` is the claim that the worker saw; a claim made since belongs to another, healthy worker.
    Claim { item: u64, worker: Uuid, over: Option<u64> },
    /// Record an event of the worker that holds the turn under this epoch.
    Record { turn: Uuid, epoch: u64, event: Event },
    /// Record how far the worker of a cancelled turn had shown its model call.
    LetGo(TurnReleased),
    /// Decide a pending approval; `park` is the prompt that the person saw.
    Confirm { park: Uuid, approved: bool, by: Uuid },
    /// Answer a pending form: with checked values, or by declining (`None`).
    Submit { park: Uuid, values: Option<Map<String, Value>>, by: Uuid },
    /// Record that a session's user proved their identity.
    Identify(SessionIdentified),
    /// Record that the deadline of a park has passed.
    Expire { park: Uuid },
    /// End this turn at its user's request.
    Cancel { turn: Uuid, by: Uuid },
    /// End the turn that waits at this park, because its visitor sent a new message.
    Supersede { park: Uuid, by: Uuid },
    /// End this turn, which no worker claims or continues.
    Abandon {
        turn: Uuid,
        /// `progress_at` of the turn when it was found stalled; progress since then means that a worker has it.
        since: DateTime<Utc>,
    },
    /// End this turn in any state, at an operator's request.
    End { turn: Uuid },
}

/// The reason why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such conversation")]
    NoConversation,
    /// The chain holds a critical event that this program does not know.
    #[error("the conversation is read-only: a newer program has written something that this one does not know")]
    ReadOnly,
    #[error("the conversation has a name")]
    AlreadyNamed,
    #[error("another turn is active")]
    TurnInProgress,
    #[error("this request was already accepted and its turn is active")]
    AlreadyActive,
    #[error("this request was already accepted and its turn has ended")]
    AlreadyFinished,
    #[error("nothing waits for this decision")]
    NotPending,
    #[error("that turn is not active")]
    NoTurn,
    /// The work item was superseded, or the turn has a new owner, is parked or over.
    #[error("the turn is no longer this worker's")]
    Superseded,
}

/// Returns the event that carries out the command, or the reason for its refusal.
pub fn decide(state: &Conversation, command: &Command) -> Result<Event, Refusal> {
    match command {
        _ if state.read_only => Err(Refusal::ReadOnly),
        Command::Open(opened) => Ok(Event::SessionOpened(opened.clone())),
        Command::Rename { .. } | Command::SetTitle { .. } if !state.exists() => Err(Refusal::NoConversation),
        Command::Rename { title, by } => renamed(title, *by),
        Command::SetTitle { .. } if state.title.is_some() => Err(Refusal::AlreadyNamed),
        Command::SetTitle { title } => renamed(title, None),
        Command::Request(request) => match &state.turn {
            Some(turn) if turn.request.turn == request.turn => Err(Refusal::AlreadyActive),
            _ if state.finished_turn(request.turn).is_some() => Err(Refusal::AlreadyFinished),
            Some(_) => Err(Refusal::TurnInProgress),
            None => Ok(Event::TurnRequested(request.clone())),
        },
        Command::Claim { item, worker, over } => match &state.turn {
            // A released turn has no owner, although the worker saw one when it looked.
            Some(turn)
                if turn.item == *item && turn.park.is_none() && (turn.epoch.is_none() || turn.epoch == *over) =>
            {
                Ok(Event::TurnStarted(TurnStarted { turn: turn.request.turn, worker: *worker, item: *item }))
            }
            _ => Err(Refusal::Superseded),
        },
        Command::Record { turn, epoch, event } => match &state.turn {
            Some(active) if active.request.turn == *turn && active.held_under(*epoch) => Ok(event.clone()),
            _ => Err(Refusal::Superseded),
        },
        Command::LetGo(released) => match state.finished_turn(released.turn) {
            Some(finished) if finished.outcome == TurnOutcome::Cancelled => Ok(Event::TurnReleased(released.clone())),
            _ => Err(Refusal::NoTurn),
        },
        Command::Confirm { park, approved, by } => {
            let resolution = if *approved { Resolution::Approved } else { Resolution::Declined };
            resumed(state, *park, WaitEnd { resolution, values: None, by: Some(*by) })
        }
        Command::Submit { park, values, by } => {
            let resolution = if values.is_some() { Resolution::Submitted } else { Resolution::Declined };
            resumed(state, *park, WaitEnd { resolution, values: values.clone(), by: Some(*by) })
        }
        Command::Identify(identified) => match state.known(identified.session) {
            // A password proves the address of its own challenge and no later one.
            Some(known) if known.otp_sent && known.challenge == identified.challenge => {
                Ok(Event::SessionIdentified(identified.clone()))
            }
            // Restore challenges are asked for outside of turns, so the fold does not know them.
            _ if identified.purpose == OtpPurpose::Restore && state.exists() => {
                Ok(Event::SessionIdentified(identified.clone()))
            }
            _ => Err(Refusal::NotPending),
        },
        Command::Expire { park } => {
            resumed(state, *park, WaitEnd { resolution: Resolution::Expired, values: None, by: None })
        }
        Command::Cancel { turn, by } => cancelled(state.active(*turn), *by, None),
        Command::Supersede { park, by } => {
            let is_it = |pending: &Park| pending.id == *park && pending.prompt.is_for_a_person();
            let waits = |turn: &&Turn| turn.park.as_ref().is_some_and(is_it);
            cancelled(state.turn.as_ref().filter(waits), *by, Some(CancelReason::Superseded))
        }
        Command::Abandon { turn, since } => {
            let abandoned = state.active(*turn).filter(|turn| turn.park.is_none() && turn.progress_at == *since);
            cancelled(abandoned, Uuid::nil(), Some(CancelReason::NoWorker))
        }
        Command::End { turn } => cancelled(state.active(*turn), Uuid::nil(), Some(CancelReason::Operator)),
    }
}

/// Builds the end of a turn by a user, an edge or an operator rather than the turn's worker.
fn cancelled(turn: Option<&Turn>, by: Uuid, reason: Option<CancelReason>) -> Result<Event, Refusal> {
    let TurnRequested { turn, request_id, .. } = &turn.ok_or(Refusal::NoTurn)?.request;
    let (turn, request_id) = (*turn, request_id.clone());
    Ok(Event::TurnCancelled(TurnCancelled { turn, request_id, by, reason, not_after: None }))
}

fn renamed(title: &str, by: Option<Uuid>) -> Result<Event, Refusal> {
    Ok(Event::ConversationRenamed(ConversationRenamed { title: title.to_string(), by, not_after: None }))
}

/// The resolution of a wait, with its values and its session.
struct WaitEnd {
    resolution: Resolution,
    values: Option<Map<String, Value>>,
    by: Option<Uuid>,
}

fn resumed(state: &Conversation, park: Uuid, answer: WaitEnd) -> Result<Event, Refusal> {
    let pending = state.turn.as_ref().and_then(|turn| Some((turn, turn.park.as_ref()?)));
    // A park with an erased prompt has lost its id; its deadline still ends it.
    let is_it =
        |pending: &Park| pending.id == park || (pending.id.is_nil() && answer.resolution == Resolution::Expired);
    let (turn, pending) = pending.filter(|(_, pending)| is_it(pending)).ok_or(Refusal::NotPending)?;
    let fits = match (&pending.prompt, answer.resolution) {
        (Prompt::Task { .. }, resolution) => resolution == Resolution::Expired,
        (_, Resolution::Expired | Resolution::Declined) => true,
        (Prompt::Approval { .. }, resolution) => resolution == Resolution::Approved,
        (Prompt::Interaction { .. } | Prompt::Elicitation { .. }, resolution) => resolution == Resolution::Submitted,
    };
    if !fits {
        return Err(Refusal::NotPending);
    }
    Ok(Event::TurnResumed(TurnResumed {
        turn: turn.request.turn,
        park: pending.id,
        resolution: answer.resolution,
        values: answer.values,
        by: answer.by,
        pool: turn.request.pool.clone(),
        not_after: None,
    }))
}
