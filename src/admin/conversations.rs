//! Conversations of the organisation: a list of them, and what was said in one.

use uuid::Uuid;

use super::{
    Admin,
    answer::{Answer, Refusal},
    forms::{ConversationList, ListedConversation, MessageList},
    serve::Asked,
};
use crate::{
    auth::{Role, may_review},
    domain::conversation::owner_of,
    limits,
    lists::{Page, Place, read::Wanted},
    log::load::Freshness,
    subjects::Whose,
    wire::frames::{HistoryMessage, shown_time},
};

/// `GET conversations`: all of the organisation's for curators, one's own for others.
pub async fn list(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let (limit, cursor) = (asked.limit()?, asked.cursor()?);
    let owner = asked.principal.email.as_deref().and_then(owner_of);
    let whose = match (asked.principal.role, &owner) {
        (Role::Curator | Role::Admin, _) => Some(Whose::Everybody),
        (Role::Basic, Some(owner)) => Some(Whose::Owner(owner)),
        (Role::Basic, None) => None,
    };
    let after = cursor.map(|micros| Place { micros, conversation: Uuid::nil() });
    let page = match whose {
        Some(whose) => {
            let wanted = Wanted { org: &asked.principal.org, whose, after, limit, fits: |_: &_| true };
            admin.lists.page(wanted).await?
        }
        None => Page::default(),
    };
    let conversations = page.entries.into_iter().map(|entry| ListedConversation {
        id: entry.conversation,
        name: entry.title,
        platform: "web",
        created_at: shown_time(entry.created_at),
        updated_at: shown_time(entry.updated_at),
    });
    let next_cursor = page.next.map(|place| place.micros);
    Ok(Answer::ok(&ConversationList { conversations: conversations.collect(), next_cursor }))
}

/// `GET conversations/{id}/messages`. The cursor is the place of the last message in the log.
pub async fn messages(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let id = asked.id()?;
    let (limit, after) = (asked.limit()?, asked.cursor()?.unwrap_or_default().unsigned_abs());
    let key = admin.key(&asked.principal.org, id).ok_or_else(Refusal::not_found)?;
    let mut state = admin.conversations.load(&key, Freshness::AtLeast(0)).await?;
    if !state.exists() {
        state = admin.conversations.load(&key, Freshness::Leader).await?;
    }
    if !state.exists() {
        return Err(Refusal::not_found());
    }
    if !may_review(&asked.principal, state.owner.as_deref()) {
        return Err(Refusal::forbidden());
    }
    let (found, mut more) = admin.conversations.messages_after(&key, &state, after, limit).await?;
    let (mut messages, mut bytes, mut last) = (Vec::new(), 0, None);
    for message in &found {
        let item = HistoryMessage::from(message).to_json();
        bytes += item.get().len();
        if bytes > limits::PAGE_MAX_BYTES && !messages.is_empty() {
            more = true;
            break;
        }
        messages.push(item);
        last = Some(message.seq);
    }
    Ok(Answer::ok(&MessageList { conversation_id: id, messages, next_cursor: last.filter(|_| more) }))
}
