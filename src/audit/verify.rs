//! Follows the chain of digests: every event names its conversation's previous event and carries that one's digest.
//!
//! What is found: an event that was changed (by the next one of its conversation), removed, inserted or moved. What is not: that
//! the last events of a conversation are missing, or that its very last one was changed; for that somebody else must know them.

use std::{collections::HashMap, fmt};

use serde::Serialize;
use uuid::Uuid;

use crate::{
    domain::Digest,
    log::nats::RawMessage,
    subjects::ConversationKey,
    wire::stored::{self, Envelope},
};

/// Where the chain of a conversation stands.
struct Tail {
    seq: u64,
    digest: Digest,
    /// An event of the conversation has carried a digest, so all later ones must.
    chained: bool,
}

/// The chains of all conversations, as far as they were read.
#[derive(Default)]
pub struct Verifier {
    tails: HashMap<Uuid, Tail>,
    pub report: Report,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub events: u64,
    pub conversations: u64,
    /// Events from before there were digests; only their order is held to.
    pub without_digest: u64,
    pub broken: u64,
    /// The first event that breaks its chain.
    pub first: Option<Break>,
}

/// An event that does not follow from the one before it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Break {
    pub seq: u64,
    pub subject: String,
    pub problem: String,
}

impl Verifier {
    /// Takes the next event of the log.
    pub fn take(&mut self, message: &RawMessage) {
        self.report.events += 1;
        if let Err(problem) = self.follow(message) {
            self.report.broken += 1;
            let subject = message.subject.clone();
            self.report.first.get_or_insert(Break { seq: message.seq, subject, problem });
        }
        self.report.conversations = self.tails.len() as u64;
    }

    fn follow(&mut self, message: &RawMessage) -> Result<(), String> {
        let header = |name: &str| message.headers.get(name).map(String::as_str);
        let key = ConversationKey::parse_event(&message.subject).ok_or("the subject is not an event's")?;
        let digest = stored::digest(&message.subject, header, &message.payload);
        let decoded = stored::decode_headers(header);
        let before = self.tails.remove(&key.conversation);
        // Whatever is wrong with this one, the next is held to it.
        let chained = before.as_ref().is_some_and(|tail| tail.chained) || header(stored::CE_PREVDIGEST).is_some();
        self.tails.insert(key.conversation, Tail { seq: message.seq, digest, chained });
        let (envelope, kind) = decoded.map_err(|error| error.to_string())?;
        // A work item's pool follows its event's name.
        let after = message.subject.strip_prefix(&key.event(kind));
        if envelope.conversation != key.conversation
            || !after.is_some_and(|pool| pool.is_empty() || pool.starts_with('.'))
        {
            return Err("it is on the subject of another event".into());
        }
        let before = before.unwrap_or(Tail { seq: 0, digest: Digest::default(), chained: false });
        self.report.without_digest += u64::from(envelope.prev_digest.is_none());
        follows(&envelope, &before)
    }
}

fn follows(envelope: &Envelope, before: &Tail) -> Result<(), String> {
    if envelope.prev != before.seq {
        let Tail { seq, .. } = before;
        return Err(format!("it follows event {}, but the one before it is {seq}", envelope.prev));
    }
    match envelope.prev_digest {
        Some(digest) if digest != before.digest => Err(format!("event {} is not as it was", before.seq)),
        None if before.chained => Err("it carries no digest, and earlier events do".into()),
        _ => Ok(()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} events of {} conversations", self.events, self.conversations)?;
        if self.without_digest > 0 {
            writeln!(f, "{} of them from before there were digests", self.without_digest)?;
        }
        match &self.first {
            None => write!(f, "every event follows from the one before it"),
            Some(Break { seq, subject, problem }) => {
                write!(f, "{} events break their chain; the first is event {seq} on {subject}: {problem}", self.broken)
            }
        }
    }
}

#[cfg(test)]
mod tests;
