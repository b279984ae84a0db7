//! Finds tool providers: NATS micro services with endpoints whose metadata says `tool: "true"`.
//!
//! Contract of [`run`]: a tool is in the registry within a second of its service's start, and gone within about a second of
//! its end. (1) Ask all services to describe themselves, (2) collect the answers for a moment, (3) keep what was found now
//! or in the round before, so that one slow answer does not withdraw a tool, (4) wait for the next round.

use std::{collections::HashMap, time::Duration};

use async_nats::Client;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::registry::{Place, Registry, Tool};
use crate::{limits, subjects};

/// What a micro service says of itself.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    name: String,
    subject: String,
    #[serde(default)]
    metadata: Option<HashMap<String, String>>,
}

/// Fills the registry for the first time: a worker that takes work before it knows the tools would refuse calls that a
/// person has approved.
pub async fn begin(registry: &Registry) {
    take(registry, round(&registry.client).await);
}

/// Keeps the registry current until the future is dropped.
pub async fn run(registry: Registry) {
    let mut rounds = interval(Duration::from_millis(limits::TOOLS_EVERY_MS));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Vec<Tool> = registry.discovered().to_vec();
    loop {
        rounds.tick().await;
        let now = round(&registry.client).await;
        let mut tools = now.clone();
        tools.extend(before.into_iter().filter(|old| now.iter().all(|new| new.name != old.name || new.org != old.org)));
        take(&registry, tools);
        before = now;
    }
}

fn take(registry: &Registry, tools: Vec<Tool>) {
    if tools != *registry.discovered() {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        tracing::info!(tools = names.join(" "), "tools of NATS services");
        registry.set_discovered(tools);
    }
}

/// One round: the tools whose services answered, ordered by name.
pub async fn round(client: &Client) -> Vec<Tool> {
    let mut tools = Vec::new();
    let inbox = client.new_inbox();
    let Ok(mut answers) = client.subscribe(inbox.clone()).await else { return tools };
    if client.publish_with_reply(subjects::SERVICES_INFO, inbox, "".into()).await.is_err() {
        return tools;
    }
    let end = Instant::now() + Duration::from_millis(limits::TOOLS_COLLECT_MS);
    while let Ok(Some(message)) = timeout_at(end, answers.next()).await {
        // Without any service the server says so at once.
        if message.status.is_some() {
            break;
        }
        if let Ok(info) = serde_json::from_slice::<Info>(&message.payload) {
            tools.extend(info.endpoints.into_iter().filter_map(tool));
        }
    }
    tools.sort_by(|a, b| (&a.name, &a.org).cmp(&(&b.name, &b.org)));
    tools.dedup_by(|a, b| a.name == b.name && a.org == b.org);
    tools
}

/// The tool that an endpoint declares; a malformed declaration is reported and left out.
fn tool(endpoint: Endpoint) -> Option<Tool> {
    let metadata = endpoint.metadata?;
    let is = |name: &str| metadata.get(name).is_some_and(|value| value == "true");
    if !is("tool") {
        return None;
    }
    let name = endpoint.name;
    let legal = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let parameters = match metadata.get("parameters") {
        Some(text) => serde_json::from_str(text).ok().filter(serde_json::Value::is_object),
        None => Some(serde_json::json!({ "type": "object", "properties": {} })),
    };
    let timeout_ms = metadata.get("timeout_ms").map_or(Some(limits::TOOL_TIMEOUT_MS), |text| text.parse().ok());
    let (true, Some(parameters), Some(timeout_ms)) = (legal, parameters, timeout_ms) else {
        tracing::warn!(tool = name, "a tool's name, `parameters` or `timeout_ms` is malformed; it is not offered");
        return None;
    };
    Some(Tool {
        description: metadata.get("description").cloned().unwrap_or_default(),
        parameters,
        org: metadata.get("org").cloned(),
        confirm: is("confirm"),
        idempotent: is("idempotent"),
        timeout: Duration::from_millis(timeout_ms.min(limits::TOOL_TIMEOUT_MAX_MS)),
        place: Place::Endpoint { subject: endpoint.subject },
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(metadata: &[(&str, &str)]) -> Option<Tool> {
        let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        tool(Endpoint { name: "t".into(), subject: "s".into(), metadata: Some(metadata) })
    }

    #[test]
    fn only_what_is_declared_as_a_tool_is_one() {
        assert_eq!(declared(&[("description", "d")]), None);
        assert_eq!(declared(&[("tool", "true"), ("parameters", "[]")]), None);
        assert_eq!(declared(&[("tool", "true"), ("timeout_ms", "soon")]), None);
        let tool = declared(&[("tool", "true"), ("confirm", "true"), ("timeout_ms", "99999999")]).unwrap();
        assert!(tool.confirm && !tool.idempotent);
        assert_eq!(tool.timeout, Duration::from_millis(limits::TOOL_TIMEOUT_MAX_MS));
    }
}
