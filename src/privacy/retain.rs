//! Which conversations have been kept long enough.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use uuid::Uuid;

use super::ledger::Extent;
use crate::{
    config::Privacy,
    limits,
    log::{
        ReadError, Via, keys,
        nats::{CHAT, NatsLog},
    },
    sealing::Class,
    subjects::{self, ConversationKey},
};

/// A conversation of which something is due, and how much.
pub struct Due {
    pub conversation: Uuid,
    pub extent: Extent,
}

/// Conversations whose last event is older than their organisation keeps them.
pub async fn due(log: &NatsLog, region: &str, privacy: &Privacy, now: DateTime<Utc>) -> Result<Vec<Due>, ReadError> {
    let asked = stream::iter(with_keys(log).await?).map(|(conversation, classes)| async move {
        let stream = subjects::stream_name(CHAT, region);
        let query = json!({ "last_by_subj": subjects::events_of(region, Some(conversation)) });
        let last = log.get(&stream, &query, Via::Replica).await?;
        // Conversations of other regions are those regions' business.
        let Some(last) = last else { return Ok(None) };
        let Some(key) = ConversationKey::parse_event(&last.subject) else { return Ok(None) };
        Ok(extent(privacy, &key.org, &classes, now - last.stored_at).map(|extent| Due { conversation, extent }))
    });
    let found: Vec<Option<Due>> = asked.buffer_unordered(limits::ERASE_PARALLEL).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// How much of a conversation is due that has been silent for so long.
fn extent(privacy: &Privacy, org: &str, classes: &BTreeSet<&'static str>, silent: TimeDelta) -> Option<Extent> {
    let is_over = |days: Option<u64>| {
        days.and_then(|days| TimeDelta::try_days(i64::try_from(days).ok()?)).is_some_and(|kept| silent >= kept)
    };
    if is_over(privacy.retain_days.of(org)) {
        return Some(Extent::All);
    }
    let has_tools = classes.contains(Class::Tools.name());
    (has_tools && is_over(privacy.retain_tools_days.of(org))).then_some(Extent::Tools)
}

/// The conversations that have keys, and of which classes.
async fn with_keys(log: &NatsLog) -> Result<BTreeMap<Uuid, BTreeSet<&'static str>>, ReadError> {
    let (mut found, mut from, mut more) = (BTreeMap::<Uuid, BTreeSet<_>>::new(), 1, true);
    while more {
        let messages;
        (messages, more) = log.next_of(keys::STREAM, &subjects::keys_of(None), from).await?;
        more &= !messages.is_empty();
        from = messages.last().map_or(from, |last| last.seq + 1);
        for message in messages.iter().filter(|message| keys::is_there(message)) {
            let Some((conversation, class)) = subjects::parse_key_of(&message.subject) else { continue };
            let class = Class::ALL.iter().map(|(_, name)| *name).find(|name| *name == class);
            found.entry(conversation).or_default().extend(class);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn each_organisation_keeps_for_its_own_time() {
        let values = [("SMOOTH_AGENT_RETAIN_DAYS", "30,acme=7"), ("SMOOTH_AGENT_RETAIN_TOOLS_DAYS", "acme=2")];
        let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        let privacy = Config::from_source(&value).unwrap().privacy;
        let both = BTreeSet::from(["said", "tools"]);
        let extent = |org, days| extent(&privacy, org, &both, TimeDelta::days(days));
        assert_eq!(
            [extent("acme", 1), extent("acme", 2), extent("acme", 7)],
            [None, Some(Extent::Tools), Some(Extent::All)]
        );
        assert_eq!([extent("globex", 29), extent("globex", 30)], [None, Some(Extent::All)]);
        assert_eq!(super::extent(&privacy, "acme", &BTreeSet::from(["said"]), TimeDelta::days(3)), None);
        assert_eq!(super::extent(&Privacy::default(), "acme", &both, TimeDelta::days(9_999)), None);
    }
}
