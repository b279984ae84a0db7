//! Ends abandoned turns in pools without a worker, also turns that no connection watches.
//!
//! Contract: an accepted turn ends, in spite of the loss of its pool or its client, as soon as some edge has run for as long as a
//! turn may stand still. Every edge sweeps; the log lets one edge end a turn, and none if a worker has gone on with the turn
//! meanwhile. While a pool has a worker, its consumer is not queried at all. Where nothing has changed since the last complete sweep,
//! the consumer is asked for two numbers and the log for nothing.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use chrono::TimeDelta;

use crate::{
    domain::event::kind,
    edge::{Edge, ending},
    limits,
    log::conversations::{ExecuteError, Freshness},
    nats::{ReadError, count::ConsumerBacklog, streams::CHAT},
    subjects::{self, ConversationKey},
};

/// The kinds of events that are work items.
const ITEMS: [&str; 2] = [kind::TURN_REQUESTED, kind::TURN_RESUMED];

/// The progress of the sweep over waiting turns, by pool.
#[derive(Default)]
pub(in crate::edge) struct AbandonedSweep {
    pools: HashMap<String, SweepPosition>,
}

#[derive(Default)]
struct SweepPosition {
    /// The last inspected sequence of each kind of work item.
    to: [u64; ITEMS.len()],
    /// Items to inspect again: their turns still waited, or could not be ended.
    again: VecDeque<(ConversationKey, u64)>,
    /// The consumer's state at the last complete look, and the time when the oldest item that was too young then is old enough.
    settled: Option<(ConsumerBacklog, Option<Instant>)>,
}

impl AbandonedSweep {
    /// Sweeps until the edge stops.
    ///
    /// (1) Waits for the sweep interval.
    /// (2) For each pool that has had no worker for as long as a turn may stand still: looks at the unacknowledged work items, oldest
    /// first, and ends the turns that still wait for a worker.
    pub async fn run(mut self, edge: &Edge) {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::ABANDONED_EVERY_MS)).await;
            let region = &edge.settings.regions.home;
            let mut pools = edge.workers.pools(region);
            pools.insert(edge.settings.pool.clone());
            // Includes pools without any worker since this edge started.
            pools.extend(edge.agents.pools());
            for pool in pools {
                if !edge.workers.has_had_none(region, &pool, edge.settings.turn_limit) {
                    self.pools.remove(&pool);
                    continue;
                }
                let swept = self.pools.entry(pool.clone()).or_default();
                if let Err(error) = swept.go_on(edge, &pool).await {
                    tracing::warn!(%error, pool, "a sweep of turns without a worker failed; the next round tries again");
                }
            }
        }
    }
}

impl SweepPosition {
    async fn go_on(&mut self, edge: &Edge, pool: &str) -> Result<(), ReadError> {
        let region = &edge.settings.regions.home;
        let stream = subjects::stream_name(CHAT, region);
        let Some(unserved) = edge.log.unserved(&stream, pool).await? else { return Ok(()) };
        let is_settled = |(known, due): (ConsumerBacklog, Option<Instant>)| {
            known == unserved && due.is_none_or(|due| Instant::now() < due)
        };
        if !self.settled.is_some_and(is_settled) {
            self.settled = None;
            let due = self.look_on(edge, (&stream, pool), unserved.from).await?;
            self.settled = Some((unserved, due));
        }
        for (key, seq) in std::mem::take(&mut self.again) {
            self.look_at(edge, key, seq).await;
        }
        Ok(())
    }

    /// Inspects the items that were not inspected yet. Returns the time when the next item is old enough.
    async fn look_on(
        &mut self,
        edge: &Edge,
        (stream, pool): (&str, &str),
        first: u64,
    ) -> Result<Option<Instant>, ReadError> {
        let mut due: Option<Instant> = None;
        for (n, kind) in ITEMS.iter().enumerate() {
            let subject = subjects::work_items(&edge.settings.regions.home, kind, pool);
            let mut more = true;
            while more {
                let items;
                (items, more) = edge.log.next_of(stream, &subject, first.max(self.to[n] + 1)).await?;
                more &= !items.is_empty();
                for item in items {
                    let left = (limit(edge) - (edge.log.now() - item.stored_at)).to_std().ok();
                    // A full list takes no more: this item stays for the next round.
                    let full = self.again.len() >= limits::ABANDONED_AGAIN;
                    if let Some(left) = left.or_else(|| full.then_some(Duration::ZERO)) {
                        let at = Instant::now() + left;
                        due = Some(due.map_or(at, |due| due.min(at)));
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
        Ok(due)
    }

    /// Ends the turn of a conversation if no worker will take it. A turn that still waits is queued for the next round.
    async fn look_at(&mut self, edge: &Edge, key: ConversationKey, seq: u64) {
        let looked = async {
            let state = edge.conversations.load(&key, Freshness::AtLeast(seq)).await?;
            let ended = ending::end_if_abandoned(edge, &key, &state).await?.is_some();
            let waits = state.turn.as_ref().is_some_and(|turn| turn.item == seq && turn.park.is_none());
            Ok::<_, ExecuteError>(waits && !ended)
        };
        match looked.await {
            Ok(false) => {}
            Ok(true) => self.again.push_back((key, seq)),
            Err(error) => {
                tracing::warn!(%error, conversation = %key.conversation, "a turn without a worker can't be ended; the next round retries");
                self.again.push_back((key, seq));
            }
        }
    }
}

/// The least age of an item with a turn that has stood still for too long, by either clock.
fn limit(edge: &Edge) -> TimeDelta {
    let clocks = Duration::from_millis(limits::CLOCK_OFFSET_MAX_MS.unsigned_abs());
    TimeDelta::from_std(edge.settings.turn_limit.saturating_add(clocks)).unwrap_or(TimeDelta::MAX)
}
