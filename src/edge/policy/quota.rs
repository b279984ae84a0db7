//! Usage by connections, sessions and organisations, counted over all edges.
//!
//! Messages are counted by the minute, tokens by the day, in counters of the log's server; their subjects hold minute and day.
//! Each edge counts its own connections ([`connections`]). Running turns are not counted up and down, which a crash would
//! falsify: each message leaves a note of its conversation, which the turn's end removes; and when there are as many notes as
//! turns are allowed, the log says which of them still run.

pub mod connections;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use moka::sync::Cache;
use uuid::Uuid;
use warp::http::HeaderMap;

use connections::ConnectionCounter;
pub use connections::ConnectionSlot;

use crate::{
    config::Quotas,
    domain::{Conversation, conversation::MessageBody},
    limits,
    log::{
        conversations::{Conversations, Freshness},
        jetstream_log::NatsLog,
        notes::RunningTurnNote,
    },
    nats::{AppendError, ReadError},
    subjects::{self, ConversationKey, QuotaSubject},
};

/// The reason why a request is not served now.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error("limit exceeded; retry in {0} s")]
    Limited(u64),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Write(#[from] AppendError),
}

/// The quotas of an edge, and the counters behind them.
#[derive(Clone)]
pub struct QuotaCounter {
    limits: Quotas,
    log: NatsLog,
    connections: ConnectionCounter,
    /// The writes of each address in the last minute.
    written: Cache<IpAddr, Arc<Mutex<MessageRate>>>,
}

/// A counter that starts anew every minute.
#[derive(Debug)]
pub struct MessageRate {
    began: Instant,
    count: u64,
}

impl Default for MessageRate {
    fn default() -> Self {
        Self { began: Instant::now(), count: 0 }
    }
}

impl MessageRate {
    /// Counts one more, unless `max` were counted in this minute; 0 means no limit.
    pub fn take(&mut self, max: u64) -> Result<(), QuotaError> {
        const MINUTE: Duration = Duration::from_secs(60);
        if self.began.elapsed() >= MINUTE {
            *self = Self::default();
        }
        if max > 0 && self.count >= max {
            return Err(QuotaError::Limited((MINUTE - self.began.elapsed()).as_secs() + 1));
        }
        self.count += 1;
        Ok(())
    }
}

/// Parses an entry of `X-Forwarded-For`: an address, with or without a port.
fn forwarded(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches('"');
    let bracketed = || entry.strip_prefix('[')?.split_once(']').map(|(address, _)| address)?.parse().ok();
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    entry.parse().ok().or_else(with_port).or_else(bracketed)
}

/// Returns the address that counts: of IPv6 the network, since one client has all of its addresses.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address.to_canonical(),
    }
}

impl QuotaCounter {
    pub fn new(limits: Quotas, log: NatsLog, edge: Uuid) -> Self {
        let written = Cache::builder().max_capacity(limits::ADDRESSES_COUNTED);
        let written = written.time_to_idle(Duration::from_secs(120)).build();
        Self { limits, connections: ConnectionCounter::new(log.clone(), edge), log, written }
    }

    /// Returns the address that a connection counts for: the one that the outermost known proxy saw.
    ///
    /// Of IPv6 the network counts. `None` if a proxy wrote something that is no address, so that the connection can't be
    /// attributed.
    pub fn address(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let Some(hops) = self.limits.proxies.checked_sub(1) else { return Some(network(peer)) };
        // Several header lines are one list, in their order.
        let lines = headers.get_all("x-forwarded-for").iter();
        let list = lines.map(|line| line.to_str().ok()).collect::<Option<Vec<_>>>()?.join(",");
        let entries: Vec<&str> = list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries.is_empty() {
            // A client inside the network has connected without the proxy.
            return Some(network(peer));
        }
        // A client that comes through fewer proxies than configured counts for the first of them.
        let at = entries.len().saturating_sub(1 + hops);
        forwarded(entries[at]).map(network)
    }

    /// Takes a connection slot, if one is free.
    pub async fn connect(&self, org: &str, address: IpAddr) -> Result<ConnectionSlot, QuotaError> {
        let of_org = self.limits.org_connections.of(org).map(|max| (QuotaSubject::Org(org), max));
        let of_address = self.limits.address_connections.map(|max| (QuotaSubject::Address(address), max));
        let mut place = self.connections.place();
        for (whose, max) in of_org.into_iter().chain(of_address) {
            if self.connections.add(&mut place, whose).await? > max {
                return Err(QuotaError::Limited(limits::CONNECTION_RETRY_SECS));
            }
        }
        Ok(place)
    }

    /// Keeps this edge's connection counts current for other edges.
    pub async fn keep(self) {
        self.connections.keep().await;
    }

    /// Counts a session, if its address may open one more in this minute.
    pub async fn open_session(&self, address: IpAddr) -> Result<(), QuotaError> {
        let Some(max) = self.limits.address_sessions else { return Ok(()) };
        let now = Utc::now();
        self.count_in_minute(&subjects::count_sessions(address, minute(now)), max, now).await
    }

    /// Counts a permanent write of a connection, if the connection and its address may have one more.
    pub fn write(&self, address: IpAddr, written: &mut MessageRate) -> Result<(), QuotaError> {
        written.take(self.limits.connection_writes)?;
        self.write_from(address)
    }

    /// Counts a permanent write outside of connections.
    ///
    /// Each edge counts for itself: a limit against floods is not worth a request to the log's server for each session.
    pub fn write_from(&self, address: IpAddr) -> Result<(), QuotaError> {
        let written = self.written.get_with(address, Arc::default);
        written.lock().expect("no panic happens under this lock").take(self.limits.address_writes)
    }

    /// Counts a message that requests a turn, if there may be one more. `used` is the count of its connection.
    pub async fn send_message(
        &self,
        conversations: &Conversations<NatsLog>,
        key: &ConversationKey,
        turn: Uuid,
        used: &mut MessageRate,
    ) -> Result<(), QuotaError> {
        let (org, now) = (&key.org, Utc::now());
        let in_session = self.limits.session_messages.of(org);
        // The cached state may be behind: another edge may have taken messages, and a turn may have ended.
        let state = match conversations.cached(key).filter(|state| in_session.is_none() && state.turn.is_none()) {
            Some(state) => state,
            None => conversations.load(key, Freshness::AtLeast(0)).await?,
        };
        // A repeated request asks for nothing new, and a message during an active turn is refused for that reason. A turn that
        // waits for a person may give way.
        let stands = state.turn.as_ref().is_some_and(|active| active.request.turn == turn || active.park.is_none());
        if stands || state.finished_turn(turn).is_some() {
            return Ok(());
        }
        used.take(self.limits.connection_messages)?;
        if let Some(max) = in_session {
            in_conversation(&state, max, now)?;
        }
        if let Some(max) = self.limits.org_tokens.of(org) {
            let counted = self.log.counted(&subjects::count_tokens(org, now.date_naive())).await?;
            if counted.first().is_some_and(|(_, tokens)| *tokens >= max as i64) {
                let midnight = (now.date_naive() + chrono::Days::new(1)).and_time(Default::default()).and_utc();
                return Err(QuotaError::Limited(seconds_until(midnight, now)));
            }
        }
        if let Some(max) = self.limits.org_messages.of(org) {
            self.count_in_minute(&subjects::count_messages(org, minute(now)), max, now).await?;
        }
        if let Some(max) = self.limits.org_turns.of(org) {
            self.begin_turn(conversations, key, turn, max as usize).await?;
        }
        Ok(())
    }

    async fn count_in_minute(&self, subject: &str, max: u64, now: DateTime<Utc>) -> Result<(), QuotaError> {
        let count = self.log.count(subject, 1, &new_id()).await?;
        if count.is_some_and(|count| count > max as i64) {
            return Err(QuotaError::Limited((60 - now.timestamp().rem_euclid(60)) as u64));
        }
        Ok(())
    }

    /// Notes that a conversation begins a turn, if the organisation may run one more.
    ///
    /// The note comes first, so that two edges see each other's. Before a turn is refused, notes of turns that do not run are
    /// removed, so they cost the next turn nothing.
    async fn begin_turn(
        &self,
        conversations: &Conversations<NatsLog>,
        key: &ConversationKey,
        turn: Uuid,
        max: usize,
    ) -> Result<(), QuotaError> {
        self.log.note_turn(&key.org, key.conversation, turn).await?;
        let admitted = self.is_room(conversations, key, max).await;
        if !matches!(admitted, Ok(true)) {
            // The turn does not begin.
            self.log.drop_note(&key.org, key.conversation, turn).await?;
        }
        if admitted? { Ok(()) } else { Err(QuotaError::Limited(limits::TURN_RETRY_SECS)) }
    }

    async fn is_room(
        &self,
        conversations: &Conversations<NatsLog>,
        key: &ConversationKey,
        max: usize,
    ) -> Result<bool, QuotaError> {
        let mut notes = self.log.notes_of_turns(&key.org).await?;
        notes.retain(|note| note.conversation != key.conversation);
        if notes.len() < max {
            return Ok(true);
        }
        let checked = stream::iter(notes).map(|note| async move {
            let runs = self.is_running(conversations, key, &note).await;
            (note, runs)
        });
        let mut checked = std::pin::pin!(checked.buffer_unordered(limits::QUOTA_PARALLEL));
        let mut running = 0;
        while let Some((note, runs)) = checked.next().await {
            match runs? {
                true => running += 1,
                false => self.log.drop_note_at(&key.org, note.conversation, note.seq).await?,
            }
            if running >= max {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the note of a turn that this edge has ended.
    pub fn end_turn(&self, key: &ConversationKey, turn: Uuid) {
        if self.limits.org_turns.of(&key.org).is_none() {
            return;
        }
        let (log, key) = (self.log.clone(), key.clone());
        tokio::spawn(async move {
            if let Err(error) = log.drop_note(&key.org, key.conversation, turn).await {
                tracing::debug!(%error, "the note of an ended turn was not removed; it is removed when its slot is needed");
            }
        });
    }

    /// Returns true if a note is about a running turn.
    ///
    /// A turn that waits for a person does not run; a turn without a stored request does, while another edge may be writing
    /// that request.
    async fn is_running(
        &self,
        conversations: &Conversations<NatsLog>,
        key: &ConversationKey,
        note: &RunningTurnNote,
    ) -> Result<bool, ReadError> {
        let key = ConversationKey { conversation: note.conversation, ..key.clone() };
        let state = conversations.load(&key, Freshness::AtLeast(0)).await?;
        Ok(match &state.turn {
            Some(turn) => turn.park.is_none(),
            None => {
                let age = self.log.now() - note.stored_at;
                state.finished_turn(note.turn).is_none() && age < TimeDelta::milliseconds(limits::ACT_NOT_AFTER_MS)
            }
        })
    }
}

/// Checks that a conversation may have one more message in this minute, by the times of its last ones.
fn in_conversation(state: &Conversation, max: u64, now: DateTime<Utc>) -> Result<(), QuotaError> {
    let minute = TimeDelta::seconds(60);
    let asked = state.messages.iter().filter(|message| matches!(message.body, MessageBody::User(_)));
    let recent: Vec<_> = asked.map(|message| message.at).filter(|at| now - *at < minute).collect();
    match recent.len().checked_sub(max as usize).and_then(|first| recent.get(first)) {
        Some(first) => Err(QuotaError::Limited(seconds_until(*first + minute, now))),
        None if max == 0 => Err(QuotaError::Limited(60)),
        None => Ok(()),
    }
}

fn seconds_until(then: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
    (then - now).num_seconds().max(0) as u64 + 1
}

fn minute(now: DateTime<Utc>) -> i64 {
    now.timestamp().div_euclid(60)
}

fn new_id() -> String {
    format!("quota-{}", Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_entry_is_an_address_or_nothing() {
        for (entry, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:4711", Some("203.0.113.7")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("\"[2001:db8::1]:80\"", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("unknown", None),
            ("_hidden", None),
            ("203.0.113.7:port", None),
            ("203.0.113", None),
        ] {
            assert_eq!(forwarded(entry), expected.map(|address| address.parse().unwrap()), "{entry}");
        }
    }

    #[test]
    fn a_minute_allows_a_bounded_number_of_messages() {
        let mut used = MessageRate::default();
        assert!((0..3).all(|_| used.take(3).is_ok()));
        assert!(matches!(used.take(3), Err(QuotaError::Limited(1..=60))));
        used.began -= Duration::from_secs(60);
        assert!(used.take(3).is_ok());
        assert!((0..100).all(|_| used.take(0).is_ok()), "0 is no limit");
    }
}
