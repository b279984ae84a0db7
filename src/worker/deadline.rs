//! The deadline of a wait: its message, and its schedule at the log's server.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Worker;
use crate::{
    nats::AppendError,
    subjects::{self, ConversationKey},
};

/// Base name of the stream of deadlines, and its consumer.
pub const SCHED: &str = "SCHED";

/// Payload of a deadline's message.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadlineMessage {
    pub org: String,
    pub conversation: Uuid,
    pub park: Uuid,
    /// Number of times that the deadline came due and could not be recorded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub put_off: u32,
    /// The task that the park waits for: where the turn is over before, its server is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<AbandonedTask>,
}

/// A task, and the turn that wants it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbandonedTask {
    pub turn: Uuid,
    pub tool: String,
    pub id: String,
}

pub(super) fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl DeadlineMessage {
    pub(super) fn key(&self, region: &str) -> ConversationKey {
        ConversationKey { region: region.to_string(), org: self.org.clone(), conversation: self.conversation }
    }
}

/// Schedules a deadline's delivery at a time, by the log's server.
pub(super) async fn schedule(
    worker: &Worker,
    deadline: &DeadlineMessage,
    at: DateTime<Utc>,
) -> Result<(), AppendError> {
    let DeadlineMessage { conversation, park, put_off, .. } = deadline;
    let at = format!("@at {}", at.to_rfc3339_opts(SecondsFormat::Millis, true));
    let target = subjects::due(&worker.settings.region, *conversation, *park);
    let payload = serde_json::to_vec(deadline).expect("a deadline is a map with string keys");
    let headers = [("Nats-Schedule", at.as_str()), ("Nats-Schedule-Target", target.as_str())];
    let id = match put_off {
        0 => format!("sched-{park}"),
        // The time is part of the id: a deadline that was put off before is scheduled again when its prompt is shown again.
        _ => format!("sched-{park}-{put_off}-{at}"),
    };
    let subject = subjects::schedule(&worker.settings.region, *conversation, *park);
    worker.log.put(&subject, &id, &headers, payload.into()).await
}
