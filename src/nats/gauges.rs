//! Gauges of streams and consumers, taken from the answers that the checks of the definitions get anyway.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::{CHAT, ReadError, ReadFrom, connection::soon, jetstream::JetStream};
use crate::{
    domain::event::kind,
    limits,
    metrics::{metrics, storage::StreamState, work::QueueState},
    subjects::{self, PrivacySubject},
};

/// The consumer that keeps the index of conversations.
const INDEX_CONSUMER: &str = "index";

/// The parts of an answer about a stream or a consumer.
#[derive(Deserialize)]
pub(super) struct ServerState {
    config: Option<DefinedLimits>,
    state: Option<Contents>,
    cluster: Option<Cluster>,
    /// The consumer's name.
    name: Option<String>,
    stream_name: Option<String>,
    num_pending: Option<u64>,
    num_ack_pending: Option<u64>,
}

#[derive(Deserialize)]
struct DefinedLimits {
    name: Option<String>,
    #[serde(default)]
    max_bytes: i64,
    #[serde(default)]
    num_replicas: u64,
}

#[derive(Deserialize)]
struct Contents {
    messages: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Cluster {
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
}

/// Takes the gauges of a stream or consumer from the server's answer.
pub(super) fn take(answer: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<ServerState>(answer) else { return };
    match (&answer.config, &answer.state) {
        (Some(config), Some(state)) => take_stream(config, state, answer.cluster.as_ref()),
        _ => take_consumer(&answer),
    }
}

fn take_stream(config: &DefinedLimits, state: &Contents, cluster: Option<&Cluster>) {
    let Some(name) = &config.name else { return };
    // A single server has no cluster: its one replica is up to date.
    let current = cluster.map_or(1, |cluster| {
        let others = cluster.replicas.iter().filter(|peer| peer.current && !peer.offline).count();
        others as u64 + u64::from(cluster.leader.is_some())
    });
    let storage = &metrics().storage;
    storage.stream(&StreamState {
        name: name.clone(),
        messages: state.messages,
        bytes: state.bytes,
        max_bytes: u64::try_from(config.max_bytes).ok().filter(|max| *max > 0),
        replicas: config.num_replicas.max(1),
        current_replicas: current,
    });
    match base(name) {
        "DEAD" => storage.dead_letters(state.messages),
        "SCHED" => metrics().calls.scheduled(state.messages),
        _ => {}
    }
}

/// Returns a stream's name without its region.
fn base(stream: &str) -> &str {
    stream.split('_').next().unwrap_or_default()
}

fn take_consumer(answer: &ServerState) {
    let (Some(stream), Some(name)) = (&answer.stream_name, &answer.name) else { return };
    let (pending, unacked) = (answer.num_pending.unwrap_or_default(), answer.num_ack_pending.unwrap_or_default());
    if base(stream) == CHAT && name == INDEX_CONSUMER {
        metrics().storage.index_lag(pending + unacked);
    }
}

impl JetStream {
    /// Takes the gauges of a pool's queue.
    pub async fn gauge_queue(&self, region: &str, pool: &str) -> Result<(), ReadError> {
        #[derive(Deserialize)]
        struct Queue {
            num_pending: u64,
            num_ack_pending: u64,
            delivered: Position,
        }
        #[derive(Deserialize)]
        struct Position {
            stream_seq: u64,
        }
        let stream = subjects::stream_name(CHAT, region);
        let reply = soon(self.client.request(subjects::consumer_info(&stream, pool), "".into())).await;
        let Ok(queue) = serde_json::from_slice::<Queue>(&reply.map_err(ReadError::Unavailable)?.payload) else {
            return Ok(());
        };
        let mut oldest = None::<DateTime<Utc>>;
        if queue.num_pending > 0 {
            for event in [kind::TURN_REQUESTED, kind::TURN_RESUMED] {
                let subject = subjects::work_items(region, event, pool);
                let query = json!({ "seq": queue.delivered.stream_seq + 1, "next_by_subj": subject });
                let next = self.get(&stream, &query, ReadFrom::Replica).await?.map(|message| message.stored_at);
                oldest = [oldest, next].into_iter().flatten().min();
            }
        }
        let age = oldest.map_or(0, |at| (self.now() - at).num_seconds());
        let state = QueueState {
            pending: queue.num_pending,
            unacked: queue.num_ack_pending,
            oldest_secs: u64::try_from(age).unwrap_or_default(),
        };
        metrics().work.queue(pool, state);
        Ok(())
    }

    /// Takes the gauges of the stream AUDIT: the newest checkpoint, and erasures that are not carried out.
    pub async fn gauge_audit(&self, region: &str) -> Result<(), ReadError> {
        #[derive(Deserialize)]
        struct Info {
            state: Subjects,
        }
        #[derive(Deserialize)]
        struct Subjects {
            #[serde(default)]
            subjects: std::collections::HashMap<String, u64>,
        }
        let stream = subjects::stream_name("AUDIT", region);
        let last = json!({ "last_by_subj": subjects::audit_checkpoint(region) });
        if let Some(checkpoint) = self.get(&stream, &last, ReadFrom::Replica).await? {
            metrics().storage.checkpoint_age((self.now() - checkpoint.stored_at).num_seconds());
        }
        let query = json!({ "subjects_filter": subjects::audit_privacy_all(region) }).to_string();
        let reply = soon(self.client.request(subjects::stream_api("INFO", &stream), query.into())).await;
        if let Ok(info) = serde_json::from_slice::<Info>(&reply.map_err(ReadError::Unavailable)?.payload) {
            let of =
                |what| info.state.subjects.get(&subjects::audit_privacy(region, what)).copied().unwrap_or_default();
            let (requested, done) = (of(PrivacySubject::EraseRequested), of(PrivacySubject::EraseCompleted));
            metrics().storage.erasures(requested.saturating_sub(done));
        }
        Ok(())
    }

    /// Stores a canary: tells whether the streams' servers have a quorum and room on their disks.
    pub async fn write_canary(&self, process: uuid::Uuid) -> Result<(), String> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let subject = subjects::count_canary(process);
        let count = self.count(&subject, 1, &id);
        let stored = tokio::time::timeout(std::time::Duration::from_millis(limits::CANARY_MS), count).await;
        let outcome = match stored {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("a message is not stored in time".to_string()),
        };
        metrics().storage.writable(outcome.is_ok());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauges_of_a_stream_come_from_its_info() {
        take(
            br#"{"config":{"name":"DEAD_gauges","max_bytes":-1,"num_replicas":3},"state":{"messages":7,"bytes":9},
                "cluster":{"leader":"a","replicas":[{"current":true},{"current":true,"offline":true}]}}"#,
        );
        let text = crate::metrics::text();
        for line in [
            r#"turnstream_stream_messages{stream="DEAD_gauges"} 7"#,
            r#"turnstream_stream_replicas_current{stream="DEAD_gauges"} 2"#,
            "turnstream_dead_letters 7",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains(r#"stream_max_bytes{stream="DEAD_gauges"}"#), "without a limit");
    }
}
