//! The way from a fold to a conversation's last event: what each event says of the one before it, and the order of the log where
//! that leads astray.

use super::{Conversations, snapshot::Cached};
use crate::{
    domain::{
        Event,
        event::{Cause, Unreadable, kind},
    },
    log::{EventLog, ReadError, Stored, Via},
    subjects::ConversationKey,
};

/// What leads from a fold to a conversation's last event.
pub(super) enum Chain {
    /// The events between them, oldest first.
    Whole(Vec<Stored>),
    /// The copy that answered lacks one of them.
    Lacking,
    /// The fold is not of this log.
    Elsewhere,
}

impl<L: EventLog> Conversations<L> {
    /// The events from a fold's last one to the conversation's, found by following what each says of the one before it. Where
    /// that leads astray, the log is read in its order instead: an event that nobody could follow costs no other.
    pub(super) async fn chain(
        &self,
        key: &ConversationKey,
        last: Stored,
        cached: &Cached,
        via: Via,
    ) -> Result<Chain, ReadError> {
        let base = cached.state.last_seq;
        let reaches = last.recorded.seq;
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
                chain.reverse();
                return Ok(Chain::Whole(chain));
            }
            if prev < base {
                break;
            }
            match self.log.at(key, prev, via).await? {
                Some(older) if digest == Some(older.recorded.digest) || older.envelope.prev_digest.is_none() => {
                    chain.push(older);
                }
                Some(_) => break,
                None if via == Via::Replica => return Ok(Chain::Lacking),
                None => break,
            }
        }
        match Box::pin(self.in_order(key, cached, via)).await? {
            // The copy that was read in order lags behind.
            Chain::Whole(events) if events.last().is_none_or(|event| event.recorded.seq < reaches) => {
                Ok(Chain::Lacking)
            }
            chain => Ok(chain),
        }
    }

    /// The events after a fold's last one as the log has them, each held to what it says of the one before it.
    async fn in_order(&self, key: &ConversationKey, cached: &Cached, via: Via) -> Result<Chain, ReadError> {
        let base = cached.state.last_seq;
        if base > 0 {
            match self.log.at(key, base, via).await? {
                Some(stored) if cached.ends_with(&stored) => {}
                None if via == Via::Replica => return Ok(Chain::Lacking),
                Some(_) | None => return Ok(Chain::Elsewhere),
            }
        }
        let mut events = self.log.after(key, base).await?;
        let mut before = base;
        for stored in &mut events {
            let (seq, prev) = (stored.recorded.seq, stored.envelope.prev);
            // One that leads past an event that is there was not appended by the rule. One whose predecessor is gone was.
            if (!stored.is_linked || prev < before) && !matches!(stored.recorded.event, Event::Unreadable(_)) {
                let (name, detail) =
                    (stored.recorded.event.kind().to_string(), format!("it does not follow event {before}"));
                stored.recorded.event = Event::Unreadable(Unreadable { name, cause: Cause::Malformed, detail });
            }
            before = seq;
        }
        Ok(if events.is_empty() { Chain::Lacking } else { Chain::Whole(events) })
    }
}
