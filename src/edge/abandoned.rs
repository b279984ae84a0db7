//! Ends queued turns whose pool has no worker, also those that no connection watches.
//!
//! Contract: a turn that was accepted ends, whatever becomes of its pool and its client. Every edge sweeps; the log lets one of them
//! end a turn, and none where a worker has claimed it meanwhile. While a pool has a worker, its consumer is not even asked.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use chrono::TimeDelta;

use super::{Edge, ending};
use crate::{
    domain::event::kind,
    limits,
    log::{
        ReadError,
        load::{ExecuteError, Freshness},
        nats::CHAT,
    },
    subjects::{self, ConversationKey},
};

/// The events that are work items.
const ITEMS: [&str; 2] = [kind::TURN_REQUESTED, kind::TURN_RESUMED];

/// How far the turns that wait were looked at.
#[derive(Default)]
pub(super) struct Sweep {
    pools: HashMap<String, Swept>,
}

#[derive(Default)]
struct Swept {
    /// For each kind of work item, the sequence up to which each was looked at.
    to: [u64; ITEMS.len()],
    /// Those that could not be looked at then.
    again: VecDeque<(ConversationKey, u64)>,
}

impl Sweep {
    /// (1) Wait a while; (2) for each pool that has had no worker for as long as a turn may stand still: look at its work items that
    /// were not acknowledged, oldest first, and end the turns that still wait for a worker.
    pub async fn run(mut self, edge: &Edge) {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::ABANDONED_EVERY_MS)).await;
            let region = &edge.settings.regions.home;
            let mut pools = edge.workers.pools(region);
            pools.insert(edge.settings.pool.clone());
            for pool in pools {
                if !edge.workers.has_had_none(region, &pool, edge.settings.turn_limit) {
                    self.pools.remove(&pool);
                    continue;
                }
                let swept = self.pools.entry(pool.clone()).or_default();
                if let Err(error) = swept.go_on(edge, &pool).await {
                    tracing::warn!(%error, pool, "turns without a worker can't be ended now");
                }
            }
        }
    }
}

impl Swept {
    async fn go_on(&mut self, edge: &Edge, pool: &str) -> Result<(), ReadError> {
        for (key, seq) in std::mem::take(&mut self.again) {
            self.look_at(edge, key, seq).await;
        }
        let region = &edge.settings.regions.home;
        let stream = subjects::stream_name(CHAT, region);
        let Some(first) = edge.log.unserved_from(&stream, pool).await? else { return Ok(()) };
        for (n, kind) in ITEMS.iter().enumerate() {
            let subject = subjects::work_items(region, kind, pool);
            let mut more = true;
            while more {
                let items;
                (items, more) = edge.log.next_of(&stream, &subject, first.max(self.to[n] + 1)).await?;
                more &= !items.is_empty();
                for item in items {
                    if edge.log.now() - item.stored_at <= limit(edge) {
                        more = false;
                        break;
                    }
                    self.to[n] = item.seq;
                    if let Some(key) = ConversationKey::parse_event(&item.subject) {
                        self.look_at(edge, key, item.seq).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the turn of a conversation if it waits in vain. What can't be found out now is looked at again in the next round.
    async fn look_at(&mut self, edge: &Edge, key: ConversationKey, seq: u64) {
        let looked = async {
            let state = edge.conversations.load(&key, Freshness::AtLeast(seq)).await?;
            ending::end_if_abandoned(edge, &key, &state).await?;
            Ok::<_, ExecuteError>(())
        };
        let Err(error) = looked.await else { return };
        tracing::warn!(%error, conversation = %key.conversation, "a turn without a worker can't be ended now");
        if self.again.len() < limits::ABANDONED_AGAIN {
            self.again.push_back((key, seq));
        }
    }
}

/// How old an item is at least whose turn has stood still for too long, by whichever clock.
fn limit(edge: &Edge) -> TimeDelta {
    let clocks = Duration::from_millis(limits::CLOCK_OFFSET_MAX_MS.unsigned_abs());
    TimeDelta::from_std(edge.settings.turn_limit.saturating_add(clocks)).unwrap_or(TimeDelta::MAX)
}
