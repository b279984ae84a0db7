//! Verifies a log: every event names its conversation's previous event and carries that one's digest, and checkpoints hold the
//! heads of all conversations.
//!
//! The chain of digests alone shows that an event was changed (by the next one of its conversation), removed, inserted or
//! moved. The checkpoints show that the last events of a conversation are missing, that the very last one was changed, or that
//! everything after a change was rewritten.

mod report;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

pub use report::{ChainBreak, LastCheckpoint, VerificationReport};

use super::{
    checkpoint::{self, SignedCheckpoint},
    merkle_tree::ConversationHead,
};
use crate::{
    domain::Digest,
    history::{message_view::digest_of, view::ChainVerification},
    nats::jetstream::RawMessage,
    subjects::{self, ConversationKey},
    wire::stored,
};

/// An event's own digest and its reference to the previous event: all that the chain needs, found without other events.
pub struct ChainLink {
    pub seq: u64,
    pub subject: String,
    pub key: Option<ConversationKey>,
    pub digest: Digest,
    /// Sequence and digest of the previous event, or the fault in the reference.
    prev: Result<(u64, Option<Digest>), String>,
    has_digest: bool,
    /// The reason why this program can't read the event. An unreadable event may still follow from the one before it.
    unreadable: Option<String>,
}

impl ChainLink {
    /// Creates the link of a stored event; `header` looks up its headers.
    pub fn of<'a>(seq: u64, subject: String, header: impl Fn(&str) -> Option<&'a str> + Copy, payload: &[u8]) -> Self {
        let key = ConversationKey::parse_event(&subject);
        let prev = before(&subject, key.as_ref(), header);
        let digest = stored::digest(&subject, header, payload);
        let unreadable = unreadable(header, payload);
        Self { seq, subject, key, digest, prev, has_digest: header(stored::CE_PREVDIGEST).is_some(), unreadable }
    }

    /// Creates the link of a stream message.
    pub fn of_message(message: &RawMessage) -> Self {
        let header = |name: &str| message.headers.get(name).map(String::as_str);
        Self::of(message.seq, message.subject.clone(), header, &message.payload)
    }

    /// Returns true if the event follows from its conversation's head.
    pub fn follows(&self, before: Option<&ConversationHead>) -> bool {
        let (seq, digest) = before.map_or_else(Default::default, |head| (head.seq, head.digest));
        self.prev.as_ref().is_ok_and(|(prev, found)| *prev == seq && found.is_none_or(|found| found == digest))
    }
}

fn before<'a>(
    subject: &str,
    key: Option<&ConversationKey>,
    header: impl Fn(&str) -> Option<&'a str> + Copy,
) -> Result<(u64, Option<Digest>), String> {
    let key = key.ok_or("the subject is not an event's")?;
    let link = stored::link(header).ok_or("the header of the previous event is missing or malformed")?;
    // An event with unreadable headers may be of a kind that has other subjects.
    let Ok((envelope, kind)) = stored::decode_headers(header) else { return Ok(link) };
    // The pool of a work item follows the event's name.
    let after = subject.strip_prefix(&key.event(kind));
    if envelope.conversation != key.conversation || !after.is_some_and(|pool| pool.is_empty() || pool.starts_with('.'))
    {
        return Err("the event is on the subject of another event".into());
    }
    Ok(link)
}

/// Returns the reason why an event can't be read, as far as it shows without a decryption key.
fn unreadable<'a>(header: impl Fn(&str) -> Option<&'a str>, payload: &[u8]) -> Option<String> {
    match stored::decode_headers(header) {
        Ok((_, kind)) if is_encrypted(payload) => stored::erased(kind).err(),
        Ok((_, kind)) => stored::decode_payload(kind, payload).err(),
        Err(error) => Some(error),
    }
    .map(|error| error.to_string())
}

fn is_encrypted(payload: &[u8]) -> bool {
    payload.first() == Some(&1)
}

/// The state of a conversation up to the last event read.
struct Tail {
    seq: u64,
    digest: Digest,
    /// An event of the conversation has carried a digest, so all later ones must.
    chained: bool,
    events: u64,
    /// The first events are gone, so `events` is incomplete until a checkpoint gives the number.
    begun_before: bool,
    /// The conversation has events since the last checkpoint.
    touched: bool,
}

/// The state of all conversations, as far as the log was read.
#[derive(Default)]
pub struct LogVerifier {
    tails: HashMap<Uuid, Tail>,
    touched: Vec<Uuid>,
    /// Heads from checkpoints, of conversations that have no event since the log begins.
    gone: HashMap<Uuid, ConversationHead>,
    /// Sequence of the first event that must exist.
    begins: u64,
    last: u64,
    /// Restricts the verification to this conversation.
    only: Option<Uuid>,
    pub report: VerificationReport,
}

impl LogVerifier {
    /// Creates a verifier of a log that retention has left from `begins` on, or of one conversation.
    pub fn new(begins: Option<u64>, only: Option<Uuid>) -> Self {
        let begins = begins.unwrap_or_default();
        Self { begins, only, report: VerificationReport { begins, ..VerificationReport::default() }, ..Self::default() }
    }

    /// Takes the next event of the log.
    pub fn take(&mut self, message: &RawMessage) {
        self.follow(ChainLink::of_message(message));
    }

    /// Takes the link of the next event.
    pub fn follow(&mut self, link: ChainLink) {
        self.report.events += 1;
        match (self.check(&link), link.unreadable) {
            (Err(problem), _) => self.report.found(ChainBreak { seq: link.seq, subject: link.subject, problem }),
            (Ok(()), Some(problem)) => {
                self.report.cannot_read(ChainBreak { seq: link.seq, subject: link.subject, problem });
            }
            (Ok(()), None) => {}
        }
        self.last = self.last.max(link.seq);
        self.report.unsigned += 1;
        self.report.conversations = self.tails.len() as u64;
    }

    fn check(&mut self, link: &ChainLink) -> Result<(), String> {
        let Some(key) = &link.key else { return Err("the subject is not an event's".into()) };
        let before = self.tails.remove(&key.conversation);
        let begun_before = match &before {
            Some(tail) => tail.begun_before,
            None => link.prev.as_ref().is_ok_and(|(prev, _)| (1..self.begins).contains(prev)),
        };
        if before.as_ref().is_none_or(|tail| !tail.touched) {
            self.touched.push(key.conversation);
        }
        // The next event is checked against this one, faulty or not.
        let tail = Tail {
            seq: link.seq,
            digest: link.digest,
            chained: before.as_ref().is_some_and(|tail| tail.chained) || link.has_digest,
            events: before.as_ref().map_or(0, |tail| tail.events) + 1,
            begun_before,
            touched: true,
        };
        self.tails.insert(key.conversation, tail);
        let gone = self.gone.remove(&key.conversation);
        self.report.without_digest += u64::from(link.prev.is_ok() && !link.has_digest);
        let (prev, digest) = link.prev.clone()?;
        if link.seq <= self.last {
            return Err(format!("the event comes after event {}", self.last));
        }
        let (seq, expected, chained) = match (&before, gone) {
            (Some(tail), _) => (tail.seq, Some(tail.digest), tail.chained),
            // The last checkpoint knows the events that retention took, unless more followed it.
            (None, Some(head)) if begun_before && head.seq == prev => (prev, Some(head.digest), false),
            (None, Some(head)) if begun_before && head.seq < prev => (prev, None, false),
            (None, None) if begun_before => (prev, None, false),
            (None, _) => (0, Some(Digest::default()), false),
        };
        if prev != seq {
            return Err(match seq {
                0 => format!(
                    "the event follows event {prev}, which is missing; if retention deleted it, say where the log begins"
                ),
                _ => format!("the event follows event {prev}, but the previous event is {seq}"),
            });
        }
        match (digest, expected) {
            (Some(digest), Some(expected)) if digest != expected => Err(format!("event {seq} was changed")),
            (None, _) if chained => Err("the event carries no digest, and earlier events do".into()),
            _ => Ok(()),
        }
    }

    /// Returns the sequence of the last event taken.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Returns true if the checkpoint must be checked before this event is taken.
    pub fn is_before(signed: &SignedCheckpoint, seq: u64) -> bool {
        signed.checkpoint.covers < seq
    }

    /// Checks the events so far against a checkpoint that covers them.
    pub fn hold_to(&mut self, signed: &SignedCheckpoint) {
        let checkpoint = &signed.checkpoint;
        let name = format!("checkpoint {}", checkpoint.number);
        let heads: Vec<ConversationHead> = checkpoint::of(&signed.heads, self.only).copied().collect();
        let mut known = HashSet::with_capacity(heads.len());
        let mut found = Vec::new();
        for head in heads {
            known.insert(head.conversation);
            if let Some(problem) = self.differs(&head, &name) {
                found.push((head.seq, head.conversation, problem));
            }
        }
        for conversation in std::mem::take(&mut self.touched) {
            let Some(tail) = self.tails.get_mut(&conversation) else { continue };
            tail.touched = false;
            if !known.contains(&conversation) {
                found.push((
                    tail.seq,
                    conversation,
                    format!("{name} does not cover event {} of this conversation", tail.seq),
                ));
            }
        }
        found.sort();
        for (seq, conversation, problem) in found {
            let subject = subjects::events_of(&checkpoint.region, Some(conversation));
            self.report.found(ChainBreak { seq, subject, problem });
        }
        self.report.signed_by(checkpoint);
    }

    /// Describes the difference between a conversation and its head in a checkpoint.
    fn differs(&mut self, head: &ConversationHead, name: &str) -> Option<String> {
        let ConversationHead { conversation, seq, digest, events } = *head;
        let Some(tail) = self.tails.get_mut(&conversation) else {
            if seq < self.begins {
                self.gone.insert(conversation, *head);
                return None;
            }
            return Some(format!("{name} covers {events} events up to event {seq}, and the log has none"));
        };
        if std::mem::take(&mut tail.begun_before) {
            tail.events = events;
        }
        if tail.seq < seq {
            return Some(format!("{name} covers events up to {seq}, and the log ends at {}", tail.seq));
        }
        if tail.seq > seq {
            return Some(format!("{name} covers events up to {seq}, and the log has event {}", tail.seq));
        }
        if tail.digest != digest {
            return Some(format!("{name} has another digest for event {seq}: the event or an earlier one was changed"));
        }
        (tail.events != events).then(|| format!("{name} covers {events} events, and the log has {}", tail.events))
    }
}

/// Follows the chain of a whole conversation.
pub fn follow(messages: &[RawMessage]) -> ChainVerification {
    let mut verifier = LogVerifier::default();
    messages.iter().for_each(|message| verifier.take(message));
    let report = verifier.report;
    ChainVerification {
        is_intact: report.broken == 0,
        events: report.events,
        without_digest: report.without_digest,
        broken: report.broken,
        first_broken: report.first.as_ref().map(|first| first.seq),
        problem: report.first.map(|first| first.problem),
        last_seq: messages.last().map_or(0, |last| last.seq),
        last_digest: messages.last().map(digest_of).unwrap_or_default().to_string(),
    }
}

#[cfg(test)]
mod tests;
