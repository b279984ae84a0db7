//! Reads one conversation by walking its chain back from its end.
//!
//! A walk costs one read an event at any size of the stream, where a filtered read from an old sequence may touch all of it.
//! Events that no chain leads to are not found by walking: [`whole`] counts the conversation's events, and reads the stream in
//! its order when the count differs. So does [`back`] where a link of the chain is broken.

use serde_json::json;

use super::stream_reader::StreamReader;
use crate::{
    limits,
    log::jetstream_log::NatsLog,
    nats::{ReadError, ReadFrom, jetstream::RawMessage, streams::CHAT},
    subjects::{self, ConversationKey},
    wire::stored,
};

/// The limits of a read.
#[derive(Clone, Copy)]
pub struct ReadBounds {
    pub events: usize,
    /// Bytes of payload. The first message is read at any size.
    pub bytes: usize,
}

/// A part of a conversation, oldest message first.
pub struct ChainPart {
    pub messages: Vec<RawMessage>,
    /// Sequence of the event before the first one, if there is one.
    pub before: Option<u64>,
}

/// All messages of a conversation, oldest first; empty if the conversation does not exist.
pub enum WholeConversation {
    Read(Vec<RawMessage>),
    /// The conversation exceeds the bounds.
    TooMuch,
}

impl ReadBounds {
    /// For a reader with a process of its own.
    pub const NONE: Self = Self { events: usize::MAX, bytes: usize::MAX };

    fn hold(&self, events: usize, bytes: usize) -> bool {
        events <= self.events && (events == 1 || bytes <= self.bytes)
    }
}

/// Reads the events up to a sequence, newest within the bounds.
///
/// `from` is the sequence of one of the conversation's events; `None` = the last one.
pub async fn back(
    log: &NatsLog,
    key: &ConversationKey,
    from: Option<u64>,
    bounds: ReadBounds,
) -> Result<ChainPart, ReadError> {
    let stream = subjects::stream_name(CHAT, &key.region);
    let mut next = match from {
        Some(seq) => at(log, &stream, key, seq).await?,
        None => log.get(&stream, &json!({ "last_by_subj": key.all_events() }), ReadFrom::Leader).await?,
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
        // A link is broken. The events before it are found without the chain, unless the conversation exceeds an edge's bounds.
        if let WholeConversation::Read(all) = in_order(log, key, of_an_edge()).await? {
            return Ok(newest(all, from, bounds));
        }
    }
    Ok(ChainPart { messages, before })
}

/// Reads every event of a conversation, including those that its chain does not lead to.
pub async fn whole(log: &NatsLog, key: &ConversationKey, bounds: ReadBounds) -> Result<WholeConversation, ReadError> {
    let part = back(log, key, None, bounds).await?;
    if part.before.is_some() {
        return Ok(WholeConversation::TooMuch);
    }
    let stream = subjects::stream_name(CHAT, &key.region);
    if log.count_of(&stream, &key.all_events()).await? == part.messages.len() as u64 {
        return Ok(WholeConversation::Read(part.messages));
    }
    in_order(log, key, bounds).await
}

/// Reads every event of a conversation in the stream's order.
async fn in_order(log: &NatsLog, key: &ConversationKey, bounds: ReadBounds) -> Result<WholeConversation, ReadError> {
    let (mut stream_reader, mut messages, mut bytes) = (StreamReader::of(log.clone(), key), Vec::new(), 0);
    while let Some(message) = stream_reader.next().await? {
        bytes += message.payload.len();
        if !bounds.hold(messages.len() + 1, bytes) {
            return Ok(WholeConversation::TooMuch);
        }
        messages.push(message);
    }
    Ok(WholeConversation::Read(messages))
}

/// Returns the newest events up to a sequence, within the bounds.
fn newest(mut all: Vec<RawMessage>, from: Option<u64>, bounds: ReadBounds) -> ChainPart {
    all.retain(|message| from.is_none_or(|from| message.seq <= from));
    let mut bytes = 0;
    let fits = |(n, message): &(usize, &RawMessage)| {
        bytes += message.payload.len();
        bounds.hold(n + 1, bytes)
    };
    let kept = all.iter().rev().enumerate().take_while(fits).count();
    let messages = all.split_off(all.len() - kept);
    ChainPart { before: all.last().map(|message| message.seq), messages }
}

/// Finds a conversation by id in a region, of any owner: for auditors, who may read everything.
pub async fn find(log: &NatsLog, region: &str, conversation: uuid::Uuid) -> Result<Option<ConversationKey>, ReadError> {
    let query = json!({ "last_by_subj": subjects::events_of(region, Some(conversation)) });
    let last = log.get(&subjects::stream_name(CHAT, region), &query, ReadFrom::Leader).await?;
    Ok(last.and_then(|message| ConversationKey::parse_event(&message.subject)))
}

/// The bounds of an edge, which serves other requests too.
pub fn of_an_edge() -> ReadBounds {
    ReadBounds { events: limits::AUDIT_EVENTS_MAX, bytes: limits::AUDIT_READ_MAX_BYTES }
}

/// Reads the conversation's message with this sequence.
async fn at(log: &NatsLog, stream: &str, key: &ConversationKey, seq: u64) -> Result<Option<RawMessage>, ReadError> {
    for via in [ReadFrom::Replica, ReadFrom::Leader] {
        let message = log.get(stream, &json!({ "seq": seq }), via).await?;
        if let Some(message) = message {
            return Ok(Some(message).filter(|m| ConversationKey::parse_event(&m.subject).as_ref() == Some(key)));
        }
    }
    Ok(None)
}

/// Returns true if the message claims to be its conversation's first.
fn begins(message: &RawMessage) -> bool {
    header(message, stored::CE_PREV) == Some("0")
}

/// Returns the sequence of the event before. `None` = the event is the first, or its link leads forward.
fn prev_of(message: &RawMessage) -> Option<u64> {
    let prev = header(message, stored::CE_PREV)?.parse().ok()?;
    (prev > 0 && prev < message.seq).then_some(prev)
}

fn header<'a>(message: &'a RawMessage, name: &str) -> Option<&'a str> {
    message.headers.get(name).map(String::as_str)
}
