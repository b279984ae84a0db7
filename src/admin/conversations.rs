//! Conversations of the organisation: their list, and the messages of one.

use chrono::{Days, NaiveDate, NaiveTime};
use uuid::Uuid;

use super::{
    AdminApi,
    forms::{ConversationList, ConversationSummary, MessageList},
    request::AdminRequest,
    response::{HttpRefusal, HttpResponse},
};
use crate::{
    auth::{Role, may_review},
    domain::conversation::owner_of,
    limits,
    lists::{ListEntry, ListPage, ListPosition, query::ListQuery},
    log::conversations::Freshness,
    subjects::OwnerScope,
    wire::frames::{HistoryMessage, shown_time},
};

/// `GET conversations`: all of the organisation's for curators, the caller's own for others.
///
/// `q` is part of a title or of an owner's address, or an id; `from` and `to` are days of last messages.
pub async fn list(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let (limit, cursor) = (asked.limit()?, asked.cursor()?);
    let owner = asked.principal.email.as_deref().and_then(owner_of);
    let whose = match (asked.principal.role, &owner) {
        (Role::Curator | Role::Admin, _) => Some(OwnerScope::Everybody),
        (Role::Basic, Some(owner)) => Some(OwnerScope::Owner(owner)),
        (Role::Basic, None) => None,
    };
    // The list goes backwards in time, so it begins at the last requested day.
    let end = asked.day("to")?.and_then(|day| day.checked_add_days(Days::new(1))).map(midnight);
    let place = cursor.into_iter().chain(end).min();
    let after = place.map(|micros| ListPosition { micros, conversation: Uuid::nil() });
    let from = asked.day("from")?.map(midnight);
    let words = asked.text("q").map(str::to_lowercase);
    let holds = |text: &str, word: &str| text.to_lowercase().contains(word);
    let fits = |entry: &ListEntry| {
        from.is_none_or(|from| entry.place().micros >= from)
            && words.as_deref().is_none_or(|word| {
                holds(&entry.title, word)
                    || entry.owner.as_deref().is_some_and(|owner| holds(owner, word))
                    || entry.conversation.to_string() == word
            })
    };
    let page = match whose {
        Some(whose) => {
            let wanted = ListQuery { org: &asked.principal.org, whose, after, limit, fits };
            admin.lists.page(wanted).await?
        }
        None => ListPage::default(),
    };
    let conversations = page.entries.into_iter().map(|entry| ConversationSummary {
        id: entry.conversation,
        name: entry.title,
        platform: "web",
        owner: entry.owner,
        message_count: entry.message_count,
        created_at: shown_time(entry.created_at),
        updated_at: shown_time(entry.updated_at),
    });
    let next_cursor = page.next.map(|place| place.micros);
    Ok(HttpResponse::ok(&ConversationList { conversations: conversations.collect(), next_cursor }))
}

/// Returns the beginning of a day, in microseconds of the Unix clock.
fn midnight(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

/// `GET conversations/{id}/messages`. The cursor is the sequence of the last message in the log.
pub async fn messages(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let id = asked.id()?;
    let (limit, after) = (asked.limit()?, asked.cursor()?.unwrap_or_default().unsigned_abs());
    let key = admin.key(&asked.principal.org, id).ok_or_else(HttpRefusal::not_found)?;
    let mut state = admin.conversations.load(&key, Freshness::AtLeast(0)).await?;
    if !state.exists() {
        state = admin.conversations.load(&key, Freshness::Leader).await?;
    }
    if !state.exists() {
        return Err(HttpRefusal::not_found());
    }
    // Answered like a missing conversation: another answer would tell that it exists.
    if !may_review(&asked.principal, state.owner.as_deref()) {
        return Err(HttpRefusal::not_found());
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
    Ok(HttpResponse::ok(&MessageList { conversation_id: id, messages, next_cursor: last.filter(|_| more) }))
}
