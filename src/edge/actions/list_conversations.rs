//! `list_conversations`: a page of the caller's conversations, newest first.
//!
//! With tokens on, the list holds the conversations of the caller's e-mail address; for a caller without an address it is
//! empty. With tokens off, on an edge that serves only its own machine, every caller sees all conversations of the
//! organisation.

use uuid::Uuid;

use super::{Connection, answer};
use crate::{
    domain::conversation::owner_of,
    lists::{ListEntry, ListPage, ListPosition, query::ListQuery},
    subjects::OwnerScope,
    wire::{
        actions::{BadFrame, ClientRequest, invalid},
        frames::{ConversationPage, ListedConversation, shown_time},
    },
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;
/// Marks a cursor with its action and its format.
const CURSOR_PREFIX: &str = "c1-";

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let after = request.fields.text("cursor")?.map(parse_cursor).transpose()?;
    let query = request.fields.text("query")?.map(|query| query.trim().to_lowercase()).unwrap_or_default();
    let limit = request.fields.clamped_limit(DEFAULT_LIMIT, MAX_LIMIT);
    let owner = connection.principal.as_ref().and_then(|principal| owner_of(principal.email.as_deref()?));
    let whose = match &owner {
        _ if connection.edge.shows_all() => Some(OwnerScope::Everybody),
        Some(owner) => Some(OwnerScope::Owner(owner)),
        None => None,
    };
    // An e-mail address is an owner only in the organisation that proved it.
    let own = connection.principal.as_ref().map(|principal| principal.org.as_str());
    let org = own.unwrap_or_else(|| connection.org());
    let page = match whose {
        Some(whose) => {
            let fits = |entry: &ListEntry| entry.title.to_lowercase().contains(&query);
            connection.edge.lists.page(ListQuery { org, whose, after, limit, fits }).await?
        }
        None => ListPage::default(),
    };
    let next_cursor = page.next.map(cursor);
    let conversations = page.entries.into_iter().map(|entry| ListedConversation {
        conversation_id: entry.conversation,
        title: entry.title,
        updated_at: shown_time(entry.updated_at),
        message_count: entry.message_count,
    });
    let page =
        ConversationPage { conversations: conversations.collect(), has_more: next_cursor.is_some(), next_cursor };
    answer(connection, request, 200, "Conversations", page);
    Ok(())
}

fn cursor(place: ListPosition) -> String {
    format!("{CURSOR_PREFIX}{:x}-{}", place.micros, place.conversation.simple())
}

fn parse_cursor(cursor: &str) -> Result<ListPosition, BadFrame> {
    let parse = || {
        let (micros, conversation) = cursor.strip_prefix(CURSOR_PREFIX)?.split_once('-')?;
        let micros = i64::from_str_radix(micros, 16).ok().filter(|micros| *micros >= 0)?;
        Some(ListPosition { micros, conversation: Uuid::try_parse(conversation).ok()? })
    };
    parse().ok_or_else(|| invalid("`cursor` is not one of this list's"))
}
