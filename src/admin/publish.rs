//! Hosts' events for connected clients: published to every edge; each edge reports the number of its
//! connections that took the event.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::{
    AdminApi,
    forms::{PublishReceipt, PublishRequest},
    request::AdminRequest,
    response::{HttpRefusal, HttpResponse},
};
use crate::{
    limits,
    nats::{ReadError, connection::soon, core::Message, presence},
    subjects::{self, PushTo},
    wire::presence::{EDGES, EDGES_STREAM, PushReceipt},
};

/// `POST publish`.
pub async fn publish(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let PublishRequest { target, event } = asked.json()?;
    let known = PushTo::ALL.iter().find(|(_, name)| *name == target.kind);
    let (to, _) =
        known.ok_or_else(|| HttpRefusal::invalid("`target.type` is connection, session, user, org or agent"))?;
    if target.id.trim().is_empty() || target.id.chars().count() > limits::NAME_MAX_CHARS {
        return Err(HttpRefusal::invalid(format!("`target.id` has 1 to {} characters", limits::NAME_MAX_CHARS)));
    }
    if *to == PushTo::Org && target.id != asked.principal.org {
        return Err(HttpRefusal::not_found());
    }
    let payload = serde_json::to_vec(&event).expect("an event is a map with string keys");
    if payload.len() > limits::PUSH_MAX_BYTES {
        return Err(HttpRefusal::invalid(format!("`event` is larger than {} bytes", limits::PUSH_MAX_BYTES)));
    }
    let subjects =
        admin.regions.names().map(|region| subjects::push(region, *to, &asked.principal.org, &target.id)).collect();
    Ok(HttpResponse::ok(&PublishReceipt { delivered: deliver(admin, subjects, payload).await? }))
}

/// Publishes in every region and adds up the edges' answers.
///
/// Done when every edge that is known to be there has answered, or the time is up: an edge that has just died is known for
/// some seconds.
async fn deliver(admin: &AdminApi, subjects: Vec<String>, payload: Vec<u8>) -> Result<u64, HttpRefusal> {
    let unavailable = |cause: &dyn std::fmt::Display| ReadError::Unavailable(cause.to_string());
    let mut awaited = presence::processes(&admin.log, EDGES_STREAM, EDGES).await?;
    let inbox = admin.client.new_inbox();
    let mut answers = soon(admin.client.subscribe(inbox.clone())).await.map_err(|error| unavailable(&error))?;
    for subject in subjects {
        let published = soon(admin.client.publish_with_reply(subject, inbox.clone(), payload.clone().into())).await;
        published.map_err(|error| unavailable(&error))?;
    }
    let until = Instant::now() + Duration::from_millis(limits::PUSH_REPLIES_MS);
    let mut delivered = 0;
    while !awaited.is_empty() {
        let Ok(Some(answer)) = timeout_at(until, answers.next()).await else { break };
        if let Some(pushed) = read(&answer) {
            awaited.remove(&pushed.edge);
            delivered += pushed.delivered;
        }
    }
    Ok(delivered)
}

fn read(answer: &Message) -> Option<PushReceipt> {
    serde_json::from_slice(&answer.payload).ok()
}
