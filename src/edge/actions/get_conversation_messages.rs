//! `get_conversation_messages`: a page of the history, newest message first.

use super::{Connection, answer, session, session_not_found};
use crate::{
    limits,
    log::conversations::Freshness,
    wire::{
        actions::{BadFrame, ClientRequest, invalid},
        frames::{HistoryMessage, MessagePage},
    },
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;
/// Marks a cursor with its action and its format.
const CURSOR_PREFIX: &str = "m1-";

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let id = request.fields.required_session()?;
    let cursor = match request.fields.text("cursor")? {
        Some(cursor) => Some(cursor),
        None => request.fields.text("before")?,
    };
    let before = cursor.map(parse_cursor).transpose()?;
    let limit = request.fields.limit(DEFAULT_LIMIT, MAX_LIMIT);
    let (_, key) = session(connection, id).await?.ok_or_else(session_not_found)?;
    let conversations = &connection.edge.conversations;
    let state = conversations.load(&key, Freshness::AtLeast(0)).await?;
    connection.edge.save_fold(&key);
    let (messages, mut has_more) = conversations.messages(&key, &state, before, limit).await?;
    let mut page = Vec::with_capacity(messages.len());
    let mut bytes = 0;
    let mut oldest = None;
    for message in &messages {
        let item = HistoryMessage::from(message).to_json();
        bytes += item.get().len();
        if bytes > limits::PAGE_MAX_BYTES && !page.is_empty() {
            has_more = true;
            break;
        }
        page.push(item);
        oldest = Some(message.seq);
    }
    let next_cursor = oldest.filter(|_| has_more).map(|seq| format!("{CURSOR_PREFIX}{seq:x}"));
    let page = MessagePage { messages: page, has_more: next_cursor.is_some(), next_cursor };
    answer(connection, request, 200, "ConversationMessages", page);
    Ok(())
}

fn parse_cursor(cursor: &str) -> Result<u64, BadFrame> {
    let seq = cursor.strip_prefix(CURSOR_PREFIX).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    seq.ok_or_else(|| invalid("`cursor` is not one of this conversation's"))
}
