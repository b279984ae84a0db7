//! Conversations for auditors: their events, the states along them, the verification of their record, and reports.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    AdminApi,
    forms::{EventPage, StatePage, Verification},
    request::AdminRequest,
    response::{HttpRefusal, HttpResponse},
};
use crate::{
    evidence::verify,
    history::{
        chain_reader::{self, ReadBounds, WholeConversation},
        message_view,
        report::{self, html},
        swim_lanes,
        view::{self, EventView},
    },
    limits,
    nats::jetstream::RawMessage,
    subjects::ConversationKey,
};

/// Limits the requests that read a whole conversation at once.
static READING: Semaphore = Semaphore::const_new(limits::AUDIT_PARALLEL);

/// `GET audit/conversations/{id}/events`.
///
/// A page reaches back from its cursor, which is an event's sequence in the log, or from the end; its cost is that of its
/// events, at any position.
pub async fn events(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let key = key(admin, asked)?;
    let bounds = ReadBounds { events: asked.limit()?, bytes: limits::PAGE_MAX_BYTES };
    let part = chain_reader::back(&admin.log, &key, place(asked)?, bounds).await?;
    if part.messages.is_empty() {
        return Err(HttpRefusal::not_found());
    }
    let seen = message_view::view_messages(&admin.event_reader, part.messages).await?;
    Ok(HttpResponse::ok(&EventPage {
        conversation_id: key.conversation,
        events: seen.iter().map(EventView::from).collect(),
        spans: swim_lanes::spans(&seen),
        next_cursor: part.before,
    }))
}

/// `GET audit/conversations/{id}/states`: along the events of the page with the same cursor and limit.
pub async fn states(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let (key, limit) = (key(admin, asked)?, asked.limit()?);
    let _reading = wait().await;
    let part = chain_reader::back(&admin.log, &key, place(asked)?, chain_reader::of_an_edge()).await?;
    if part.before.is_some() {
        return Err(too_much());
    }
    let Some(from) = part.messages.iter().rev().take(limit).last().map(|message| message.seq) else {
        return Err(HttpRefusal::not_found());
    };
    let seen = message_view::view_messages(&admin.event_reader, part.messages).await?;
    Ok(HttpResponse::ok(&StatePage { conversation_id: key.conversation, states: view::states(&seen, from) }))
}

/// `GET audit/conversations/{id}/verification`.
pub async fn verification(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let key = key(admin, asked)?;
    let _reading = wait().await;
    let messages = whole(admin, &key).await?;
    Ok(HttpResponse::ok(&Verification { conversation_id: key.conversation, chain: verify::follow(&messages) }))
}

/// `GET audit/conversations/{id}/report`: JSON, or a page for clients that accept HTML.
pub async fn report(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let key = key(admin, asked)?;
    let _reading = wait().await;
    let messages = whole(admin, &key).await?;
    let chain = verify::follow(&messages);
    let report = report::make(&admin.event_reader, &admin.agents, &key, messages, chain).await?;
    match asked.accepts_html {
        true => Ok(HttpResponse::page(html::ReportPage(&report).to_string(), html::policy())),
        false => Ok(HttpResponse::ok(&report)),
    }
}

fn key(admin: &AdminApi, asked: &AdminRequest) -> Result<ConversationKey, HttpRefusal> {
    admin.key(&asked.principal.org, asked.id()?).ok_or_else(HttpRefusal::not_found)
}

/// Returns the event that a page ends with. `None`: the last one.
fn place(asked: &AdminRequest) -> Result<Option<u64>, HttpRefusal> {
    Ok(asked.cursor()?.map(i64::unsigned_abs))
}

async fn wait() -> SemaphorePermit<'static> {
    READING.acquire().await.expect("the semaphore is never closed")
}

async fn whole(admin: &AdminApi, key: &ConversationKey) -> Result<Vec<RawMessage>, HttpRefusal> {
    match chain_reader::whole(&admin.log, key, chain_reader::of_an_edge()).await? {
        WholeConversation::Read(messages) if messages.is_empty() => Err(HttpRefusal::not_found()),
        WholeConversation::Read(messages) => Ok(messages),
        WholeConversation::TooMuch => Err(too_much()),
    }
}

fn too_much() -> HttpRefusal {
    HttpRefusal::too_much(
        "the conversation is too large to be read whole here; `turnstream audit report` has no such bound",
    )
}
