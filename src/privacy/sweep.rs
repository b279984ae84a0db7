//! Erases conversations at the end of their retention, in batches.
//!
//! Contract: memory holds the conversations of one batch. A sweep that dies is completed by the next one, which erases
//! nothing twice. A conversation that can't be erased delays no other: it is reported, and retried by the next sweep.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use uuid::Uuid;

use super::{
    erase::{self, ErasureFindings, ErasureOrder},
    ledger::{ErasureExtent, Ledger, LedgerError},
    retain::{DueConversation, DueConversations},
};
use crate::{
    config::PrivacyConfig, encryption::KeyClass, limits, log::jetstream_log::NatsLog, nats::ReadError,
    subjects::ConversationKey,
};

/// The parameters of a sweep.
pub struct RetentionSweep<'a> {
    pub log: &'a NatsLog,
    pub region: &'a str,
    pub privacy: &'a PrivacyConfig,
    /// The time at which conversations are due.
    pub at: DateTime<Utc>,
    /// Only count due conversations.
    pub dry_run: bool,
    /// Conversations that are read and erased in one batch.
    pub batch: usize,
}

/// A progress report of a sweep.
pub enum SweepEvent {
    /// Position in the bucket of keys.
    Position { read: u64, all: u64 },
    /// Content of the conversation can't be decrypted; it is erased all the same.
    Closed { conversation: Uuid, cause: String },
    /// A hold was placed on the conversation meanwhile.
    HeldNow { conversation: Uuid },
    /// The conversation can't be erased now.
    Failed { conversation: Uuid, cause: String },
}

/// Counts of the conversations of one extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtentTally {
    pub due: u64,
    pub held: u64,
    /// Conversations with an unfinished turn.
    pub busy: u64,
    pub failed: u64,
    pub erased: u64,
}

/// The tallies of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    pub all: ExtentTally,
    pub tools: ExtentTally,
    /// Conversations of earlier erasures that could not be completed.
    pub still_open: u64,
}

impl SweepReport {
    fn of(&mut self, extent: ErasureExtent) -> &mut ExtentTally {
        match extent {
            ErasureExtent::All => &mut self.all,
            ErasureExtent::Tools => &mut self.tools,
        }
    }

    /// Returns the number of conversations that could not be erased.
    pub fn failed(&self) -> u64 {
        self.all.failed + self.tools.failed + self.still_open
    }
}

impl RetentionSweep<'_> {
    /// Runs the sweep: (1) complete the erasures that an earlier sweep began; (2) find due conversations, batch by batch;
    /// (3) erase each full batch.
    pub async fn run(&self, ledger: &mut Ledger, told: &impl Fn(SweepEvent)) -> Result<SweepReport, LedgerError> {
        let (mut swept, mut still_open) = (SweepReport::default(), BTreeSet::new());
        if !self.dry_run {
            let overdue = DueConversations::new(self.log, self.region, self.privacy, self.at);
            let still_due = |id: Uuid, extent, found: &ErasureFindings| {
                let is_busy = extent == ErasureExtent::Tools && found.active.contains_key(&id);
                let due = DueConversation {
                    conversation: id,
                    extent,
                    classes: KeyClass::ALL.iter().map(|(_, name)| *name).collect(),
                };
                let known = found.keys.get(&id).zip(found.last_at.get(&id).copied());
                !is_busy && known.is_none_or(|(key, at)| overdue.is_due(&due, &key.org, at))
            };
            let completed = erase::complete_open(self.log, ledger, self.region, Some(&still_due)).await?;
            swept.still_open = completed.failed.len() as u64;
            for (conversation, cause) in completed.failed {
                still_open.insert(conversation);
                told(SweepEvent::Failed { conversation, cause });
            }
        }
        let mut overdue = DueConversations::new(self.log, self.region, self.privacy, self.at);
        let mut waiting: [(ErasureExtent, Vec<DueConversation>); 2] =
            [(ErasureExtent::All, Vec::new()), (ErasureExtent::Tools, Vec::new())];
        loop {
            let next = overdue.next().await?;
            let is_over = next.is_none();
            for due in next.into_iter().flatten().filter(|due| !still_open.contains(&due.conversation)) {
                let list = waiting.iter_mut().find(|(extent, _)| *extent == due.extent);
                list.expect("there is a list for each extent").1.push(due);
            }
            for (extent, list) in &mut waiting {
                while list.len() >= self.batch || (is_over && !list.is_empty()) {
                    let batch = list.split_off(list.len().saturating_sub(self.batch));
                    self.serve(ledger, (*extent, batch), &overdue, swept.of(*extent), told).await?;
                }
            }
            let (read, all) = overdue.position().await?;
            told(SweepEvent::Position { read, all });
            if is_over {
                return Ok(swept);
            }
        }
    }

    /// Reads a batch of conversations and erases the erasable ones.
    async fn serve(
        &self,
        ledger: &mut Ledger,
        (extent, batch): (ErasureExtent, Vec<DueConversation>),
        overdue: &DueConversations<'_>,
        tally: &mut ExtentTally,
        told: &impl Fn(SweepEvent),
    ) -> Result<(), LedgerError> {
        let read = stream::iter(&batch).map(|due| async move {
            (due, ErasureFindings::in_conversation(self.log, self.region, due.conversation).await)
        });
        let read: Vec<(&DueConversation, Result<ErasureFindings, ReadError>)> =
            read.buffer_unordered(limits::ERASE_PARALLEL).collect().await;
        let mut found = ErasureFindings::default();
        for (due, one) in read {
            let id = due.conversation;
            let one = match one {
                Ok(one) => one,
                Err(error) => {
                    (tally.due, tally.failed) = (tally.due + 1, tally.failed + 1);
                    told(SweepEvent::Failed { conversation: id, cause: error.to_string() });
                    continue;
                }
            };
            // The conversation had a message meanwhile, or a replica lagged behind.
            let is_due = |(key, at): (&ConversationKey, _)| overdue.is_due(due, &key.org, at);
            if !one.keys.get(&id).zip(one.last_at.get(&id).copied()).is_some_and(is_due) {
                continue;
            }
            tally.due += 1;
            if ledger.hold_on(id, one.people.get(&id)).is_some() {
                tally.held += 1;
            } else if extent == ErasureExtent::Tools && one.active.contains_key(&id) {
                // The turn needs its tools' arguments and results until it ends.
                tally.busy += 1;
            } else {
                found.add(one);
            }
        }
        for (conversation, cause) in std::mem::take(&mut found.closed) {
            told(SweepEvent::Closed { conversation, cause });
        }
        if self.dry_run {
            return Ok(());
        }
        self.erase(ledger, (extent, found), tally, told).await
    }

    async fn erase(
        &self,
        ledger: &mut Ledger,
        (extent, found): (ErasureExtent, ErasureFindings),
        tally: &mut ExtentTally,
        told: &impl Fn(SweepEvent),
    ) -> Result<(), LedgerError> {
        let mut conversations: BTreeSet<Uuid> = found.keys.keys().copied().collect();
        while !conversations.is_empty() {
            let (reason, by) = ("kept long enough".to_string(), erase::RETENTION.to_string());
            let order = ErasureOrder { person: None, conversations: conversations.clone(), extent, reason, by };
            match erase::erase(self.log, ledger, &found, &order, || {}).await {
                Ok(erased) => {
                    tally.erased += erased.conversations;
                    tally.failed += erased.failed.len() as u64;
                    erased
                        .failed
                        .into_iter()
                        .for_each(|(conversation, cause)| told(SweepEvent::Failed { conversation, cause }));
                    break;
                }
                // The other conversations are due all the same.
                Err(LedgerError::Held { conversation, .. }) if conversations.remove(&conversation) => {
                    tally.held += 1;
                    told(SweepEvent::HeldNow { conversation });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
