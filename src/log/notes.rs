//! Notes of conversations with running turns, for organisations with a limit on concurrent turns.
//!
//! A note says that a conversation may have begun a turn; the log says whether the turn runs. The process that ends the
//! turn removes the note, which leaves a marker that expires within a second.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::jetstream_log::NatsLog;
use crate::{
    nats::{
        AppendError, ReadError, ReadFrom,
        presence::{NUMBERS, NUMBERS_STREAM},
    },
    subjects,
};

/// Lifetime in seconds of a removed note's marker: the shortest that a server accepts.
const GONE_SECS: &str = "1";

/// The note of a conversation with a turn.
pub struct RunningTurnNote {
    pub conversation: Uuid,
    pub turn: Uuid,
    pub seq: u64,
    pub stored_at: DateTime<Utc>,
}

impl NatsLog {
    /// Writes a note that a conversation begins a turn.
    pub async fn note_turn(&self, org: &str, conversation: Uuid, turn: Uuid) -> Result<(), AppendError> {
        self.put(&subject(org, Some(conversation)), &new_id(), &[], turn.to_string().into()).await
    }

    /// Returns the notes of an organisation.
    pub async fn notes_of_turns(&self, org: &str) -> Result<Vec<RunningTurnNote>, ReadError> {
        let (mut notes, mut from, mut more) = (Vec::new(), 1, true);
        while more {
            let messages;
            (messages, more) = self.next_of(NUMBERS_STREAM, &subject(org, None), from).await?;
            more &= !messages.is_empty();
            from = messages.last().map_or(from, |last| last.seq + 1);
            notes.extend(messages.iter().filter(|m| !m.headers.contains_key("KV-Operation")).filter_map(|message| {
                let conversation = subjects::parse_last_id(&message.subject)?;
                // A stray entry names no turn, so its turn never counts as running.
                let turn = std::str::from_utf8(&message.payload).ok().and_then(|turn| turn.parse().ok());
                let (seq, stored_at) = (message.seq, message.stored_at);
                Some(RunningTurnNote { conversation, turn: turn.unwrap_or_default(), seq, stored_at })
            }));
        }
        Ok(notes)
    }

    /// Removes the note of a turn, if present.
    pub async fn drop_note(&self, org: &str, conversation: Uuid, turn: Uuid) -> Result<(), AppendError> {
        let query = json!({ "last_by_subj": subject(org, Some(conversation)) });
        let note = self.get(NUMBERS_STREAM, &query, ReadFrom::Leader).await;
        match note.map_err(|error| AppendError::Unavailable(error.to_string()))? {
            Some(note) if note.payload == turn.to_string() => self.drop_note_at(org, conversation, note.seq).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Removes a note unless it was renewed.
    pub async fn drop_note_at(&self, org: &str, conversation: Uuid, seq: u64) -> Result<(), AppendError> {
        let expected = seq.to_string();
        let gone =
            [("KV-Operation", "DEL"), ("Nats-TTL", GONE_SECS), ("Nats-Expected-Last-Subject-Sequence", &expected)];
        match self.put(&subject(org, Some(conversation)), &new_id(), &gone, "".into()).await {
            Ok(()) | Err(AppendError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn subject(org: &str, conversation: Option<Uuid>) -> String {
    subjects::kv(NUMBERS, &subjects::turn_note_key(org, conversation))
}

fn new_id() -> String {
    format!("note-{}", Uuid::new_v4().simple())
}
