//! Keys of KV buckets, and the subjects behind them.

use chrono::NaiveDate;
use uuid::Uuid;

use super::{ConversationKey, QuotaSubject, decode_token, encode_token, hash, whose_token};

/// Key of an edge's advertisement in the bucket EDGES: `{region}.{edge}`.
pub fn edge_key(region: &str, edge: Uuid) -> String {
    format!("{region}.{edge}")
}

/// Key of a note in the bucket TURNS: `{org}.{conversation}`; without a conversation, the filter of all notes of the
/// organisation.
pub fn turn_note_key(org: &str, conversation: Option<Uuid>) -> String {
    let conversation = conversation.map_or_else(|| "*".to_string(), |conversation| conversation.to_string());
    format!("{}.{conversation}", encode_token(org))
}

/// Key of an edge's connection count in the bucket TURNS: `connections.{org|address}.{key}.{edge}`; without an edge, the
/// filter of all edges' counts.
pub fn connections_key(whose: QuotaSubject, edge: Option<Uuid>) -> String {
    let edge = edge.map_or_else(|| "*".to_string(), |edge| edge.to_string());
    format!("connections.{}.{edge}", whose_token(whose))
}

/// Key of a browser in the bucket VISITORS: `{org}.{visitor}`; the visitor is a hash of agent and fingerprint.
pub fn visitor_key(org: &str, agent: &str, fingerprint: &str) -> String {
    format!("{}.{}", encode_token(org), hash(&format!("{}.{fingerprint}", encode_token(agent))))
}

/// Key of a session's proof in the bucket RESTORE.
pub fn restore_key(session: Uuid) -> String {
    session.to_string()
}

/// Key of a session's challenge in the bucket RESTORE.
pub fn challenge_key(session: Uuid) -> String {
    format!("challenge.{session}")
}

/// Key of a single-use value in the bucket ONCE; `id` is a hash.
pub fn once_key(id: &str) -> String {
    encode_token(id)
}

/// Key of a connector in the bucket SETTINGS: `{org}.connector.{id}`; without an id, the filter of all connectors of the
/// organisation.
pub fn connector_key(org: &str, connector: Option<Uuid>) -> String {
    let id = connector.map_or_else(|| "*".to_string(), |id| id.to_string());
    format!("{}.connector.{id}", encode_token(org))
}

/// `$KV.KEYS.{conversation}.{class}`: the key of a conversation's payloads of a class. Publishers: edges and workers, once;
/// erasing processes. Readers: edges, workers, auditors. Stream: KV_KEYS.
pub fn key_of(conversation: Uuid, class: &str) -> String {
    kv("KEYS", &format!("{conversation}.{class}"))
}

/// `$KV.KEYS.{conversation}.*`: the keys of a conversation, or of all conversations.
pub fn keys_of(conversation: Option<Uuid>) -> String {
    kv("KEYS", &conversation.map_or_else(|| ">".to_string(), |conversation| format!("{conversation}.*")))
}

/// Parses conversation and class from the subject of a key.
pub fn parse_key_of(subject: &str) -> Option<(Uuid, &str)> {
    let (conversation, class) = subject.strip_prefix("$KV.KEYS.")?.split_once('.')?;
    Some((conversation.parse().ok()?, class))
}

/// Key of a conversation's snapshot in the bucket CONVERSATIONS.
pub fn fold_key(key: &ConversationKey) -> String {
    format!("{}.{}.{}", key.region, encode_token(&key.org), key.conversation)
}

/// The owner filter of a list of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerScope<'a> {
    Everybody,
    Owner(&'a str),
}

/// Key of a conversation in the bucket INDEX: `{org}.{owner}.{day}.{conversation}`.
///
/// The owner is a hash of the e-mail address, because monitoring shows subjects; `=` = no owner. The day is the day of the
/// last message.
pub fn index_key(org: &str, owner: Option<&str>, day: NaiveDate, conversation: Uuid) -> String {
    format!("{}.{}.{}.{conversation}", encode_token(org), owner_token(owner), day.format("%Y%m%d"))
}

/// `{org}.{owner}.{day}.*`: the entries of an organisation or owner in the bucket INDEX, of one day or of all.
pub fn index_filter(org: &str, whose: OwnerScope, day: Option<NaiveDate>) -> String {
    let owner = match whose {
        OwnerScope::Everybody => "*".to_string(),
        OwnerScope::Owner(owner) => owner_token(Some(owner)),
    };
    let day = day.map_or_else(|| "*".to_string(), |day| day.format("%Y%m%d").to_string());
    format!("{}.{owner}.{day}.*", encode_token(org))
}

/// `{org}.*.*.{conversation}`: a conversation's entries in the bucket INDEX, under any owner and day.
pub fn index_everywhere(org: &str, conversation: Uuid) -> String {
    format!("{}.*.*.{conversation}", encode_token(org))
}

fn owner_token(owner: Option<&str>) -> String {
    owner.map_or_else(|| encode_token(""), hash)
}

/// Key of a worker's advertisement in the bucket WORKERS.
pub fn worker_key(region: &str, pool: &str, worker: Uuid) -> String {
    format!("{region}.{pool}.{worker}")
}

/// Parses region and pool from the key of a worker's advertisement.
pub fn parse_worker_key(key: &str) -> Option<(&str, &str)> {
    let mut tokens = key.split('.');
    Some((tokens.next()?, tokens.next()?))
}

/// Key of an agent's configuration in the bucket AGENTS.
pub fn agent_key(org: &str, agent: &str) -> String {
    format!("{}.{}", encode_token(org), encode_token(agent))
}

/// `$KV.AGENTS.>`: every agent's configuration. Writers: `turnstream agent`; readers: edges and workers. Stream: KV_AGENTS.
pub const AGENTS_ALL: &str = "$KV.AGENTS.>";

/// Parses organisation and agent from the subject of a configuration.
pub fn parse_agent(subject: &str) -> Option<(String, String)> {
    let (org, agent) = subject.strip_prefix("$KV.AGENTS.")?.split_once('.')?;
    Some((decode_token(org)?, decode_token(agent)?))
}

/// Subject of a key of a KV bucket, for publishes with headers that the KV API does not offer.
pub fn kv(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// Parses the key from a subject of a bucket.
pub fn kv_key<'a>(bucket: &str, subject: &'a str) -> Option<&'a str> {
    subject.strip_prefix("$KV.")?.strip_prefix(bucket)?.strip_prefix('.')
}
