//! Conversations in a log, written as the product writes them.

use chrono::Utc;
use futures_util::future::join_all;
use turnstream::{
    domain::{
        Digest, Event,
        event::{ConversationRenamed, TurnReleased, TurnStarted},
    },
    log::{EventLog, NewEvent, jetstream_log::NatsLog},
    nats::ReadFrom,
    subjects::ConversationKey,
};
use uuid::Uuid;

use crate::support::nats::NatsServer;

/// Adds `events` to each of `conversations` conversations, the same in every round, and returns their ids.
pub async fn fill(server: &NatsServer, conversations: u128, round: u64, events: u64) -> Vec<Uuid> {
    let log = NatsLog::new(server.client().await);
    let keys: Vec<ConversationKey> = (1..=conversations).map(key).collect();
    join_all(keys.iter().map(|key| grow(&log, key, round, events))).await;
    keys.into_iter().map(|key| key.conversation).collect()
}

fn key(n: u128) -> ConversationKey {
    // The ids are spread like random ids.
    let conversation = Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    ConversationKey { region: "local".into(), org: format!("acme-{}", n % 2), conversation }
}

async fn grow(log: &NatsLog, key: &ConversationKey, round: u64, events: u64) {
    let last = log.last(key, ReadFrom::Leader).await.unwrap();
    let (mut seq, mut digest) = last.map_or((0, Digest::default()), |last| (last.recorded.seq, last.recorded.digest));
    for n in 0..events {
        let turn = Uuid::from_u128(u128::from(round * 1_000 + n));
        let event = match n % 3 {
            0 => Event::ConversationRenamed(ConversationRenamed {
                title: format!("“Round” {round},\n {n}"),
                by: None,
                not_after: None,
            }),
            1 => Event::TurnStarted(TurnStarted { turn, worker: Uuid::nil(), item: seq }),
            _ => Event::TurnReleased(TurnReleased { turn, epoch: seq, shown: None }),
        };
        let new = NewEvent {
            id: format!("{}-{round}-{n}", key.conversation),
            source: "/test/fill".into(),
            time: Utc::now(),
            prev_digest: digest,
            event,
        };
        let appended = log.append(key, seq, &new).await.unwrap();
        (seq, digest) = (appended.seq, appended.digest);
    }
}
