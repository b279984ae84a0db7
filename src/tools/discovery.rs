//! Finds tool providers: NATS micro services with endpoints whose metadata says `tool: "true"`.
//!
//! Contract of [`run`]: a tool is in the registry within a second of its service's start, and gone within about a
//! second of its end. (1) Ask all services to describe themselves, (2) take the answers as they come, (3) ask the
//! server about the silent instances: an instance without responders is gone, a slow one is not, (4) wait for the next
//! round. Answers are not authenticated, so a service's description is validated here, and held to earlier declarations
//! by [`super::claims`].

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all};
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{
    builtin::RESERVED,
    claims::{self, NameClaims, RefusedDeclaration, ToolDeclaration},
    registry::ToolRegistry,
    schema::{self, NormalizedSchema},
    tool::{Tool, ToolBackend},
};
use crate::{
    agents::AuthLevel,
    limits,
    nats::{
        connection::soon,
        core::{self, Client, HeaderMap, RequestError, Subscriber},
    },
    subjects,
};

/// The description that an instance of a micro service gives of itself.
#[derive(Deserialize)]
struct Info {
    name: String,
    id: String,
    #[serde(default)]
    version: String,
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

/// The services that are present, by name and id of each instance.
pub struct ToolDiscovery {
    client: Client,
    inbox: String,
    answers: Subscriber,
    instances: HashMap<(String, String), Instance>,
    claims: NameClaims,
    /// The number of instances heard of so far; all instances of the first round count as equally old.
    heard: u64,
    is_first: bool,
    /// Refusals and remarks that are logged already.
    told: HashSet<RefusedDeclaration>,
}

#[derive(Default)]
struct Instance {
    declared: Vec<ToolDeclaration>,
    malformed: Vec<RefusedDeclaration>,
    /// Parts of declarations that are not offered.
    lost: Vec<RefusedDeclaration>,
    /// The age rank: older instances have smaller numbers.
    order: u64,
    heard_at: Option<Instant>,
}

/// The result of a discovery round.
pub struct DiscoveryReport {
    pub tools: Vec<Tool>,
    /// Declarations that do not count.
    pub refused: Vec<RefusedDeclaration>,
    /// Tools that are offered differently from one of their declarations.
    pub warnings: Vec<RefusedDeclaration>,
}

/// The effect of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InfoReply {
    /// The server reports that no service exists.
    Nobody,
    Same,
    /// The instance's description has changed.
    News,
}

impl ToolDiscovery {
    /// Creates a discovery that knows no services.
    pub async fn new(client: Client) -> Result<Self, String> {
        let inbox = client.new_inbox();
        let answers = soon(client.subscribe(inbox.clone())).await?;
        let (instances, claims, told) = (HashMap::new(), NameClaims::default(), HashSet::new());
        Ok(Self { client, inbox, answers, instances, claims, heard: 0, is_first: true, told })
    }

    /// Asks for the first time, and waits until no more answers come.
    ///
    /// A worker that takes work before it knows the tools would refuse calls that a person has approved.
    pub async fn first(&mut self) -> DiscoveryReport {
        let end = Instant::now() + Duration::from_millis(limits::TOOLS_FIRST_MS);
        self.ask().await;
        let is_there = |heard: Option<InfoReply>| heard.is_some_and(|heard| heard != InfoReply::Nobody);
        if timeout_at(end, self.take_one()).await.is_ok_and(is_there) {
            let quiet = Instant::now() + Duration::from_millis(limits::TOOLS_QUIET_MS);
            while timeout_at(quiet.min(end), self.take_one()).await.is_ok_and(is_there) {}
        }
        self.is_first = false;
        self.tools()
    }

    async fn ask(&self) {
        let asked = soon(self.client.publish_with_reply(subjects::SERVICES_INFO, self.inbox.clone(), "".into())).await;
        if let Err(error) = asked {
            tracing::debug!(error, "tool providers could not be asked");
        }
    }

    /// Takes one answer. `None`: the subscription has ended.
    async fn take_one(&mut self) -> Option<InfoReply> {
        let message = self.answers.next().await?;
        if message.status.is_some() {
            return Some(InfoReply::Nobody);
        }
        Some(serde_json::from_slice::<Info>(&message.payload).map_or(InfoReply::Same, |info| self.take(info)))
    }

    fn take(&mut self, info: Info) -> InfoReply {
        // Name and id become tokens of a subject that this process publishes to.
        if !subjects::is_token(&info.name) || !subjects::is_token(&info.id) {
            return InfoReply::Same;
        }
        let key = (info.name.clone(), info.id);
        if !self.instances.contains_key(&key) && self.instances.len() >= limits::SERVICES_MAX {
            return InfoReply::Same;
        }
        let (mut declared, mut malformed, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for endpoint in info.endpoints {
            let name = endpoint.name.clone();
            let notice = |why| RefusedDeclaration { service: info.name.clone(), tool: name.clone(), why };
            match tool(endpoint) {
                Some(Ok((tool, without))) => {
                    lost.extend(without.into_iter().map(notice));
                    let version = info.version.chars().take(VERSION_MAX_CHARS).collect();
                    declared.push(ToolDeclaration { service: info.name.clone(), version, tool });
                }
                Some(Err(why)) => malformed.push(notice(why)),
                None => {}
            }
        }
        lost.truncate(limits::TOOLS_PER_SERVICE);
        // Excess declarations are named once, and not kept.
        declared.truncate(2 * limits::TOOLS_PER_SERVICE);
        malformed.truncate(limits::TOOLS_PER_SERVICE);
        self.heard += 1;
        let order = if self.is_first { 0 } else { self.heard };
        let instance = self.instances.entry(key).or_insert_with(|| Instance { order, ..Instance::default() });
        let is_new = instance.heard_at.is_none() || instance.declared != declared || instance.malformed != malformed;
        (instance.declared, instance.malformed, instance.heard_at) = (declared, malformed, Some(Instant::now()));
        instance.lost = lost;
        if is_new { InfoReply::News } else { InfoReply::Same }
    }

    /// Forgets the silent instances that have no responders any more.
    async fn forget_the_gone(&mut self) {
        let patience = Duration::from_millis(limits::TOOLS_EVERY_MS);
        // Longer than a round, so that an instance that answers every round is not asked twice.
        let is_silent = |instance: &Instance| instance.heard_at.is_none_or(|at| at.elapsed() > patience * 3 / 2);
        let silent = self.instances.iter().filter(|(_, instance)| is_silent(instance));
        let checks = silent.map(|((name, id), _)| {
            let ping = subjects::service_ping(name, id);
            // An answer that the library is too slow to deliver says nothing of the service.
            let asked = core::request(&self.client, ping, HeaderMap::new(), "".into(), (patience, patience));
            async move {
                let gone = matches!(asked.await, Err(RequestError::NoResponders));
                gone.then(|| (name.clone(), id.clone()))
            }
        });
        for gone in join_all(checks).await.into_iter().flatten() {
            self.instances.remove(&gone);
        }
    }

    /// Returns the tools of all instances that count, and remarks on them. A remark is logged the first time.
    fn tools(&mut self) -> DiscoveryReport {
        let mut instances: Vec<(&(String, String), &Instance)> = self.instances.iter().collect();
        // Workers hear of the instances in different orders; the sort makes the outcome the same for all.
        instances.sort_by_key(|(key, instance)| (instance.order, *key));
        let instances: Vec<&Instance> = instances.into_iter().map(|(_, instance)| instance).collect();
        let declared: Vec<ToolDeclaration> = instances.iter().flat_map(|instance| instance.declared.clone()).collect();
        let (tools, mut refused) = self.claims.settle(std::time::Instant::now(), &declared);
        refused.extend(instances.iter().flat_map(|instance| instance.malformed.clone()));
        for refused in &refused {
            if self.told.len() < limits::TOOL_REFUSALS_TOLD && self.told.insert(refused.clone()) {
                let RefusedDeclaration { service, tool, why } = refused;
                tracing::warn!(service, tool, why, "a tool of a NATS service is refused");
            }
        }
        let mut warnings = claims::differing(&declared);
        warnings.extend(instances.iter().flat_map(|instance| instance.lost.clone()));
        for warning in &warnings {
            if self.told.len() < limits::TOOL_REFUSALS_TOLD && self.told.insert(warning.clone()) {
                let RefusedDeclaration { service, tool, why } = warning;
                tracing::warn!(
                    service,
                    tool,
                    why,
                    "a tool of a NATS service is offered with changes to its declaration"
                );
            }
        }
        DiscoveryReport { tools, refused, warnings }
    }
}

/// Keeps the registry current until the future is dropped.
pub async fn run(registry: ToolRegistry, mut discovery: ToolDiscovery) {
    let mut rounds = interval(Duration::from_millis(limits::TOOLS_EVERY_MS));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {
                discovery.forget_the_gone().await;
                discovery.ask().await;
            }
            answer = discovery.take_one() => match answer {
                None => return tracing::error!("the subscription to tool providers' answers has ended"),
                Some(InfoReply::News) => {}
                Some(InfoReply::Same | InfoReply::Nobody) => continue,
            },
        }
        registry.set_discovered(discovery.tools().tools);
    }
}

/// The longest version of a service that is kept.
const VERSION_MAX_CHARS: usize = 64;

/// A tool, and the parts of its declaration that are not offered.
type Offered = (Tool, Vec<String>);

/// Returns the tool that an endpoint declares, or the error in its declaration. `None`: the endpoint is no tool.
fn tool(endpoint: Endpoint) -> Option<Result<Offered, String>> {
    let metadata = endpoint.metadata?;
    (metadata.get("tool").map(String::as_str) == Some("true"))
        .then(|| declared(endpoint.name, endpoint.subject, &metadata))
}

fn declared(name: String, subject: String, metadata: &HashMap<String, String>) -> Result<Offered, String> {
    let is = |name: &str| metadata.get(name).is_some_and(|value| value == "true");
    if !subjects::is_token(&name) {
        return Err("the name is not 1 to 64 letters, digits, - and _".into());
    }
    if RESERVED.contains(&name.as_str()) {
        return Err("the name belongs to a built-in tool".into());
    }
    if metadata.get("org").is_some_and(|org| org.len() > limits::ORG_MAX_BYTES) {
        return Err("`org` is too long".into());
    }
    let parameters = match metadata.get("parameters") {
        Some(text) if text.len() > limits::TOOL_SCHEMA_MAX_BYTES => return Err("`parameters` are too large".into()),
        Some(text) => serde_json::from_str(text).map_err(|_| "`parameters` are not JSON".to_string())?,
        None => serde_json::Value::Null,
    };
    let NormalizedSchema { schema: parameters, lost } = schema::normal(&parameters, limits::TOOL_SCHEMA_MAX_BYTES)?;
    let timeout_ms = metadata.get("timeout_ms").map_or(Some(limits::TOOL_TIMEOUT_MS), |text| text.parse().ok());
    let timeout_ms = timeout_ms.ok_or("`timeout_ms` is not a number")?;
    let level = match metadata.get("auth_level").map(String::as_str) {
        None | Some("none") => AuthLevel::None,
        Some("end_user") => AuthLevel::EndUser,
        Some("admin") => AuthLevel::Admin,
        Some(_) => return Err("`auth_level` is not none, end_user or admin".into()),
    };
    let mut description = metadata.get("description").cloned().unwrap_or_default();
    description.truncate(description.floor_char_boundary(limits::TOOL_DESCRIPTION_MAX_BYTES));
    let tool = Tool {
        description,
        parameters,
        org: claims::org_of(&subject, metadata.get("org").cloned())?,
        confirm: is("confirm"),
        idempotent: is("idempotent"),
        level,
        timeout: Duration::from_millis(timeout_ms.min(limits::TOOL_TIMEOUT_MAX_MS)),
        contested: false,
        backend: ToolBackend::Endpoint { subject },
        name,
    };
    Ok((tool, lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(subject: &str, metadata: &[(&str, &str)]) -> Option<Result<Offered, String>> {
        let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        tool(Endpoint { name: "t".into(), subject: subject.into(), metadata: Some(metadata) })
    }

    #[test]
    fn only_declared_tools_are_offered() {
        assert_eq!(declared("tool.t", &[("description", "d")]), None);
        let long = "x".repeat(limits::ORG_MAX_BYTES + 1);
        for wrong in
            [("parameters", "[]"), ("parameters", "{"), ("timeout_ms", "soon"), ("auth_level", "root"), ("org", &long)]
        {
            assert!(declared("tool.t", &[("tool", "true"), wrong]).unwrap().is_err(), "{wrong:?}");
        }
        let metadata = [("tool", "true"), ("confirm", "true"), ("timeout_ms", "99999999"), ("auth_level", "admin")];
        let (tool, _) = declared("tool.t", &metadata).unwrap().unwrap();
        assert!(tool.confirm && !tool.idempotent && tool.level == AuthLevel::Admin);
        assert_eq!(tool.timeout, Duration::from_millis(limits::TOOL_TIMEOUT_MAX_MS));
    }

    #[test]
    fn a_subject_of_another_kind_is_refused() {
        for subject in ["$JS.API.STREAM.PURGE.KNOWLEDGE", "chat.local.a.b.turn.cancelled", "tool.>", "$KV.KEYS.x", "t"]
        {
            assert!(declared(subject, &[("tool", "true")]).unwrap().is_err(), "{subject}");
        }
    }
}
