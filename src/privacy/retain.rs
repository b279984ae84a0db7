//! Finds the conversations at the end of their retention.
//!
//! Conversations are found in the order of their keys, in batches of a few requests each, regardless of size. An erased
//! conversation has no key, so an interrupted sweep continues where it stopped.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::ledger::ErasureExtent;
use crate::{
    config::PrivacyConfig,
    encryption::KeyClass,
    limits,
    log::{jetstream_log::NatsLog, key_store},
    nats::{ReadError, ReadFrom, direct_get::LastMessages, jetstream::RawMessage, streams::CHAT},
    subjects::{self, ConversationKey},
};

/// The classes of a conversation's keys, by name.
pub(super) type KeyClasses = BTreeSet<&'static str>;

/// A conversation that is due, and the extent.
pub(super) struct DueConversation {
    pub conversation: Uuid,
    pub extent: ErasureExtent,
    pub classes: KeyClasses,
}

/// The conversations that are due at a time.
pub(super) struct DueConversations<'a> {
    log: &'a NatsLog,
    region: &'a str,
    privacy: &'a PrivacyConfig,
    now: DateTime<Utc>,
    /// Younger keys belong to conversations that are not due.
    oldest: DateTime<Utc>,
    from: u64,
    more: bool,
}

impl<'a> DueConversations<'a> {
    pub fn new(log: &'a NatsLog, region: &'a str, privacy: &'a PrivacyConfig, now: DateTime<Utc>) -> Self {
        let kept = [&privacy.retain_days, &privacy.retain_tools_days].into_iter().filter_map(|days| days.min()).min();
        let oldest = kept.and_then(days).and_then(|kept| now.checked_sub_signed(kept));
        Self { log, region, privacy, now, oldest: oldest.unwrap_or_default(), from: 1, more: oldest.is_some() }
    }

    /// Returns the position in the bucket of keys, and its end.
    pub async fn position(&self) -> Result<(u64, u64), ReadError> {
        let last = self
            .log
            .get(key_store::STREAM, &json!({ "last_by_subj": subjects::keys_of(None) }), ReadFrom::Replica)
            .await?;
        Ok((self.from - 1, last.map_or(0, |last| last.seq)))
    }

    /// Returns the next due conversations. `None`: no more keys.
    pub async fn next(&mut self) -> Result<Option<Vec<DueConversation>>, ReadError> {
        if !self.more {
            return Ok(None);
        }
        let (messages, more) = self.log.next_of(key_store::STREAM, &subjects::keys_of(None), self.from).await?;
        self.from = messages.last().map_or(self.from, |last| last.seq + 1);
        let old: Vec<_> = messages.iter().take_while(|message| message.stored_at <= self.oldest).collect();
        self.more = more && !messages.is_empty() && old.len() == messages.len();
        let mut named: BTreeMap<Uuid, KeyClasses> = BTreeMap::new();
        old.iter().for_each(|message| take_key(message, &mut named));
        let ids: Vec<Uuid> = named.keys().copied().collect();
        let classes = self.classes(&ids).await?;
        // A conversation is found once, by its key of the class "said"; after that key is gone, by its other keys.
        let said = KeyClass::Said.name();
        let is_found = |id: &Uuid| named[id].contains(said) || classes.get(id).is_some_and(|all| !all.contains(said));
        let ids: Vec<Uuid> = ids.into_iter().filter(is_found).collect();
        let lasts = self.lasts(&ids).await?;
        let due = classes.into_iter().filter_map(|(conversation, classes)| {
            // Conversations of other regions are left to those regions.
            let (org, _, at) = lasts.get(&conversation)?;
            let extent = extent(self.privacy, org, &classes, self.now - *at)?;
            Some(DueConversation { conversation, extent, classes })
        });
        Ok(Some(due.collect()))
    }

    /// Returns whether a conversation with a last event of this time is still due.
    pub fn is_due(&self, due: &DueConversation, org: &str, last_at: DateTime<Utc>) -> bool {
        extent(self.privacy, org, &due.classes, self.now - last_at) == Some(due.extent)
    }

    /// Returns the classes of these conversations' keys.
    async fn classes(&self, ids: &[Uuid]) -> Result<BTreeMap<Uuid, KeyClasses>, ReadError> {
        let mut found = BTreeMap::new();
        for some in ids.chunks(limits::RETAIN_KEYS) {
            // The filters name the known classes: other entries are not requested.
            let of_one = |id: &Uuid| KeyClass::ALL.map(|(_, name)| subjects::key_of(*id, name));
            let filters: Vec<String> = some.iter().flat_map(of_one).collect();
            match self.log.last_of(key_store::STREAM, &filters).await? {
                LastMessages::All(messages) => messages.iter().for_each(|message| take_key(message, &mut found)),
                LastMessages::TooMany => return Err(ReadError::Unavailable("conversations have too many keys".into())),
            }
        }
        Ok(found)
    }

    /// Returns organisation, sequence and time of the last event of each conversation.
    async fn lasts(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, (String, u64, DateTime<Utc>)>, ReadError> {
        let stream = subjects::stream_name(CHAT, self.region);
        let filters: Vec<String> = ids.iter().map(|id| subjects::events_of(self.region, Some(*id))).collect();
        let mut found: HashMap<Uuid, (String, u64, DateTime<Utc>)> = HashMap::new();
        let take = |message: RawMessage| {
            let Some(key) = ConversationKey::parse_event(&message.subject) else { return };
            let known = found.get(&key.conversation).map_or(0, |(_, seq, _)| *seq);
            if known < message.seq {
                found.insert(key.conversation, (key.org, message.seq, message.stored_at));
            }
        };
        self.log.last_of_many(&stream, &filters, limits::RETAIN_LOOKUP, take).await?;
        Ok(found)
    }
}

fn take_key(message: &RawMessage, found: &mut BTreeMap<Uuid, KeyClasses>) {
    if !key_store::is_there(message) {
        return;
    }
    let Some((conversation, class)) = subjects::parse_key_of(&message.subject) else { return };
    let class = KeyClass::ALL.iter().map(|(_, name)| *name).find(|name| *name == class);
    found.entry(conversation).or_default().extend(class);
}

fn days(days: u64) -> Option<TimeDelta> {
    TimeDelta::try_days(i64::try_from(days).ok()?)
}

/// Returns the due extent of a conversation that has been silent for this time.
fn extent(privacy: &PrivacyConfig, org: &str, classes: &KeyClasses, silent: TimeDelta) -> Option<ErasureExtent> {
    let is_over = |kept: Option<u64>| kept.and_then(days).is_some_and(|kept| silent >= kept);
    if is_over(privacy.retain_days.of(org)) {
        return Some(ErasureExtent::All);
    }
    let has_tools = classes.contains(KeyClass::Tools.name());
    (has_tools && is_over(privacy.retain_tools_days.of(org))).then_some(ErasureExtent::Tools)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn retention_periods_differ_by_organisation() {
        let values = [("SMOOTH_AGENT_RETAIN_DAYS", "30,acme=7"), ("SMOOTH_AGENT_RETAIN_TOOLS_DAYS", "acme=2")];
        let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        let privacy = Config::from_source(&value).unwrap().privacy;
        let both = BTreeSet::from(["said", "tools"]);
        let extent = |org, days| extent(&privacy, org, &both, TimeDelta::days(days));
        assert_eq!(
            [extent("acme", 1), extent("acme", 2), extent("acme", 7)],
            [None, Some(ErasureExtent::Tools), Some(ErasureExtent::All)]
        );
        assert_eq!([extent("globex", 29), extent("globex", 30)], [None, Some(ErasureExtent::All)]);
        assert_eq!(super::extent(&privacy, "acme", &BTreeSet::from(["said"]), TimeDelta::days(3)), None);
        assert_eq!(super::extent(&PrivacyConfig::default(), "acme", &both, TimeDelta::days(9_999)), None);
    }
}
