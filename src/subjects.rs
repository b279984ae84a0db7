//! NATS subjects, built and parsed by type. No subject literal stands anywhere else.
//!
//! A value that is not a UUID enters a subject only through [`encode_token`], so ids with dots, spaces or wildcards can't
//! change its shape.

mod audit;
mod buckets;
mod calls;

use std::net::IpAddr;

use chrono::NaiveDate;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use audit::*;
pub use buckets::*;
pub use calls::*;

/// The place of a conversation in the log: its region's name, its organisation, its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConversationKey {
    pub region: String,
    pub org: String,
    pub conversation: Uuid,
}

impl ConversationKey {
    /// `chat.{region}.{org}.{conversation}.>`: all events of the conversation.
    ///
    /// Readers: loads (last message), auditors. It is also the filter of the expected sequence of every append.
    pub fn all_events(&self) -> String {
        format!("{}.>", self.prefix())
    }

    /// `chat.{region}.{org}.{conversation}.{entity}.{verb}`: one event.
    ///
    /// Publishers: edges (requests, decisions, cancels), workers (outcomes). Stream: CHAT, kept without limit.
    pub fn event(&self, entity_verb: &str) -> String {
        format!("{}.{entity_verb}", self.prefix())
    }

    /// `chat.….turn.requested.{pool}` and `….turn.resumed.{pool}`: an event that is also a work item.
    ///
    /// Subscribers: the pool's durable consumer.
    pub fn work_item(&self, entity_verb: &str, pool: &str) -> String {
        format!("{}.{entity_verb}.{pool}", self.prefix())
    }

    fn prefix(&self) -> String {
        format!("chat.{}.{}.{}", self.region, encode_token(&self.org), self.conversation)
    }

    /// Parses the conversation from the subject of one of its events.
    pub fn parse_event(subject: &str) -> Option<Self> {
        let mut tokens = subject.split('.');
        if tokens.next()? != "chat" {
            return None;
        }
        let region = tokens.next()?.to_string();
        let org = decode_token(tokens.next()?)?;
        let conversation = tokens.next()?.parse().ok()?;
        tokens.next()?;
        Some(Self { region, org, conversation })
    }
}

/// `chat.{region}.*.{conversation}.>`, or of all conversations `chat.{region}.>`. Readers: auditors.
pub fn events_of(region: &str, conversation: Option<Uuid>) -> String {
    match conversation {
        Some(conversation) => format!("chat.{region}.*.{conversation}.>"),
        None => format!("chat.{region}.>"),
    }
}

/// `chat.{region}.*.*.{entity}.{verb}.{pool}`: the work items of a pool. Readers: edges, while the pool has no worker.
pub fn work_items(region: &str, entity_verb: &str, pool: &str) -> String {
    format!("chat.{region}.*.*.{entity_verb}.{pool}")
}

/// `>`: all subjects of a stream.
pub const EVERYTHING: &str = ">";

/// Returns whether a subject is the one of a conversation event.
pub fn is_event(subject: &str) -> bool {
    subject.starts_with("chat.")
}

/// `chat.{region}.{org}.>`: all events of an organisation. Readers: auditors.
pub fn events_of_org(region: &str, org: &str) -> String {
    format!("chat.{region}.{}.>", encode_token(org))
}

/// `session.{region}.{session}`: the session record. Publisher: the edge that opened it. Stream: CHAT.
pub fn session(region: &str, session: Uuid) -> String {
    format!("session.{region}.{session}")
}

/// `live.{region}.{conversation}.{session}`: client frames of a turn. Publishers: workers, a cancelling edge.
/// Subscribers: edges. Stream: LIVE, minutes.
pub fn live(region: &str, conversation: Uuid, session: Uuid) -> String {
    format!("live.{region}.{conversation}.{session}")
}

/// `live.{region}.{conversation}.*`: an edge's subscription for its connections to a conversation.
pub fn live_all(region: &str, conversation: Uuid) -> String {
    format!("live.{region}.{conversation}.*")
}

/// `stop.{region}.{conversation}`: "look at the log now". Publishers: edges. Subscribers: workers. Not kept.
pub fn stop(region: &str, conversation: Uuid) -> String {
    format!("stop.{region}.{conversation}")
}

/// `stop.{region}.>`: a worker's one subscription to stop hints.
pub fn stop_all(region: &str) -> String {
    format!("stop.{region}.>")
}

/// Parses the conversation of a stop hint.
pub fn parse_stop(subject: &str) -> Option<Uuid> {
    subject.strip_prefix("stop.")?.split_once('.')?.1.parse().ok()
}

/// `sched.{region}.{conversation}.{park}`: a scheduled deadline. Publishers: workers. Stream: SCHED.
pub fn schedule(region: &str, conversation: Uuid, park: Uuid) -> String {
    format!("sched.{region}.{conversation}.{park}")
}

/// `due.{region}.{conversation}.{park}`: a deadline that has passed; published by the server. Stream: SCHED. Subscribers:
/// the durable consumer `due`.
pub fn due(region: &str, conversation: Uuid, park: Uuid) -> String {
    format!("due.{region}.{conversation}.{park}")
}

/// `dead.{region}.{conversation}`: turns that were given up. Publishers: workers. Stream: DEAD.
pub fn dead(region: &str, conversation: Uuid) -> String {
    format!("dead.{region}.{conversation}")
}

/// `$O.{bucket}.M.{name}`: an object's info message; the name is in base64 for URLs. Publishers: edges. Readers: workers,
/// tools. Stream: OBJ_{bucket}, the last message of each subject.
pub fn object_info(bucket: &str, name: &str) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE};
    format!("$O.{bucket}.M.{}", BASE64_URL_SAFE.encode(name))
}

/// `$O.{bucket}.C.{id}`: the chunks of an object's content, in order. Publishers, readers, stream: as above.
pub fn object_chunks(bucket: &str, id: Uuid) -> String {
    format!("$O.{bucket}.C.{id}")
}

/// `kb.{org}.{document}.{chunk}`: a passage of a document, and `kb.{org}.{document}.head`: the document itself. Publishers:
/// ingesters, and workers for the demo documents. Readers: workers. Stream: KNOWLEDGE, the last message of each subject.
pub fn knowledge(org: &str, document: &str, chunk: Option<usize>) -> String {
    match chunk {
        Some(chunk) => format!("kb.{}.{document}.{chunk}", encode_token(org)),
        None => format!("kb.{}.{document}.head", encode_token(org)),
    }
}

/// `kb.{org}.{document}.*`: all messages of a document.
pub fn knowledge_all_of(org: &str, document: &str) -> String {
    format!("kb.{}.{document}.*", encode_token(org))
}

/// `kb.{org}.*.head`: the documents of an organisation.
pub fn knowledge_heads(org: &str) -> String {
    format!("kb.{}.*.head", encode_token(org))
}

/// `kb.>`: the knowledge of all organisations.
pub const KNOWLEDGE_ALL: &str = "kb.>";

/// Returns the token of a document: a hash, because its id is a path or URL of any length. The id is in the payload.
pub fn knowledge_document(id: &str) -> String {
    hash(id)
}

/// Parses organisation, document token and chunk from a subject of the stream KNOWLEDGE; no chunk = the head.
pub fn parse_knowledge(subject: &str) -> Option<(String, &str, Option<usize>)> {
    let mut tokens = subject.strip_prefix("kb.")?.split('.');
    let (org, document, part) = (decode_token(tokens.next()?)?, tokens.next()?, tokens.next()?);
    let chunk = if part == "head" { None } else { Some(part.parse().ok()?) };
    tokens.next().is_none().then_some((org, document, chunk))
}

/// `kb-run.{org}.{source}`: the begin or end of a source's ingest. Publishers: ingest. Readers: people and their tools.
/// Stream: KNOWLEDGE_RUNS.
pub fn ingest_run(org: &str, source: &str) -> String {
    format!("kb-run.{}.{}", encode_token(org), encode_token(source))
}

/// `kb-run.{org}.*`: the runs of an organisation's sources.
pub fn ingest_runs(org: &str) -> String {
    format!("kb-run.{}.*", encode_token(org))
}

/// Parses the source from a subject of the stream KNOWLEDGE_RUNS.
pub fn parse_ingest_run(subject: &str) -> Option<String> {
    decode_token(subject.strip_prefix("kb-run.")?.split_once('.')?.1)
}

/// `ingest.{org}.{connector}`: a request to ingest a connector's documents. Publishers: edges. Stream: INGEST. Subscribers:
/// the durable consumer `serve`.
pub fn ingest_item(org: &str, connector: Uuid) -> String {
    format!("ingest.{}.{connector}", encode_token(org))
}

/// The kind of target of a host's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushTo {
    Connection,
    Session,
    User,
    Org,
    Agent,
}

impl PushTo {
    pub const ALL: [(PushTo, &'static str); 5] = [
        (Self::Connection, "connection"),
        (Self::Session, "session"),
        (Self::User, "user"),
        (Self::Org, "org"),
        (Self::Agent, "agent"),
    ];
}

/// `push.{region}.{to}.{org}.{id}`: a host's event for connected clients. Publishers: edges that serve administrators.
/// Subscribers: edges, which answer with the number of clients that received it. Not kept.
pub fn push(region: &str, to: PushTo, org: &str, id: &str) -> String {
    let name = PushTo::ALL.iter().find(|(known, _)| *known == to).map_or("", |(_, name)| name);
    format!("push.{region}.{name}.{}.{}", encode_token(org), encode_token(id))
}

/// `push.{region}.>`: an edge's one subscription to hosts' events.
pub fn push_all(region: &str) -> String {
    format!("push.{region}.>")
}

/// Parses the target of a host's event: its kind, organisation and id.
pub fn parse_push(subject: &str) -> Option<(PushTo, String, String)> {
    let mut tokens = subject.strip_prefix("push.")?.split('.').skip(1);
    let name = tokens.next()?;
    let (to, _) = PushTo::ALL.iter().find(|(_, known)| *known == name)?;
    Some((*to, decode_token(tokens.next()?)?, decode_token(tokens.next()?)?))
}

/// Parses the id at the end of a subject: the edge of an advertisement, the conversation of a note.
pub fn parse_last_id(subject: &str) -> Option<Uuid> {
    subject.rsplit_once('.')?.1.parse().ok()
}

/// The organisation or address that usage is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaSubject<'a> {
    Org(&'a str),
    Address(IpAddr),
}

/// The scope of a one-time password counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtpCounter<'a> {
    Session(Uuid),
    /// A group of client addresses.
    Source(&'a str),
    /// A group of client addresses, and the address or number that a password is sent to.
    Pair(&'a str, &'a str),
    /// The address or number alone.
    Contact(&'a str),
    Org(&'a str),
    /// The number of password entries for one challenge.
    Tries(Uuid),
}

/// `count.org.{org}.messages.{minute}`: messages that request a turn. Publishers: edges. Stream: COUNTERS.
pub fn count_messages(org: &str, minute: i64) -> String {
    format!("{}.messages.{minute}", counted(QuotaSubject::Org(org)))
}

/// `count.org.{org}.tokens.{day}`: tokens of the model. Publishers: workers. Readers: edges. Stream: COUNTERS.
pub fn count_tokens(org: &str, day: NaiveDate) -> String {
    format!("{}.tokens.{}", counted(QuotaSubject::Org(org)), day.format("%Y%m%d"))
}

/// `count.address.{address}.sessions.{minute}`: opened sessions. Publishers: edges. Stream: COUNTERS.
pub fn count_sessions(address: IpAddr, minute: i64) -> String {
    format!("{}.sessions.{minute}", counted(QuotaSubject::Address(address)))
}

/// `count.codes.{kind}.{key}.{window}`: one-time passwords that were sent or entered, by time window. Publishers: edges and
/// workers. Stream: COUNTERS.
pub fn count_codes(codes: OtpCounter, window: i64) -> String {
    // Hashed, because an address identifies a person, and monitoring shows subjects.
    let (kind, whose) = match codes {
        OtpCounter::Session(session) => ("session", session.to_string()),
        OtpCounter::Source(source) => ("source", encode_token(source)),
        OtpCounter::Pair(source, contact) => ("pair", hash(&format!("{source} {contact}"))),
        OtpCounter::Contact(contact) => ("contact", hash(contact)),
        OtpCounter::Org(org) => ("org", encode_token(org)),
        OtpCounter::Tries(challenge) => ("tries", challenge.to_string()),
    };
    format!("count.codes.{kind}.{whose}.{window}")
}

/// `count.canary.{process}`: one message for each running process, stored to see that storing works. Publishers: edges and workers.
/// Stream: COUNTERS.
pub fn count_canary(process: Uuid) -> String {
    format!("count.canary.{process}")
}

/// Returns the group of a client's address.
///
/// The group is a part of the address's hash that some hundred addresses share, so a stored group does not reveal a
/// person's location.
pub fn source_of(address: IpAddr) -> String {
    hash(&address.to_string())[..6].to_string()
}

fn counted(whose: QuotaSubject) -> String {
    format!("count.{}", whose_token(whose))
}

fn whose_token(whose: QuotaSubject) -> String {
    match whose {
        QuotaSubject::Org(org) => format!("org.{}", encode_token(org)),
        // Hashed, because an address identifies a person, and monitoring shows subjects.
        QuotaSubject::Address(address) => format!("address.{}", hash(&address.to_string())),
    }
}

/// `erased.{conversation}`: the keys are destroyed, and every process drops its state of the conversation. Publisher: the
/// process that erases. Subscribers: edges and workers. Not kept.
pub fn erased(conversation: Uuid) -> String {
    format!("erased.{conversation}")
}

/// `erased.*`: a process's one subscription to erasures.
pub const ERASED_ALL: &str = "erased.*";

fn hash(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..16])
}

/// Direct get from any replica of a stream. Readers: edges and workers.
pub fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

/// Get through the stream's leader: never stale, not answered without a leader.
pub fn leader_get(stream: &str) -> String {
    format!("$JS.API.STREAM.MSG.GET.{stream}")
}

/// Stream and consumer administration, used by `streams apply`, `streams diff` and the check at start.
pub fn stream_api(verb: &str, stream: &str) -> String {
    format!("$JS.API.STREAM.{verb}.{stream}")
}

/// `$JS.API.>`: the whole JetStream API.
pub const STREAMS_ALL: &str = "$JS.API.>";

/// `$JS.API.CONSUMER.{verb}.{stream}`: the consumer API of a stream, with the consumer's name as a next token.
pub fn consumer_api(verb: &str, stream: &str) -> String {
    format!("$JS.API.CONSUMER.{verb}.{stream}")
}

/// Creates or updates a durable consumer.
pub fn consumer_create(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}")
}

/// Describes a durable consumer.
pub fn consumer_info(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}")
}

/// Beginning of every inbox.
pub const INBOXES: &str = "_INBOX";

/// `_INBOX.{role}`: prefix of the reply subjects of a process of this role.
pub fn inbox_prefix(role: &str) -> String {
    format!("_INBOX.{role}")
}

/// `$SYS.REQ.USER.INFO`: asks the server for the permissions of the connection's user. For `turnstream nats check`.
pub const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// Returns the region's name of a stream, or of any name with the region in it: `CHAT_local`.
pub fn stream_name(base: &str, region: &str) -> String {
    format!("{base}_{region}")
}

/// Encodes any text as one legal subject token, reversibly.
///
/// Letters, digits, `-` and `_` stand for themselves, every other byte is `=` and two hexadecimal digits; the empty text is
/// `=`. A text that is too long for a subject becomes a hash that can't be decoded: a server closes connections that send
/// it too long a line.
pub fn encode_token(text: &str) -> String {
    if text.is_empty() {
        return "=".into();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(byte as char);
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    if token.len() > crate::limits::SUBJECT_TOKEN_MAX_BYTES { format!("=={}", hash(text)) } else { token }
}

/// Decodes a token of [`encode_token`]; `None`: not such a token.
pub fn decode_token(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            b if b.is_ascii_alphanumeric() || b == b'-' || b == b'_' => bytes.push(b),
            _ => return None,
        }
    }
    // Each text has one token: another spelling would name a subject that no publisher uses.
    String::from_utf8(bytes).ok().filter(|text| encode_token(text) == token)
}

#[cfg(test)]
mod tests;
