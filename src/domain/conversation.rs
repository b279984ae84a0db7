//! The fold of a conversation: the state that its events add up to.
//!
//! Invariants: `last_seq` only grows; at most one turn is active; nothing of a turn changes after its terminal event. The
//! fold is bounded: recent messages are kept with their text, older ones by their stream sequence only.

mod erased;
mod steps;

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use self::steps::{park, reply, resume, tool_called, tool_returned};
use super::{
    digest::Digest,
    elicitation::WaitingCall,
    event::{
        EmailProof, Event, OtpPurpose, Participant, Prompt, Response, SessionIdentified, SessionOpened, StepJudged,
        ToolReturned, TurnRequested, TurnResumed, UnreadableCause,
    },
    field,
    interaction::{Contact, Form},
    session::SessionFacts,
    title,
    turn::Turn,
};
use crate::limits;

/// A decoded event with its place in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    pub seq: u64,
    /// The time at which the event's writer made it.
    pub time: DateTime<Utc>,
    /// The time at which the stream stored it.
    pub stored_at: DateTime<Utc>,
    /// SHA-256 of the event as stored.
    pub digest: Digest,
    pub event: Event,
}

/// The state of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Sequence of the last event; 0 = the conversation does not exist.
    pub last_seq: u64,
    /// Digest of the last event, which the next one carries.
    pub last_digest: Digest,
    /// The content was erased: the conversation can be neither read nor continued.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
    /// The chain holds a critical event that this program does not know: the conversation can be read, not appended to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// E-mail address of the first user who proved one, trimmed and in lower case; that user owns the conversation.
    pub owner: Option<String>,
    /// The agent of the session that was opened last.
    pub agent_id: Option<String>,
    /// The title given by a user or a model.
    pub title: Option<String>,
    /// The beginning of the first user message that has words: the title until one is given.
    pub opening: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    /// Time of the last message.
    pub updated_at: Option<DateTime<Utc>>,
    /// Number of all messages, older ones included.
    pub message_count: u64,
    /// Rendering capabilities that the conversation's client declared last.
    pub supports: Vec<String>,
    /// The newest sessions with known facts beyond their opening, oldest first.
    pub sessions: VecDeque<SessionFacts>,
    /// The form that the model asks for in words, until the visitor answers.
    pub asked: Option<Form>,
    /// The call that goes on when that form is answered, if a tool's server asks with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Box<WaitingCall>>,
    /// Where the conversation is in the agent's workflow.
    pub workflow: Workflow,
    /// The newest messages, oldest first.
    pub messages: VecDeque<Message>,
    /// Sequences of the events that hold the messages before `messages`, oldest first.
    pub older: VecDeque<u64>,
    pub turn: Option<Turn>,
    /// Turns that ended, oldest first.
    pub finished: VecDeque<FinishedTurn>,
}

/// A conversation's position in its agent's workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// The current step; `None` before the first was judged, and after the last.
    pub step: Option<String>,
    /// Answers under this step that did not finish it.
    pub attempts: u32,
    pub finished: bool,
}

/// A message of the conversation's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Sequence of the event that holds the message.
    pub seq: u64,
    pub id: Uuid,
    pub body: MessageBody,
    pub from: Participant,
    pub to: Participant,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MessageBody {
    User(String),
    Agent(Response),
}

impl Message {
    /// Returns the message as one text.
    pub fn text(&self) -> String {
        match &self.body {
            MessageBody::User(text) => text.clone(),
            MessageBody::Agent(response) => response.text(),
        }
    }

    /// Returns the message that an event holds, if the event holds one.
    pub fn of(recorded: &RecordedEvent) -> Option<Self> {
        let (id, body, from, to) = match &recorded.event {
            Event::TurnRequested(e) => (e.message_id, MessageBody::User(e.message.clone()), &e.user, &e.agent),
            Event::TurnCompleted(e) => (e.message_id, MessageBody::Agent(e.response.clone()), &e.agent, &e.user),
            _ => return None,
        };
        Some(Self { seq: recorded.seq, id, body, from: from.clone(), to: to.clone(), at: recorded.time })
    }

    fn size(&self) -> usize {
        match &self.body {
            MessageBody::User(text) => text.len(),
            MessageBody::Agent(response) => response.response_parts.iter().map(String::len).sum(),
        }
    }
}

/// A turn that ended, kept so that a late retry of its request is recognised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedTurn {
    pub id: Uuid,
    pub request_id: String,
    /// The session that requested the turn.
    pub session: Uuid,
    /// Sequences of the request and of the terminal event.
    pub requested_seq: u64,
    pub terminal_seq: u64,
    pub outcome: TurnOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TurnOutcome {
    Completed,
    Failed,
    Cancelled,
}

impl Conversation {
    /// Returns whether the conversation has been started, and not erased.
    pub fn exists(&self) -> bool {
        self.created_at.is_some() && !self.erased
    }

    /// Returns the title, else the opening, else "Untitled".
    pub fn shown_title(&self) -> &str {
        self.title.as_deref().or(self.opening.as_deref()).unwrap_or(title::UNTITLED)
    }

    /// Estimates the memory of the state, for caches bounded in bytes.
    pub fn memory_bytes(&self) -> usize {
        const FIXED_BYTES: usize = 1_024;
        let messages: usize = self.messages.iter().map(|message| size_of::<Message>() + message.size()).sum();
        let turn = self.turn.as_ref().map_or(0, |turn| size_of::<Turn>() + turn.text_bytes());
        let finished = self.finished.len() * size_of::<FinishedTurn>();
        FIXED_BYTES + messages + turn + finished + self.older.len() * size_of::<u64>()
    }

    /// Returns the turn with this id while the turn is active.
    pub fn active(&self, id: Uuid) -> Option<&Turn> {
        self.turn.as_ref().filter(|turn| turn.request.turn == id)
    }

    /// Returns the finished turn with this id, if the turn is recent.
    pub fn finished_turn(&self, id: Uuid) -> Option<&FinishedTurn> {
        self.finished.iter().rev().find(|turn| turn.id == id)
    }

    /// Folds an event into the state.
    ///
    /// Total: an event that does not fit changes only `last_seq` and `last_digest`.
    pub fn evolve(&mut self, recorded: &RecordedEvent) {
        assert!(recorded.seq > self.last_seq, "events are folded in the order of their chain");
        self.last_seq = recorded.seq;
        self.last_digest = recorded.digest;
        if recorded.event.is_void_at(recorded.stored_at) {
            return;
        }
        match &recorded.event {
            Event::SessionOpened(e) => {
                self.created_at.get_or_insert(recorded.time);
                if let Some(supports) = &e.supports {
                    self.supports = supports.clone();
                }
                self.open_session(e);
            }
            Event::SessionIdentified(e) => {
                self.identify(e);
            }
            Event::ConversationRenamed(e) => self.title = Some(e.title.clone()),
            Event::TurnRequested(e) => self.request(e, recorded),
            Event::TurnStarted(e) => self.on_turn(e.turn, |turn| {
                if turn.item == e.item && turn.park.is_none() {
                    turn.epoch = Some(recorded.seq);
                    turn.claims += 1;
                }
            }),
            Event::TurnReleased(e) => self.on_held_turn(e.turn, e.epoch, |turn| {
                turn.epoch = None;
                // A step forward since the claim has already reset the count.
                turn.claims = turn.claims.saturating_sub(1);
            }),
            Event::TurnModelReplied(e) if self.is_held(e.turn, e.epoch) => {
                let in_words = e.calls.iter().filter_map(|call| call.ask.as_ref()).rfind(|ask| !ask.parks);
                if let Some(ask) = in_words {
                    (self.asked, self.waiting) = (Some(ask.form.clone()), None);
                }
                self.on_turn(e.turn, |turn| reply(turn, e, recorded.time));
            }
            Event::TurnModelReplied(_) => {}
            Event::TurnToolCalled(e) => {
                self.on_held_turn(e.turn, e.epoch, |turn| tool_called(turn, e, recorded.time));
            }
            Event::TurnToolReturned(e) if self.is_held(e.turn, e.epoch) => {
                self.learn_from_tool(e);
                self.on_turn(e.turn, |turn| tool_returned(turn, e, recorded.time));
            }
            Event::TurnToolReturned(_) => {}
            Event::TurnParked(e) => self.on_held_turn(e.turn, e.epoch, |turn| park(turn, e)),
            Event::TurnResumed(e) => {
                self.learn_from_form(e);
                self.on_turn(e.turn, |turn| resume(turn, e, recorded));
            }
            Event::TurnCompleted(e) if self.is_held(e.turn, e.epoch) => {
                if let Some(judged) = &e.workflow {
                    self.workflow.judge(judged);
                }
                self.keep_message(recorded);
                self.finish(e.turn, recorded.seq, TurnOutcome::Completed);
            }
            Event::TurnFailed(e) if self.is_held(e.turn, e.epoch) => {
                self.finish(e.turn, recorded.seq, TurnOutcome::Failed);
            }
            Event::TurnCompleted(_) | Event::TurnFailed(_) => {}
            Event::TurnCancelled(e) => self.finish(e.turn, recorded.seq, TurnOutcome::Cancelled),
            Event::Erased(kind) => self.take_erased(kind, recorded),
            Event::Unreadable(e) => self.read_only |= e.cause == UnreadableCause::Critical,
        }
    }

    fn request(&mut self, e: &TurnRequested, recorded: &RecordedEvent) {
        if self.turn.is_some() || self.finished_turn(e.turn).is_some() {
            return;
        }
        self.turn = Some(Turn {
            request: e.clone(),
            requested_seq: recorded.seq,
            requested_at: recorded.time,
            progress_at: recorded.time,
            item: recorded.seq,
            epoch: None,
            claims: 0,
            replies: Vec::new(),
            usage: None,
            citations: Vec::new(),
            park: None,
        });
        self.keep_message(recorded);
    }

    fn open_session(&mut self, e: &SessionOpened) {
        self.agent_id = Some(e.agent_id.clone());
        let email = e.user_email.as_deref().map(str::trim).filter(|email| !email.is_empty());
        let Some(email) = email else { return };
        let is_proved = matches!(e.email_proof, Some(EmailProof::Token | EmailProof::Context | EmailProof::Challenge));
        let known = self.know(e.session);
        // An invalid address reaches no mailbox, so it is not passed on.
        known.contact.email = field::email(email);
        // A token is presented again on every connection; the other proofs count for this session alone.
        if matches!(e.email_proof, Some(EmailProof::Context | EmailProof::Challenge)) {
            known.proved = owner_of(email);
        }
        // Events older than `email_proof`: the first address given owned the conversation.
        if self.owner.is_none() && (is_proved || e.email_proof.is_none()) {
            self.owner = owner_of(email);
        }
    }

    /// Applies a met challenge.
    ///
    /// The session's contact keeps only the address or number that the password was sent to; the rest was never proved.
    fn identify(&mut self, e: &SessionIdentified) {
        let address = e.email.as_deref().and_then(owner_of);
        if self.owner.is_none() {
            self.owner = address.clone();
        }
        if e.purpose == OtpPurpose::Restore {
            self.know(e.session).proved = address;
            return;
        }
        // Events older than challenges name no address: they prove the contact known then, if no part of that was erased.
        let names_address = e.email.is_some() || e.phone.is_some();
        if !names_address && self.known(e.session).is_none_or(|known| !known.otp_sent) {
            return;
        }
        let known = self.know(e.session);
        (known.otp_sent, known.challenge, known.verified) = (false, None, true);
        if names_address {
            (known.contact.email, known.contact.phone) = (e.email.clone(), e.phone.clone());
            known.proved = address.or(known.proved.take());
        }
    }

    /// Returns the address that a session proved.
    pub fn proved_by(&self, session: Uuid) -> Option<&str> {
        self.known(session)?.proved.as_deref()
    }

    /// Returns the facts known of a session beyond its opening.
    pub fn known(&self, session: Uuid) -> Option<&SessionFacts> {
        self.sessions.iter().find(|known| known.session == session)
    }

    fn known_mut(&mut self, session: Uuid) -> Option<&mut SessionFacts> {
        self.sessions.iter_mut().find(|known| known.session == session)
    }

    fn know(&mut self, session: Uuid) -> &mut SessionFacts {
        let at = self.sessions.iter().position(|known| known.session == session).unwrap_or_else(|| {
            if self.sessions.len() >= limits::FOLD_SESSIONS {
                self.sessions.pop_front();
            }
            self.sessions.push_back(SessionFacts::new(session));
            self.sessions.len() - 1
        });
        &mut self.sessions[at]
    }

    /// Takes a contact that the visitor gave in words, or notes that a one-time password was sent.
    fn learn_from_tool(&mut self, e: &ToolReturned) {
        let Some(session) = self.turn.as_ref().map(|turn| turn.request.session) else { return };
        if let Some((form, values)) = self.asked.take_if(|_| e.values.is_some()).zip(e.values.as_ref()) {
            self.learn_contact(session, &form, values);
        }
        if e.values.is_some() {
            self.waiting = None;
        }
        if let Some(waiting) = &e.waiting {
            self.asked = waiting.elicited.open().map(|question| question.form.clone());
            self.waiting = Some(waiting.clone());
        }
        if let Some(otp) = e.otp.as_ref().filter(|otp| otp.sent.is_some()) {
            let known = self.know(session);
            (known.otp_sent, known.challenge) = (true, otp.challenge);
        }
    }

    /// Takes the values that a visitor submitted to the pending form.
    fn learn_from_form(&mut self, e: &TurnResumed) {
        let Some((turn, values)) = self.turn.as_ref().filter(|turn| turn.request.turn == e.turn).zip(e.values.as_ref())
        else {
            return;
        };
        let park = turn.park.as_ref().filter(|park| park.id == e.park);
        if let Some(Prompt::Interaction { form, .. }) = park.map(|park| park.prompt.clone()) {
            self.learn_contact(turn.request.session, &form, values);
        }
    }

    fn learn_contact(&mut self, session: Uuid, form: &Form, values: &Map<String, Value>) {
        if let Some(contact) = Contact::of(form, values) {
            let known = self.know(session);
            let reachable = |contact: &Contact| (contact.email.clone(), contact.phone.clone());
            let before = reachable(&known.contact);
            known.contact.learn(contact);
            // A proof is bound to the address that was the contact when it was given.
            if reachable(&known.contact) != before {
                known.verified = false;
                known.otp_sent = false;
                known.challenge = None;
            }
        }
    }

    fn finish(&mut self, id: Uuid, terminal_seq: u64, outcome: TurnOutcome) {
        let Some(turn) = self.turn.take_if(|turn| turn.request.turn == id) else { return };
        let Turn { request: TurnRequested { request_id, session, .. }, requested_seq, .. } = turn;
        self.finished.push_back(FinishedTurn { id, request_id, session, requested_seq, terminal_seq, outcome });
        if self.finished.len() > limits::FOLD_REQUESTS {
            self.finished.pop_front();
        }
    }

    fn on_turn(&mut self, id: Uuid, change: impl FnOnce(&mut Turn)) {
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.request.turn == id) {
            change(turn);
        }
    }

    /// Returns whether a worker holds the turn under this epoch.
    fn is_held(&self, id: Uuid, epoch: u64) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.request.turn == id && turn.held_under(epoch))
    }

    /// Applies a change that only the turn's worker may make; a fenced worker changes nothing.
    fn on_held_turn(&mut self, id: Uuid, epoch: u64, change: impl FnOnce(&mut Turn)) {
        if self.is_held(id, epoch) {
            self.on_turn(id, change);
        }
    }

    fn keep_message(&mut self, recorded: &RecordedEvent) {
        let Some(message) = Message::of(recorded) else { return };
        if let MessageBody::User(text) = &message.body
            && self.opening.is_none()
        {
            self.opening = title::of_message(text);
        }
        self.updated_at = Some(message.at);
        self.message_count += 1;
        self.messages.push_back(message);
        let mut bytes: usize = self.messages.iter().map(Message::size).sum();
        while self.messages.len() > limits::FOLD_MESSAGES
            || (bytes > limits::FOLD_TEXT_MAX_BYTES && self.messages.len() > 1)
        {
            let Some(oldest) = self.messages.pop_front() else { break };
            bytes -= oldest.size();
            self.older.push_back(oldest.seq);
        }
        while self.older.len() > limits::FOLD_OLDER {
            self.older.pop_front();
        }
    }
}

impl Workflow {
    fn judge(&mut self, judged: &StepJudged) {
        let stays = judged.next.as_ref() == Some(&judged.step);
        let earlier = if self.step.as_ref() == Some(&judged.step) { self.attempts } else { 0 };
        self.attempts = if stays { earlier.saturating_add(1) } else { 0 };
        self.step = judged.next.clone();
        self.finished = judged.next.is_none();
    }
}

/// Returns the owner key of an e-mail address; a blank address owns nothing.
pub fn owner_of(email: &str) -> Option<String> {
    Some(email.trim().to_lowercase()).filter(|email| !email.is_empty())
}
