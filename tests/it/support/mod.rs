//! Shared parts of the flow tests: a nats-server, a scriptable model gateway, the product's processes, clients.
//!
//! Contract: every test has its own [`Stage`] and shares nothing with another. Waiting is for events; [`WAIT_MAX`] only
//! fails a test with a missing event.

pub mod client;
pub mod encrypted;
pub mod frames;
pub mod gateway;
pub mod http;
pub mod nats;
pub mod otp;
pub mod processes;
pub mod roles;
pub mod schema;
pub mod tools;
pub mod validate;
pub mod web;

use std::time::Duration;

use tokio::process::Command;

use gateway::FakeGateway;
use nats::NatsServer;
use processes::Process;

/// Time limit for an event before the test fails.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// A nats-server with streams, and a model gateway.
pub struct Stage {
    pub nats: NatsServer,
    pub gateway: FakeGateway,
}

/// An edge and its address.
pub struct Edge {
    pub process: Process,
    pub address: String,
}

impl Stage {
    pub async fn start() -> Self {
        let stage = Self::without_streams().await;
        stage.apply_streams().await;
        stage
    }

    async fn apply_streams(&self) {
        let mut applied = self.run("streams apply", &["streams", "apply"], &[]);
        assert!(applied.ended().await.success(), "{}", applied.output());
    }

    /// Returns a stage on an existing store, with the streams of this version.
    pub async fn on(store: tempfile::TempDir) -> Self {
        let users = nats::users();
        let (nats, gateway) = tokio::join!(NatsServer::start_in(store, &users), FakeGateway::start());
        let stage = Self { nats, gateway };
        stage.apply_streams().await;
        stage
    }

    pub async fn without_streams() -> Self {
        let (nats, gateway) = tokio::join!(NatsServer::start(), FakeGateway::start());
        Self { nats, gateway }
    }

    pub async fn edge(&self) -> Edge {
        self.edge_with(&[]).await
    }

    pub async fn edge_with(&self, variables: &[(&str, &str)]) -> Edge {
        let mut process = self.run("edge", &["edge", "--port", "0"], variables);
        let address = process.line_after("listening on http://").await;
        Edge { process, address }
    }

    /// Configures an agent; returns the revision of its configuration.
    pub async fn agent(&self, org: &str, agent: &str, config: &serde_json::Value) -> u64 {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config.to_string()).unwrap();
        let path = file.path().to_str().unwrap();
        let mut put = self.run("agent put", &["agent", "put", agent, path, "--org", org], &[]);
        assert!(put.ended().await.success(), "{}", put.output());
        let output = put.output();
        let revision = output.lines().find_map(|line| line.rsplit_once(" revision ")?.1.parse().ok());
        revision.unwrap_or_else(|| panic!("no revision in {output}"))
    }

    /// Starts a worker that asks the stage's gateway.
    pub async fn worker(&self) -> Process {
        self.worker_with(&[]).await
    }

    pub async fn worker_with(&self, variables: &[(&str, &str)]) -> Process {
        let url = self.gateway.base_url();
        let gateway = [("SMOOAI_GATEWAY_URL", url.as_str()), ("SMOOAI_GATEWAY_KEY", "key")];
        self.start_worker(&[&gateway, variables].concat()).await
    }

    /// Starts a worker that has no key for any gateway.
    pub async fn worker_without_key(&self) -> Process {
        self.start_worker(&[]).await
    }

    async fn start_worker(&self, variables: &[(&str, &str)]) -> Process {
        let mut process = self.run("worker", &["worker"], variables);
        process.line(|line| line.starts_with("working for pool")).await;
        process
    }

    /// Runs the product, with no environment variables but the test's.
    pub fn run(&self, title: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().env("NATS_URL", self.nats.url()).env("NO_COLOR", "1");
        let user = roles::user_of(arguments[0]);
        command.env("NATS_USER", user).env("NATS_PASSWORD", user);
        if ["edge", "worker"].contains(&arguments[0]) {
            command.envs(roles::callers());
        }
        command.env("SMOOTH_AGENT_MASTER_KEY", encrypted::MASTER_KEY);
        command.envs(variables.iter().copied());
        Process::spawn(title, command)
    }
}

/// Returns the program under test: `TURNSTREAM_BIN`, else the one that cargo built with these tests.
pub fn binary() -> String {
    std::env::var("TURNSTREAM_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_turnstream").to_owned())
}
