//! Pages of lists, newest conversation first.
//!
//! The conversations of an owner or an organisation are mostly read whole, in one request. Where they are too many, day
//! after day is read, from the page's position backwards and in growing steps, until the page is full; so a page costs about
//! as much as it holds, however many conversations there are.

use std::collections::HashMap;

use chrono::{Days, NaiveDate, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::{BUCKET, ListEntry, ListPosition, STREAM};
use crate::{
    limits,
    log::jetstream_log::NatsLog,
    nats::{ReadError, direct_get::LastMessages, jetstream::RawMessage},
    subjects::{self, OwnerScope},
};

/// The day before which there was no conversation.
const FIRST_DAY: NaiveDate = NaiveDate::from_ymd_opt(2020, 1, 1).expect("a day of the calendar");
/// The largest number of days per request: their subjects are less than 100 KiB.
const DAYS_MAX: u64 = 512;

#[derive(Debug, Default)]
pub struct ListPage {
    pub entries: Vec<ListEntry>,
    /// The position at which the next page begins, if there may be one.
    pub next: Option<ListPosition>,
}

/// The query for a page: an owner's conversations, and a filter.
pub struct ListQuery<'a, F> {
    pub org: &'a str,
    pub whose: OwnerScope<'a>,
    /// Only entries behind this position.
    pub after: Option<ListPosition>,
    pub limit: usize,
    pub fits: F,
}

impl<F: Fn(&ListEntry) -> bool> ListQuery<'_, F> {
    fn subject(&self, day: Option<NaiveDate>) -> String {
        subjects::kv(BUCKET, &subjects::index_filter(self.org, self.whose, day))
    }

    /// Adds entries to a page, the newest first. Returns true if the page is full.
    async fn fill(&self, log: &NatsLog, page: &mut ListPage, mut entries: Vec<ListEntry>) -> Result<bool, ReadError> {
        entries.retain(|entry| self.after.is_none_or(|after| entry.place() < after));
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.place()));
        let mut opened = stream::iter(entries).map(|entry| entry.decrypt(log)).buffered(limits::LIST_OPEN_PARALLEL);
        while let Some(entry) = opened.try_next().await? {
            let Some(entry) = entry.filter(|entry| (self.fits)(entry)) else { continue };
            let last = page.entries.last().map(ListEntry::place);
            // A position may be given by its moment alone, so entries of one moment stay on one page.
            if page.entries.len() >= self.limit && last.is_none_or(|last| last.micros != entry.place().micros) {
                page.next = last;
                return Ok(true);
            }
            page.entries.push(entry);
        }
        Ok(false)
    }
}

/// The query side of the index, for all organisations.
#[derive(Clone)]
pub struct ConversationLists {
    log: NatsLog,
}

impl ConversationLists {
    pub fn new(log: NatsLog) -> Self {
        Self { log }
    }

    /// Returns one page.
    pub async fn page<F: Fn(&ListEntry) -> bool>(&self, wanted: ListQuery<'_, F>) -> Result<ListPage, ReadError> {
        let mut page = ListPage::default();
        match self.log.last_of(STREAM, &[wanted.subject(None)]).await? {
            LastMessages::All(messages) => {
                wanted.fill(&self.log, &mut page, distinct(messages)).await?;
                Ok(page)
            }
            LastMessages::TooMany => self.page_by_days(wanted).await,
        }
    }

    /// Returns the entry of a conversation, under any owner.
    pub async fn find(&self, org: &str, conversation: Uuid) -> Result<Option<ListEntry>, ReadError> {
        let subject = subjects::kv(BUCKET, &subjects::index_everywhere(org, conversation));
        match self.log.last_of(STREAM, &[subject]).await? {
            LastMessages::All(messages) => match distinct(messages).pop() {
                Some(entry) => entry.decrypt(&self.log).await,
                None => Ok(None),
            },
            LastMessages::TooMany => Ok(None),
        }
    }

    async fn page_by_days<F: Fn(&ListEntry) -> bool>(&self, wanted: ListQuery<'_, F>) -> Result<ListPage, ReadError> {
        // Clocks of workers differ a little, so the list begins tomorrow.
        let newest =
            wanted.after.and_then(|after| after.day()).unwrap_or_else(|| Utc::now().date_naive() + Days::new(1));
        let (mut page, mut day, mut span, mut looked_at) = (ListPage::default(), newest, 1, 0);
        while day >= FIRST_DAY {
            let days: Vec<NaiveDate> = (0..span).filter_map(|back| day.checked_sub_days(Days::new(back))).collect();
            let entries = self.days(&wanted, days).await?;
            looked_at += entries.len();
            let oldest = entries.iter().map(ListEntry::place).min();
            if wanted.fill(&self.log, &mut page, entries).await? {
                return Ok(page);
            }
            if let Some(oldest) = oldest.filter(|_| looked_at >= limits::LIST_SCAN_MAX) {
                page.next = Some(oldest);
                return Ok(page);
            }
            day = day - Days::new(span);
            span = (span * 2).min(DAYS_MAX);
        }
        Ok(page)
    }

    /// Returns all entries of these days. Days with too many entries for one request are halved until they fit.
    async fn days<F: Fn(&ListEntry) -> bool>(
        &self,
        wanted: &ListQuery<'_, F>,
        days: Vec<NaiveDate>,
    ) -> Result<Vec<ListEntry>, ReadError> {
        let (mut found, mut open) = (Vec::new(), vec![days]);
        while let Some(days) = open.pop() {
            let subjects: Vec<String> = days.iter().map(|day| wanted.subject(Some(*day))).collect();
            match self.log.last_of(STREAM, &subjects).await? {
                LastMessages::All(messages) => found.extend(messages),
                // Too many entries for one request: batch after batch, in the order of their last change.
                LastMessages::TooMany if days.len() == 1 => {
                    found.extend(self.log.newest_of(STREAM, &subjects[0], limits::LIST_DAY_MAX).await?);
                }
                LastMessages::TooMany => {
                    let (a, b) = days.split_at(days.len() / 2);
                    open.extend([a.to_vec(), b.to_vec()]);
                }
            }
        }
        Ok(distinct(found))
    }
}

/// Returns the entries in some messages, one per conversation. While an entry is being moved there are two; the one that
/// covers more counts.
fn distinct(messages: impl IntoIterator<Item = RawMessage>) -> Vec<ListEntry> {
    let mut entries: HashMap<Uuid, ListEntry> = HashMap::new();
    for entry in messages.into_iter().filter_map(|message| ListEntry::read(&message)) {
        let known = entries.get(&entry.conversation);
        if known.is_none_or(|known| known.last_seq < entry.last_seq) {
            entries.insert(entry.conversation, entry);
        }
    }
    entries.into_values().collect()
}
