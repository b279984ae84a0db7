//! Conversations for auditors: their events, the states along them, the verification of their record, and reports.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Admin,
    answer::{Answer, Refusal},
    forms::{EventPage, StatePage, Verification},
    serve::Asked,
};
use crate::{
    audit::{
        lanes,
        report::{self, html},
        seen,
        view::{self, EventView},
        walk::{self, Bounds, Whole},
    },
    limits,
    log::nats::RawMessage,
    subjects::ConversationKey,
};

/// Limits the requests that read a whole conversation at once.
static READING: Semaphore = Semaphore::const_new(limits::AUDIT_PARALLEL);

/// `GET audit/conversations/{id}/events`.
///
/// A page reaches back from its cursor, which is an event's sequence in the log, or from the end; its cost is that of its
/// events, at any position.
pub async fn events(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let key = key(admin, asked)?;
    let bounds = Bounds { events: asked.limit()?, bytes: limits::PAGE_MAX_BYTES };
    let part = walk::back(&admin.log, &key, place(asked)?, bounds).await?;
    if part.messages.is_empty() {
        return Err(Refusal::not_found());
    }
    let seen = seen::see(&admin.opener, part.messages).await?;
    Ok(Answer::ok(&EventPage {
        conversation_id: key.conversation,
        events: seen.iter().map(EventView::from).collect(),
        spans: lanes::spans(&seen),
        next_cursor: part.before,
    }))
}

/// `GET audit/conversations/{id}/states`: along the events of the page with the same cursor and limit.
pub async fn states(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let (key, limit) = (key(admin, asked)?, asked.limit()?);
    let _reading = wait().await;
    let part = walk::back(&admin.log, &key, place(asked)?, walk::of_an_edge()).await?;
    if part.before.is_some() {
        return Err(too_much());
    }
    let Some(from) = part.messages.iter().rev().take(limit).last().map(|message| message.seq) else {
        return Err(Refusal::not_found());
    };
    let seen = seen::see(&admin.opener, part.messages).await?;
    Ok(Answer::ok(&StatePage { conversation_id: key.conversation, states: view::states(&seen, from) }))
}

/// `GET audit/conversations/{id}/verification`.
pub async fn verification(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let key = key(admin, asked)?;
    let _reading = wait().await;
    let messages = whole(admin, &key).await?;
    Ok(Answer::ok(&Verification { conversation_id: key.conversation, chain: view::follow(&messages) }))
}

/// `GET audit/conversations/{id}/report`: JSON, or a page for clients that accept HTML.
pub async fn report(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let key = key(admin, asked)?;
    let _reading = wait().await;
    let messages = whole(admin, &key).await?;
    let report = report::make(&admin.opener, &admin.agents, &key, messages).await?;
    match asked.accepts_html {
        true => Ok(Answer::page(html::Page(&report).to_string(), html::policy())),
        false => Ok(Answer::ok(&report)),
    }
}

fn key(admin: &Admin, asked: &Asked) -> Result<ConversationKey, Refusal> {
    admin.key(&asked.principal.org, asked.id()?).ok_or_else(Refusal::not_found)
}

/// Returns the event that a page ends with. `None`: the last one.
fn place(asked: &Asked) -> Result<Option<u64>, Refusal> {
    Ok(asked.cursor()?.map(i64::unsigned_abs))
}

async fn wait() -> SemaphorePermit<'static> {
    READING.acquire().await.expect("the semaphore is never closed")
}

async fn whole(admin: &Admin, key: &ConversationKey) -> Result<Vec<RawMessage>, Refusal> {
    match walk::whole(&admin.log, key, walk::of_an_edge()).await? {
        Whole::Read(messages) if messages.is_empty() => Err(Refusal::not_found()),
        Whole::Read(messages) => Ok(messages),
        Whole::TooMuch => Err(too_much()),
    }
}

fn too_much() -> Refusal {
    Refusal::too_much(
        "the conversation is too large to be read whole here; `turnstream audit report` has no such bound",
    )
}
