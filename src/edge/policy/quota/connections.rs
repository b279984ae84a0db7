//! Connections, counted over all edges.
//!
//! Contract: an edge publishes its number of connections as an absolute value, not as a change, and repeats the value while it
//! holds; so a repeated, late or lost value counts no longer than its lifetime. Values of edges that are gone do not count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{QuotaError, new_id};
use crate::{
    limits,
    log::jetstream_log::NatsLog,
    nats::{AppendError, presence},
    subjects::{self, QuotaSubject},
    wire::presence::{EDGES, EDGES_STREAM},
};

/// The connection counts of an edge.
#[derive(Clone)]
pub struct ConnectionCounter {
    log: NatsLog,
    edge: Uuid,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// The numbers, by subject.
    numbers: Mutex<HashMap<String, Number>>,
    changed: Notify,
}

struct Number {
    connections: u64,
    /// The last published value; `None` if none is known to have arrived.
    said: Option<u64>,
}

/// A connection slot, counted for as long as the value lives.
pub struct ConnectionSlot {
    counts: Arc<Counts>,
    subjects: Vec<String>,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        for subject in &self.subjects {
            self.counts.change(subject, |number| number.connections = number.connections.saturating_sub(1));
        }
        self.counts.changed.notify_one();
    }
}

impl Counts {
    fn change<T>(&self, subject: &str, change: impl FnOnce(&mut Number) -> T) -> T {
        let mut numbers = self.numbers.lock().expect("no panic happens under this lock");
        change(numbers.entry(subject.to_string()).or_insert(Number { connections: 0, said: None }))
    }

    /// Returns the numbers that differ from the published ones, or all of them.
    fn to_say(&self, all: bool) -> Vec<(String, u64)> {
        let mut numbers = self.numbers.lock().expect("no panic happens under this lock");
        numbers.retain(|_, number| number.connections > 0 || number.said != Some(0));
        let due = numbers.iter().filter(|(_, number)| all || number.said != Some(number.connections));
        due.map(|(subject, number)| (subject.clone(), number.connections)).collect()
    }
}

impl ConnectionCounter {
    pub fn new(log: NatsLog, edge: Uuid) -> Self {
        Self { log, edge, counts: Arc::default() }
    }

    /// Returns a slot that counts nowhere yet.
    pub fn place(&self) -> ConnectionSlot {
        ConnectionSlot { counts: self.counts.clone(), subjects: Vec::new() }
    }

    /// Counts a slot; returns the number of slots on all edges then.
    pub async fn add(&self, place: &mut ConnectionSlot, whose: QuotaSubject<'_>) -> Result<u64, QuotaError> {
        let subject = subjects::kv(presence::NUMBERS, &subjects::connections_key(whose, Some(self.edge)));
        let own = self.counts.change(&subject, |number| {
            number.connections += 1;
            number.connections
        });
        place.subjects.push(subject.clone());
        self.say(&subject, own).await?;
        let alive = presence::processes(&self.log, EDGES_STREAM, EDGES).await?;
        let all = subjects::kv(presence::NUMBERS, &subjects::connections_key(whose, None));
        let others = presence::numbers(&self.log, &all).await?.into_iter();
        let others = others.filter(|(edge, _)| *edge != self.edge && alive.contains(edge));
        Ok(own + others.map(|(_, connections)| connections).sum::<u64>())
    }

    async fn say(&self, subject: &str, connections: u64) -> Result<(), AppendError> {
        let lifetime = limits::CONNECTIONS_TTL_SECS.to_string();
        let said = self.log.put(subject, &new_id(), &[("Nats-TTL", &lifetime)], connections.to_string().into()).await;
        self.counts.change(subject, |number| number.said = said.is_ok().then_some(connections));
        said
    }

    /// Publishes changed numbers, and all numbers from time to time, until the future is dropped.
    pub async fn keep(&self) {
        let every = Duration::from_secs(limits::CONNECTIONS_TTL_SECS / 3);
        let mut renewed = tokio::time::Instant::now();
        loop {
            let is_due = tokio::time::timeout_at(renewed + every, self.counts.changed.notified()).await.is_err();
            if is_due {
                renewed = tokio::time::Instant::now();
            }
            for (subject, connections) in self.counts.to_say(is_due) {
                if let Err(error) = self.say(&subject, connections).await {
                    tracing::warn!(%error, "the number of connections was not advertised to other edges");
                    self.counts.changed.notify_one();
                    tokio::time::sleep(Duration::from_millis(limits::RETRY_MAX_MS)).await;
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_counts_until_it_is_dropped() {
        let counts = Arc::<Counts>::default();
        let place = |subject: &str| {
            counts.change(subject, |number| number.connections += 1);
            ConnectionSlot { counts: counts.clone(), subjects: vec![subject.to_string()] }
        };
        let (first, second) = (place("a"), place("a"));
        assert_eq!(counts.to_say(false), [("a".to_string(), 2)]);
        counts.change("a", |number| number.said = Some(2));
        assert_eq!(counts.to_say(false), []);
        assert_eq!(counts.to_say(true), [("a".to_string(), 2)], "a count is advertised again before it expires");
        drop(first);
        drop(second);
        assert_eq!(counts.to_say(false), [("a".to_string(), 0)]);
        counts.change("a", |number| number.said = Some(0));
        assert_eq!(counts.to_say(true), [], "a count of zero is forgotten");
    }
}
