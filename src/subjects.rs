//! Every NATS subject, built and parsed by type. No subject literal stands anywhere else.
//!
//! A value that is not a UUID gets in only through [`encode_token`], so ids with dots, spaces or wildcards can't change a
//! subject's shape.

mod audit;
mod buckets;
mod calls;

use std::net::IpAddr;

use chrono::NaiveDate;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use audit::*;
pub use buckets::*;
pub use calls::*;

/// Names one conversation's place in the log: its region's name, its organisation, its id.
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

    /// Reads the conversation out of the subject of one of its events.
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

/// `>`: all that a stream has.
pub const EVERYTHING: &str = ">";

/// Whether a subject is that of an event of a conversation.
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

/// `live.{region}.{conversation}.*`: what an edge subscribes to for its connections.
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

/// The conversation that a stop hint names.
pub fn parse_stop(subject: &str) -> Option<Uuid> {
    subject.strip_prefix("stop.")?.split_once('.')?.1.parse().ok()
}

/// `sched.{region}.{conversation}.{park}`: a scheduled deadline. Publishers: workers. Stream: SCHED.
pub fn schedule(region: &str, conversation: Uuid, park: Uuid) -> String {
    format!("sched.{region}.{conversation}.{park}")
}

/// `due.{region}.{conversation}.{park}`: a deadline that has come; put there by the server. Stream: SCHED.
/// Subscribers: the durable consumer `due`.
pub fn due(region: &str, conversation: Uuid, park: Uuid) -> String {
    format!("due.{region}.{conversation}.{park}")
}

/// `dead.{region}.{conversation}`: turns that were given up. Publishers: workers. Stream: DEAD.
pub fn dead(region: &str, conversation: Uuid) -> String {
    format!("dead.{region}.{conversation}")
}

/// `$O.{bucket}.M.{name}`: what an object store knows of an object; the name is in base64 for URLs. Publishers: edges. Readers:
/// workers, tools. Stream: OBJ_{bucket}, the last message of each subject.
pub fn object_info(bucket: &str, name: &str) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE};
    format!("$O.{bucket}.M.{}", BASE64_URL_SAFE.encode(name))
}

/// `$O.{bucket}.C.{id}`: the chunks of an object's content, in their order. Publishers, readers, stream: as above.
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

/// `kb.{org}.{document}.*`: everything of a document.
pub fn knowledge_all_of(org: &str, document: &str) -> String {
    format!("kb.{}.{document}.*", encode_token(org))
}

/// `kb.{org}.*.head`: the documents of an organisation.
pub fn knowledge_heads(org: &str) -> String {
    format!("kb.{}.*.head", encode_token(org))
}

/// `kb.>`: the knowledge of all organisations.
pub const KNOWLEDGE_ALL: &str = "kb.>";

/// The token of a document. Its id is a path or a URL of any length, so the token is a hash of it; the id is in the payload.
pub fn knowledge_document(id: &str) -> String {
    hash(id)
}

/// Organisation, document token and chunk in a subject of the stream KNOWLEDGE; no chunk = the head.
pub fn parse_knowledge(subject: &str) -> Option<(String, &str, Option<usize>)> {
    let mut tokens = subject.strip_prefix("kb.")?.split('.');
    let (org, document, part) = (decode_token(tokens.next()?)?, tokens.next()?, tokens.next()?);
    let chunk = if part == "head" { None } else { Some(part.parse().ok()?) };
    tokens.next().is_none().then_some((org, document, chunk))
}

/// `kb-run.{org}.{source}`: that an ingest of a source began or ended. Publishers: ingest. Readers: people and their tools.
/// Stream: KNOWLEDGE_RUNS.
pub fn ingest_run(org: &str, source: &str) -> String {
    format!("kb-run.{}.{}", encode_token(org), encode_token(source))
}

/// `kb-run.{org}.*`: the runs of an organisation's sources.
pub fn ingest_runs(org: &str) -> String {
    format!("kb-run.{}.*", encode_token(org))
}

/// The source in a subject of the stream KNOWLEDGE_RUNS.
pub fn parse_ingest_run(subject: &str) -> Option<String> {
    decode_token(subject.strip_prefix("kb-run.")?.split_once('.')?.1)
}

/// `ingest.{org}.{connector}`: a connector's documents shall be ingested. Publishers: edges. Stream: INGEST.
/// Subscribers: the durable consumer `serve`.
pub fn ingest_item(org: &str, connector: Uuid) -> String {
    format!("ingest.{}.{connector}", encode_token(org))
}

/// Whom a host's event is for.
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

/// `push.{region}.{to}.{org}.{id}`: an event of a host for connected clients. Publishers: edges that serve administrators.
/// Subscribers: edges, which answer with the number of clients that they gave it to. Not kept.
pub fn push(region: &str, to: PushTo, org: &str, id: &str) -> String {
    let name = PushTo::ALL.iter().find(|(known, _)| *known == to).map_or("", |(_, name)| name);
    format!("push.{region}.{name}.{}.{}", encode_token(org), encode_token(id))
}

/// `push.{region}.>`: an edge's one subscription to hosts' events.
pub fn push_all(region: &str) -> String {
    format!("push.{region}.>")
}

/// Whom a host's event is for: the target's kind, organisation and id.
pub fn parse_push(subject: &str) -> Option<(PushTo, String, String)> {
    let mut tokens = subject.strip_prefix("push.")?.split('.').skip(1);
    let name = tokens.next()?;
    let (to, _) = PushTo::ALL.iter().find(|(_, known)| *known == name)?;
    Some((*to, decode_token(tokens.next()?)?, decode_token(tokens.next()?)?))
}

/// The id at the end of a subject: the edge of an advertisement, the conversation of a note.
pub fn parse_last_id(subject: &str) -> Option<Uuid> {
    subject.rsplit_once('.')?.1.parse().ok()
}

/// Whose use is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted<'a> {
    Org(&'a str),
    Address(IpAddr),
}

/// What one-time passwords are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes<'a> {
    Session(Uuid),
    /// A group of clients' addresses.
    Source(&'a str),
    /// Such a group, and the address or number that a password is sent to.
    Pair(&'a str, &'a str),
    /// The address or number alone.
    Contact(&'a str),
    Org(&'a str),
    /// Of one challenge, how often a password was entered.
    Tries(Uuid),
}

/// `count.org.{org}.messages.{minute}`: messages that ask for a turn. Publishers: edges. Stream: COUNTERS.
pub fn count_messages(org: &str, minute: i64) -> String {
    format!("{}.messages.{minute}", counted(Counted::Org(org)))
}

/// `count.org.{org}.tokens.{day}`: tokens of the model. Publishers: workers. Readers: edges. Stream: COUNTERS.
pub fn count_tokens(org: &str, day: NaiveDate) -> String {
    format!("{}.tokens.{}", counted(Counted::Org(org)), day.format("%Y%m%d"))
}

/// `count.address.{address}.sessions.{minute}`: sessions that were opened. Publishers: edges. Stream: COUNTERS.
pub fn count_sessions(address: IpAddr, minute: i64) -> String {
    format!("{}.sessions.{minute}", counted(Counted::Address(address)))
}

/// `count.codes.{kind}.{whose}.{window}`: one-time passwords that were sent, or entered, by windows of time. Publishers: edges
/// and workers. Stream: COUNTERS.
pub fn count_codes(codes: Codes, window: i64) -> String {
    // An address says who somebody is, and subjects are shown by monitoring.
    let (kind, whose) = match codes {
        Codes::Session(session) => ("session", session.to_string()),
        Codes::Source(source) => ("source", encode_token(source)),
        Codes::Pair(source, contact) => ("pair", hash(&format!("{source} {contact}"))),
        Codes::Contact(contact) => ("contact", hash(contact)),
        Codes::Org(org) => ("org", encode_token(org)),
        Codes::Tries(challenge) => ("tries", challenge.to_string()),
    };
    format!("count.codes.{kind}.{whose}.{window}")
}

/// The group of addresses that a client's is in: a part of its hash that some hundred addresses share, so that what holds it
/// does not say where a person was.
pub fn source_of(address: IpAddr) -> String {
    hash(&address.to_string())[..6].to_string()
}

fn counted(whose: Counted) -> String {
    format!("count.{}", whose_token(whose))
}

fn whose_token(whose: Counted) -> String {
    match whose {
        Counted::Org(org) => format!("org.{}", encode_token(org)),
        // An address says who somebody is, and subjects are shown by monitoring.
        Counted::Address(address) => format!("address.{}", hash(&address.to_string())),
    }
}

/// `erased.{conversation}`: its keys are destroyed; whoever remembers it forgets it. Publisher: who erases. Subscribers: edges
/// and workers. Not kept.
pub fn erased(conversation: Uuid) -> String {
    format!("erased.{conversation}")
}

/// `erased.*`: a process's one subscription to what is erased.
pub const ERASED_ALL: &str = "erased.*";

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
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

/// `$JS.API.>`: all that JetStream can be asked.
pub const STREAMS_ALL: &str = "$JS.API.>";

/// `$JS.API.CONSUMER.{verb}.{stream}`: what a stream's consumers can be asked, with the consumer's name as a next token.
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

/// `_INBOX.{role}`: beginning of the subjects at which a process of this role gets replies.
pub fn inbox_prefix(role: &str) -> String {
    format!("_INBOX.{role}")
}

/// `$SYS.REQ.USER.INFO`: asks the server what the connection's user may do. For `turnstream nats check`.
pub const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// Name of a region's stream or of a name with the region in it: `CHAT_local`.
pub fn stream_name(base: &str, region: &str) -> String {
    format!("{base}_{region}")
}

/// One legal subject token for any text, reversible: letters, digits, `-` and `_` stand for themselves, every other byte
/// is `=` and two hexadecimal digits; the empty text is `=`. A text that is too long for a subject has a token that leads back
/// to no text: a server closes the connection of who sends it a longer line than it takes.
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

/// The text behind a token of [`encode_token`], or `None` when the token is not one.
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
    // One text has one token: another spelling of it would name a subject that nobody else builds.
    String::from_utf8(bytes).ok().filter(|text| encode_token(text) == token)
}

#[cfg(test)]
mod tests;
