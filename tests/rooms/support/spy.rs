//! An in-memory log that records its reads and can be made to lag, to forget, and to have its own clock.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use turnstream::{
    log::{AppendReceipt, EventLog, NewEvent, StoredEvent, memory::MemoryLog},
    nats::{AppendError, ReadError, ReadFrom},
    subjects::ConversationKey,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Last(ReadFrom),
    At(ReadFrom),
    After,
}

#[derive(Clone, Default)]
pub struct Spy(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    log: Arc<MemoryLog>,
    reads: Vec<Seen>,
    /// Replicas have events only up to this sequence.
    replicated: Option<u64>,
    clock: Option<DateTime<Utc>>,
    /// Appends are stored, and their acks are lost.
    appends_unheard: bool,
}

impl Spy {
    pub fn reads(&self) -> Vec<Seen> {
        self.0.lock().unwrap().reads.clone()
    }

    pub fn forget_reads(&self) {
        self.0.lock().unwrap().reads.clear();
    }

    /// Makes replicas lag at this sequence from now on.
    pub fn replicas_see(&self, seq: u64) {
        self.0.lock().unwrap().replicated = Some(seq);
    }

    /// Sets the storage time of events.
    pub fn events_are_stored_at(&self, time: DateTime<Utc>) {
        self.0.lock().unwrap().clock = Some(time);
    }

    /// Makes the log store appends without an answer from now on.
    pub fn answers_to_appends_are_lost(&self) {
        self.0.lock().unwrap().appends_unheard = true;
    }

    /// Replaces the log, as a restore from a backup does.
    pub fn restore(&self, log: MemoryLog) {
        self.0.lock().unwrap().log = Arc::new(log);
    }

    fn read(&self, seen: Seen) -> Arc<MemoryLog> {
        let mut inner = self.0.lock().unwrap();
        inner.reads.push(seen);
        inner.log.clone()
    }

    /// Returns the newest event that the copy read through `via` has.
    async fn newest(
        &self,
        log: &MemoryLog,
        key: &ConversationKey,
        mut stored: Option<StoredEvent>,
        via: ReadFrom,
    ) -> Result<Option<StoredEvent>, ReadError> {
        let (replicated, clock) = {
            let inner = self.0.lock().unwrap();
            (inner.replicated.filter(|_| via == ReadFrom::Replica).unwrap_or(u64::MAX), inner.clock)
        };
        while let Some(later) = stored.take_if(|stored| stored.recorded.seq > replicated) {
            stored = log.at(key, later.envelope.prev, ReadFrom::Leader).await?;
        }
        if let (Some(stored), Some(clock)) = (&mut stored, clock) {
            stored.recorded.stored_at = clock;
        }
        Ok(stored)
    }
}

impl EventLog for Spy {
    async fn append(
        &self,
        key: &ConversationKey,
        expected: u64,
        event: &NewEvent,
    ) -> Result<AppendReceipt, AppendError> {
        let (log, unheard) = {
            let inner = self.0.lock().unwrap();
            (inner.log.clone(), inner.appends_unheard)
        };
        let appended = log.append(key, expected, event).await;
        if unheard { Err(AppendError::Unavailable("the answer is lost".into())) } else { appended }
    }

    async fn last(&self, key: &ConversationKey, via: ReadFrom) -> Result<Option<StoredEvent>, ReadError> {
        let log = self.read(Seen::Last(via));
        let last = log.last(key, via).await?;
        self.newest(&log, key, last, via).await
    }

    async fn at(&self, key: &ConversationKey, seq: u64, via: ReadFrom) -> Result<Option<StoredEvent>, ReadError> {
        let log = self.read(Seen::At(via));
        // A real log yields to other tasks here, too.
        tokio::task::yield_now().await;
        let stored = log.at(key, seq, via).await?;
        let found = self.newest(&log, key, stored, via).await?;
        Ok(found.filter(|stored| stored.recorded.seq == seq))
    }

    async fn after(&self, key: &ConversationKey, seq: u64) -> Result<(Vec<StoredEvent>, bool), ReadError> {
        let log = self.read(Seen::After);
        let clock = self.0.lock().unwrap().clock;
        let (mut events, more) = log.after(key, seq).await?;
        for stored in &mut events {
            stored.recorded.stored_at = clock.unwrap_or(stored.recorded.stored_at);
        }
        Ok((events, more))
    }
}
