//! What may happen next: commands against the fold.
//!
//! A decision is valid only for the state that it was taken on. The log holds its writer to that: an event is appended
//! with the fold's last sequence as expected, and after a lost race the command is decided again on the new state.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    conversation::{Conversation, Outcome},
    event::{
        CancelReason, ConversationRenamed, Event, OtpPurpose, Prompt, Resolution, SessionIdentified, SessionOpened,
        TurnCancelled, TurnReleased, TurnRequested, TurnResumed, TurnStarted,
    },
    turn::{Park, Turn},
};

/// What somebody wants to happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Open a session; on a conversation that does not exist yet this starts it.
    Open(SessionOpened),
    /// Name the conversation.
    Rename { title: String, by: Option<Uuid> },
    /// Name the conversation unless it has a name.
    Entitle { title: String },
    /// Ask for a turn.
    Request(TurnRequested),
    /// Claim the work item with this sequence, over the claim that the worker found when it looked: a claim that came
    /// since is another worker's, and healthy.
    Claim { item: u64, worker: Uuid, over: Option<u64> },
    /// Record what a worker did in the turn that it holds under this epoch.
    Record { turn: Uuid, epoch: u64, event: Event },
    /// Record what the worker of a turn that was cancelled had shown.
    LetGo(TurnReleased),
    /// Decide about a pending approval; `park` is the one that the person saw.
    Confirm { park: Uuid, approved: bool, by: Uuid },
    /// Answer a pending form: with values that were checked, or by declining.
    Submit { park: Uuid, values: Option<Map<String, Value>>, by: Uuid },
    /// A session's user proved who they are.
    Identify(SessionIdentified),
    /// The deadline of a park has come.
    Expire { park: Uuid },
    /// Stop this turn.
    Cancel { turn: Uuid, by: Uuid },
    /// End the turn that waits at this park, for its visitor has sent a new message.
    Supersede { park: Uuid, by: Uuid },
    /// End this turn, which no worker takes or goes on with.
    Abandon {
        turn: Uuid,
        /// When it was seen to have gone on last: one that has gone on since has a worker.
        since: DateTime<Utc>,
    },
    /// End this turn, wherever it stands, by an operator's word.
    End { turn: Uuid },
}

/// Why a command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such conversation")]
    NoConversation,
    /// It holds an event that this program must not go on without.
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

/// The event that makes the command true, or why it can't be.
pub fn decide(state: &Conversation, command: &Command) -> Result<Event, Refusal> {
    match command {
        _ if state.read_only => Err(Refusal::ReadOnly),
        Command::Open(opened) => Ok(Event::SessionOpened(opened.clone())),
        Command::Rename { .. } | Command::Entitle { .. } if !state.exists() => Err(Refusal::NoConversation),
        Command::Rename { title, by } => renamed(title, *by),
        Command::Entitle { .. } if state.title.is_some() => Err(Refusal::AlreadyNamed),
        Command::Entitle { title } => renamed(title, None),
        Command::Request(request) => match &state.turn {
            Some(turn) if turn.request.turn == request.turn => Err(Refusal::AlreadyActive),
            _ if state.finished_turn(request.turn).is_some() => Err(Refusal::AlreadyFinished),
            Some(_) => Err(Refusal::TurnInProgress),
            None => Ok(Event::TurnRequested(request.clone())),
        },
        Command::Claim { item, worker, over } => match &state.turn {
            // A turn that was handed over has no owner, although this look saw one.
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
            Some(finished) if finished.outcome == Outcome::Cancelled => Ok(Event::TurnReleased(released.clone())),
            _ => Err(Refusal::NoTurn),
        },
        Command::Confirm { park, approved, by } => {
            let resolution = if *approved { Resolution::Approved } else { Resolution::Declined };
            resumed(state, *park, Answer { resolution, values: None, by: Some(*by) })
        }
        Command::Submit { park, values, by } => {
            let resolution = if values.is_some() { Resolution::Submitted } else { Resolution::Declined };
            resumed(state, *park, Answer { resolution, values: values.clone(), by: Some(*by) })
        }
        Command::Identify(identified) => match state.known(identified.session) {
            // A password proves the address of its own challenge and no later one.
            Some(known) if known.otp_sent && known.challenge == identified.challenge => {
                Ok(Event::SessionIdentified(identified.clone()))
            }
            // What is restored is asked for outside of turns, so the fold does not know the challenge.
            _ if identified.purpose == OtpPurpose::Restore && state.exists() => {
                Ok(Event::SessionIdentified(identified.clone()))
            }
            _ => Err(Refusal::NotPending),
        },
        Command::Expire { park } => {
            resumed(state, *park, Answer { resolution: Resolution::Expired, values: None, by: None })
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

/// The end of a turn that somebody else than its worker ends.
fn cancelled(turn: Option<&Turn>, by: Uuid, reason: Option<CancelReason>) -> Result<Event, Refusal> {
    let TurnRequested { turn, request_id, .. } = &turn.ok_or(Refusal::NoTurn)?.request;
    let (turn, request_id) = (*turn, request_id.clone());
    Ok(Event::TurnCancelled(TurnCancelled { turn, request_id, by, reason, not_after: None }))
}

fn renamed(title: &str, by: Option<Uuid>) -> Result<Event, Refusal> {
    Ok(Event::ConversationRenamed(ConversationRenamed { title: title.to_string(), by, not_after: None }))
}

/// How a wait ends.
struct Answer {
    resolution: Resolution,
    values: Option<Map<String, Value>>,
    by: Option<Uuid>,
}

fn resumed(state: &Conversation, park: Uuid, answer: Answer) -> Result<Event, Refusal> {
    let pending = state.turn.as_ref().and_then(|turn| Some((turn, turn.park.as_ref()?)));
    // Of a park whose prompt was erased the id is gone, too; its deadline still ends it.
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
