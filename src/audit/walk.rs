//! One conversation's messages, found by walking its chain back from its end.
//!
//! A walk costs one read an event and is flat at any size of the stream, where a filtered read from an old sequence may touch
//! all of it. What nobody's chain leads to is not found by walking: [`whole`] counts what is there, and reads the stream in its
//! order when the count differs. So does [`back`] where a link of the chain is broken.

use serde_json::json;

use super::scan::Scan;
use crate::{
    limits,
    log::{
        ReadError, Via,
        nats::{CHAT, NatsLog, RawMessage},
    },
    subjects::{self, ConversationKey},
    wire::stored,
};

/// How much is read at most.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub events: usize,
    /// Of payloads. The first message is read whatever its size.
    pub bytes: usize,
}

/// A part of a conversation, oldest message first.
pub struct Part {
    pub messages: Vec<RawMessage>,
    /// Sequence of the event before the first one, if there is one.
    pub before: Option<u64>,
}

/// All of a conversation, oldest message first; nothing when it does not exist.
pub enum Whole {
    Read(Vec<RawMessage>),
    /// There is more than the bounds allow.
    TooMuch,
}

impl Bounds {
    /// For whoever has a process of their own for it.
    pub const NONE: Self = Self { events: usize::MAX, bytes: usize::MAX };

    fn hold(&self, events: usize, bytes: usize) -> bool {
        events <= self.events && (events == 1 || bytes <= self.bytes)
    }
}

/// The events up to this sequence, which is one of the conversation's (`None`: up to its end).
pub async fn back(log: &NatsLog, key: &ConversationKey, from: Option<u64>, bounds: Bounds) -> Result<Part, ReadError> {
    let stream = subjects::stream_name(CHAT, &key.region);
    let mut next = match from {
        Some(seq) => at(log, &stream, key, seq).await?,
        None => log.get(&stream, &json!({ "last_by_subj": key.all_events() }), Via::Leader).await?,
    };
    let (mut messages, mut bytes, mut before) = (Vec::new(), 0, None);
    while let Some(message) = next.take() {
        bytes += message.payload.len();
        if !bounds.hold(messages.len() + 1, bytes) {
            before = Some(message.seq);
            break;
        }
        if let Some(prev) = prev_of(&message) {
            next = at(log, &stream, key, prev).await?;
        }
        messages.push(message);
    }
    messages.reverse();
    if before.is_none() && messages.first().is_some_and(|oldest| !begins(oldest)) {
        // A link is broken. What is before it is found without the chain, unless that is too much.
        if let Whole::Read(all) = in_order(log, key, of_an_edge()).await? {
            return Ok(newest(all, from, bounds));
        }
    }
    Ok(Part { messages, before })
}

/// Every event of a conversation, those that its chain does not lead to included.
pub async fn whole(log: &NatsLog, key: &ConversationKey, bounds: Bounds) -> Result<Whole, ReadError> {
    let part = back(log, key, None, bounds).await?;
    if part.before.is_some() {
        return Ok(Whole::TooMuch);
    }
    let stream = subjects::stream_name(CHAT, &key.region);
    if log.count_of(&stream, &key.all_events()).await? == part.messages.len() as u64 {
        return Ok(Whole::Read(part.messages));
    }
    in_order(log, key, bounds).await
}

/// Every event of a conversation, by reading the stream in its order.
async fn in_order(log: &NatsLog, key: &ConversationKey, bounds: Bounds) -> Result<Whole, ReadError> {
    let (mut scan, mut messages, mut bytes) = (Scan::of(log.clone(), key), Vec::new(), 0);
    while let Some(message) = scan.next().await? {
        bytes += message.payload.len();
        if !bounds.hold(messages.len() + 1, bytes) {
            return Ok(Whole::TooMuch);
        }
        messages.push(message);
    }
    Ok(Whole::Read(messages))
}

/// The newest of all of a conversation's events, up to a sequence.
fn newest(mut all: Vec<RawMessage>, from: Option<u64>, bounds: Bounds) -> Part {
    all.retain(|message| from.is_none_or(|from| message.seq <= from));
    let mut bytes = 0;
    let fits = |(n, message): &(usize, &RawMessage)| {
        bytes += message.payload.len();
        bounds.hold(n + 1, bytes)
    };
    let kept = all.iter().rev().enumerate().take_while(fits).count();
    let messages = all.split_off(all.len() - kept);
    Part { before: all.last().map(|message| message.seq), messages }
}

/// The conversation with this id in a region, whoever's it is: for those who may read everything.
pub async fn find(log: &NatsLog, region: &str, conversation: uuid::Uuid) -> Result<Option<ConversationKey>, ReadError> {
    let query = json!({ "last_by_subj": subjects::events_of(region, Some(conversation)) });
    let last = log.get(&subjects::stream_name(CHAT, region), &query, Via::Leader).await?;
    Ok(last.and_then(|message| ConversationKey::parse_event(&message.subject)))
}

/// Bounds of an edge, which does other things too.
pub fn of_an_edge() -> Bounds {
    Bounds { events: limits::AUDIT_EVENTS_MAX, bytes: limits::AUDIT_READ_MAX_BYTES }
}

/// The conversation's message with this sequence.
async fn at(log: &NatsLog, stream: &str, key: &ConversationKey, seq: u64) -> Result<Option<RawMessage>, ReadError> {
    for via in [Via::Replica, Via::Leader] {
        let message = log.get(stream, &json!({ "seq": seq }), via).await?;
        if let Some(message) = message {
            return Ok(Some(message).filter(|m| ConversationKey::parse_event(&m.subject).as_ref() == Some(key)));
        }
    }
    Ok(None)
}

/// Whether it says that it is its conversation's first.
fn begins(message: &RawMessage) -> bool {
    header(message, stored::CE_PREV) == Some("0")
}

/// The sequence of the event before; of a first event, and of one that leads forward, there is none.
fn prev_of(message: &RawMessage) -> Option<u64> {
    let prev = header(message, stored::CE_PREV)?.parse().ok()?;
    (prev > 0 && prev < message.seq).then_some(prev)
}

fn header<'a>(message: &'a RawMessage, name: &str) -> Option<&'a str> {
    message.headers.get(name).map(String::as_str)
}
