//! The chain from a snapshot to a conversation's last event.
//!
//! Each event links to the one before it. Where the links lead astray, or the chain is very long, the stream's order is
//! followed instead.
//!
//! Contract: a load holds at most [`limits::CHAIN_EVENTS`] events or [`limits::CHAIN_BYTES`] of a chain, or one batch of
//! the log, at any length of the conversation.

use std::sync::Arc;

use super::{Conversations, snapshots::Snapshot};
use crate::{
    domain::{
        Conversation, Event,
        event::{Unreadable, UnreadableCause, kind},
    },
    limits,
    log::{EventLog, StoredEvent},
    nats::{ReadError, ReadFrom},
    subjects::ConversationKey,
};

/// The outcome of following a chain from a fold to the conversation's last event.
pub(super) enum CatchUp {
    /// The fold of the last event, and the number of events folded.
    Folded(Arc<Conversation>, u64),
    /// The answering copy lacks an event.
    Lacking,
    /// The snapshot is of another log.
    Elsewhere,
}

impl<L: EventLog> Conversations<L> {
    /// Folds the events after a snapshot by following each event's link to the one before it.
    ///
    /// Where the links lead astray, the log is read in its order instead, so one broken event costs no other. The same
    /// applies to long chains.
    pub(super) async fn chain(
        &self,
        key: &ConversationKey,
        last: StoredEvent,
        cached: &Snapshot,
        via: ReadFrom,
    ) -> Result<CatchUp, ReadError> {
        let base = cached.state.last_seq;
        let reaches = last.recorded.seq;
        let mut bytes = last.bytes;
        let mut chain = vec![last];
        while let Some(oldest) = chain.last() {
            let (prev, digest) = (oldest.envelope.prev, oldest.envelope.prev_digest);
            if oldest.recorded.seq <= base || !oldest.is_linked {
                break;
            }
            if prev == base {
                let follows = match base {
                    0 => oldest.recorded.event.kind() == kind::SESSION_OPENED,
                    _ => digest == Some(cached.state.last_digest),
                };
                if !follows {
                    break;
                }
                let (mut state, events) = ((*cached.state).clone(), chain.len() as u64);
                chain.iter().rev().for_each(|stored| state.evolve(&stored.recorded));
                return Ok(CatchUp::Folded(Arc::new(state), events));
            }
            if prev < base || chain.len() >= self.chain_events || bytes >= limits::CHAIN_BYTES {
                break;
            }
            match self.log.at(key, prev, via).await? {
                Some(older) if digest == Some(older.recorded.digest) || older.envelope.prev_digest.is_none() => {
                    bytes += older.bytes;
                    chain.push(older);
                }
                Some(_) => break,
                None if via == ReadFrom::Replica => return Ok(CatchUp::Lacking),
                None => break,
            }
        }
        drop(chain);
        match Box::pin(self.in_order(key, cached, via)).await? {
            // The copy that was read in order lags behind.
            CatchUp::Folded(state, _) if state.last_seq < reaches => Ok(CatchUp::Lacking),
            chain => Ok(chain),
        }
    }

    /// Folds the events after a snapshot in stream order, batch by batch, and checks each event's link.
    async fn in_order(&self, key: &ConversationKey, cached: &Snapshot, via: ReadFrom) -> Result<CatchUp, ReadError> {
        let base = cached.state.last_seq;
        if base > 0 {
            match self.log.at(key, base, via).await? {
                Some(stored) if cached.ends_with(&stored) => {}
                None if via == ReadFrom::Replica => return Ok(CatchUp::Lacking),
                Some(_) | None => return Ok(CatchUp::Elsewhere),
            }
        }
        let mut state = (*cached.state).clone();
        let (mut before, mut count, mut more) = (base, 0, true);
        while more {
            let events;
            (events, more) = self.log.after(key, before).await?;
            for mut stored in events {
                let seq = stored.recorded.seq;
                void_if_astray(&mut stored, before);
                state.evolve(&stored.recorded);
                (before, count) = (seq, count + 1);
            }
        }
        Ok(if count == 0 { CatchUp::Lacking } else { CatchUp::Folded(Arc::new(state), count) })
    }
}

/// Voids an event that links past an existing one, for it was not appended by the rule.
///
/// An event with a missing predecessor was.
fn void_if_astray(stored: &mut StoredEvent, before: u64) {
    let is_astray = !stored.is_linked || stored.envelope.prev < before;
    if is_astray && !matches!(stored.recorded.event, Event::Unreadable(_)) {
        let (name, detail) =
            (stored.recorded.event.kind().to_string(), format!("the event does not follow event {before}"));
        stored.recorded.event = Event::Unreadable(Unreadable { name, cause: UnreadableCause::Malformed, detail });
    }
}
