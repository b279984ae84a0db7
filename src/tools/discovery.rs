//! Finds tool providers: NATS micro services with endpoints whose metadata says `tool: "true"`.
//!
//! Contract of [`run`]: a tool is in the registry within a second of its service's start, and gone within about a second of
//! its end. (1) Ask all services to describe themselves, (2) take the answers as they come, (3) ask the server about the
//! instances that stayed silent: only one that nobody serves any more is gone, a slow one is not, (4) wait for the next round.

use std::{collections::HashMap, time::Duration};

use async_nats::{Client, Request, Subscriber, client::RequestErrorKind};
use futures_util::{StreamExt, future::join_all};
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::registry::{Place, Registry, Tool};
use crate::{limits, subjects};

/// What an instance of a micro service says of itself.
#[derive(Deserialize)]
struct Info {
    name: String,
    id: String,
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

/// The services that are there, by name and id of each instance.
pub struct Discovery {
    client: Client,
    inbox: String,
    answers: Subscriber,
    instances: HashMap<(String, String), Instance>,
}

struct Instance {
    tools: Vec<Tool>,
    heard_at: Instant,
}

impl Discovery {
    /// Nothing known yet.
    pub async fn new(client: Client) -> Result<Self, async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await?;
        Ok(Self { client, inbox, answers, instances: HashMap::new() })
    }

    /// Asks for the first time, and waits until the answers have ceased: a worker that takes work before it knows the
    /// tools would refuse calls that a person has approved.
    pub async fn first(&mut self) -> Vec<Tool> {
        let end = Instant::now() + Duration::from_millis(limits::TOOLS_FIRST_MS);
        self.ask().await;
        if let Ok(Some(true)) = timeout_at(end, self.take_one()).await {
            let quiet = Instant::now() + Duration::from_millis(limits::TOOLS_QUIET_MS);
            while let Ok(Some(true)) = timeout_at(quiet.min(end), self.take_one()).await {}
        }
        self.tools()
    }

    async fn ask(&self) {
        let asked = self.client.publish_with_reply(subjects::SERVICES_INFO, self.inbox.clone(), "".into()).await;
        if let Err(error) = asked {
            tracing::debug!(%error, "tool providers could not be asked");
        }
    }

    /// Takes one answer. False: the server says that there is no service at all. `None`: the subscription has ended.
    async fn take_one(&mut self) -> Option<bool> {
        let message = self.answers.next().await?;
        if message.status.is_some() {
            return Some(false);
        }
        if let Ok(info) = serde_json::from_slice::<Info>(&message.payload) {
            let tools = info.endpoints.into_iter().filter_map(tool).collect();
            self.instances.insert((info.name, info.id), Instance { tools, heard_at: Instant::now() });
        }
        Some(true)
    }

    /// Forgets the silent instances that nobody serves any more.
    async fn forget_the_gone(&mut self) {
        let patience = Duration::from_millis(limits::TOOLS_EVERY_MS);
        // Longer than a round, so that who answers each time is not asked twice.
        let silent = self.instances.iter().filter(|(_, instance)| instance.heard_at.elapsed() > patience * 3 / 2);
        let checks = silent.map(|((name, id), _)| {
            let request = Request::new().timeout(Some(patience));
            let asked = self.client.send_request(subjects::service_ping(name, id), request);
            async move {
                let gone = asked.await.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders);
                gone.then(|| (name.clone(), id.clone()))
            }
        });
        for gone in join_all(checks).await.into_iter().flatten() {
            self.instances.remove(&gone);
        }
    }

    /// The tools of all instances, ordered by name.
    fn tools(&self) -> Vec<Tool> {
        let mut tools: Vec<Tool> = self.instances.values().flat_map(|instance| instance.tools.clone()).collect();
        tools.sort_by(|a, b| (&a.name, &a.org).cmp(&(&b.name, &b.org)));
        tools.dedup_by(|a, b| a.name == b.name && a.org == b.org);
        tools
    }
}

/// Keeps the registry current until the future is dropped.
pub async fn run(registry: Registry, mut discovery: Discovery) {
    let mut rounds = interval(Duration::from_millis(limits::TOOLS_EVERY_MS));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {
                discovery.forget_the_gone().await;
                discovery.ask().await;
            }
            answer = discovery.take_one() => if answer.is_none() {
                return tracing::error!("the subscription to tool providers' answers has ended");
            },
        }
        registry.set_discovered(discovery.tools());
    }
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
