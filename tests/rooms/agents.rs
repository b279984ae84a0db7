//! The KV bucket of agent configurations: the messages that a starting process reads from it, and later lookups.

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use turnstream::{
    agents::{AgentStore, CurrentAgents, config::AgentConfig},
    domain::event::AgentVersion,
    limits, subjects,
};

use crate::support::server::Server;

const ORG: &str = "acme";
/// More agents than one batched get returns, with older versions before their last ones.
const AGENTS: usize = limits::READ_BATCH + 200;
const VERSIONS: usize = 2_000;

fn config(persona: &str) -> AgentConfig {
    serde_json::from_value(json!({ "persona": persona })).unwrap()
}

/// Publishes all versions at once, as they would stand after years.
async fn write(server: &Server, versions: impl Iterator<Item = (String, String)>) {
    let context = async_nats::jetstream::new(server.client.clone());
    let mut acks = Vec::new();
    for (agent, payload) in versions {
        let subject = subjects::kv("AGENTS", &subjects::agent_key(ORG, &agent));
        acks.push(context.publish(subject, payload.into()).await.unwrap().into_future());
    }
    for ack in acks {
        ack.await.unwrap();
    }
}

fn versions(agents: usize, versions: usize) -> impl Iterator<Item = (String, String)> {
    let old = (0..versions).map(|n| (0, n)).chain((0..agents).map(move |agent| (agent, versions + agent)));
    old.map(|(agent, n)| (format!("agent-{agent}"), serde_json::to_string(&config(&format!("version {n}"))).unwrap()))
}

#[tokio::test]
async fn a_start_reads_only_current_configurations() {
    let server = Server::start().await;
    write(&server, versions(AGENTS, VERSIONS)).await;
    // The clock is ahead, so these entries are too old to be read again for slow replicas.
    let later = server.log_ahead(chrono::TimeDelta::seconds(2 * limits::AGENTS_LAG_SECS)).await;
    let watcher = server.another_client().await;
    let mut asked = watcher.subscribe(subjects::direct_get("KV_AGENTS")).await.unwrap();
    let mut given = watcher.subscribe("_INBOX.>").await.unwrap();
    server.knows(&watcher).await;
    let store = AgentStore::new(later);
    let agents = CurrentAgents::new(store.clone());
    agents.catch_up().await.unwrap();
    server.knows(&watcher).await;
    let mut walks = Vec::new();
    while let Some(Some(message)) = asked.next().now_or_never() {
        let query: Value = serde_json::from_slice(&message.payload).unwrap();
        walks.extend(query["next_by_subj"].is_string().then(|| query["seq"].as_u64()));
    }
    let after_all = Some((AGENTS + VERSIONS) as u64 + 1);
    assert!(walks.iter().all(|from| from.is_none() || *from == after_all), "older versions are not read: {walks:?}");
    let mut read = 0;
    while let Some(Some(message)) = given.next().now_or_never() {
        let subject = message.headers.as_ref().and_then(|headers| headers.get("Nats-Subject"));
        read += usize::from(subject.is_some());
    }
    assert!(read <= AGENTS + 1, "{read} versions were read");

    for agent in [0, 1, AGENTS - 1] {
        let (version, config) = agents.find(ORG, &format!("agent-{agent}")).unwrap();
        assert_eq!(version.revision, (VERSIONS + agent) as u64 + 1);
        assert_eq!(config.persona.as_deref(), Some(format!("version {}", VERSIONS + agent).as_str()));
    }
    // A parked turn names a version from long ago.
    let old = AgentVersion { agent: "agent-0".into(), revision: 7 };
    assert_eq!(store.version(ORG, &old).await.unwrap().unwrap().persona.as_deref(), Some("version 6"));
    assert_eq!(store.list().await.unwrap().len(), AGENTS);
    // Later writes are followed.
    let revision = store.put(ORG, "agent-1", &config("news")).await.unwrap();
    agents.catch_up().await.unwrap();
    assert_eq!(agents.find(ORG, "agent-1").unwrap().0.revision, revision);
    store.delete(ORG, "agent-0").await.unwrap();
    agents.catch_up().await.unwrap();
    assert!(agents.find(ORG, "agent-0").is_none());
}

#[tokio::test]
async fn an_unreadable_version_leaves_the_previous_one_in_force() {
    let server = Server::start().await;
    write(&server, versions(3, 5)).await;
    write(&server, [("agent-0".to_string(), "garbage".to_string())].into_iter()).await;
    let agents = CurrentAgents::new(AgentStore::new(server.log()));
    agents.catch_up().await.unwrap();
    let revisions = [0, 1, 2].map(|n| agents.find(ORG, &format!("agent-{n}")).unwrap().0.revision);
    assert_eq!(revisions, [6, 7, 8]);
    let empty = Server::start().await;
    let agents = CurrentAgents::new(AgentStore::new(empty.log()));
    agents.catch_up().await.unwrap();
    agents.catch_up().await.unwrap();
    assert!(!agents.have_widgets());
}
