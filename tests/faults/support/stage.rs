//! The product's processes on a NATS server, and the model gateway of their workers.

use tokio::process::Command;

use super::{
    encrypted::MASTER_KEY,
    gateway::FakeGateway,
    nats::NatsServer,
    processes::Process,
    roles::{callers, user_of},
};

/// The settings of the product's processes.
#[derive(Clone)]
pub struct Product {
    pub nats_url: String,
    pub gateway_url: String,
    /// Payloads are encrypted.
    pub encrypts: bool,
}

/// An edge and its address.
pub struct Edge {
    pub process: Process,
    pub address: String,
}

impl Product {
    /// Creates the streams.
    pub async fn apply_streams(&self, options: &[&str]) {
        let mut applied = self.run("streams apply", &[&["streams", "apply"], options].concat(), &[]);
        assert!(applied.ended().await.success(), "{}", applied.output());
    }

    /// Starts an edge that accepts connections.
    pub async fn edge(&self) -> Edge {
        self.edge_with(&[]).await
    }

    pub async fn edge_with(&self, variables: &[(&str, String)]) -> Edge {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut process = self.run("edge", &["edge", "--port", "0"], &variables);
        let address = process.line_after("listening on http://").await;
        Edge { process, address }
    }

    /// Starts a worker that takes work.
    pub async fn worker(&self, variables: &[(&str, &str)]) -> Process {
        let gateway = [("SMOOAI_GATEWAY_URL", self.gateway_url.as_str()), ("SMOOAI_GATEWAY_KEY", "key")];
        let mut process = self.run("worker", &["worker"], &[&gateway, variables].concat());
        process.line(|line| line.starts_with("working for pool")).await;
        process
    }

    pub async fn worker_with(&self, variables: &[(&str, String)]) -> Process {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.worker(&variables).await
    }

    /// Runs the product. The process sees only the environment that the test gives it.
    pub fn run(&self, title: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let binary = std::env::var("TURNSTREAM_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_turnstream").to_owned());
        let mut command = Command::new(binary);
        command.args(arguments).env_clear().env("NATS_URL", &self.nats_url).env("NO_COLOR", "1");
        let user = user_of(arguments[0]);
        command.env("NATS_USER", user).env("NATS_PASSWORD", user);
        if ["edge", "worker"].contains(&arguments[0]) {
            command.envs(callers());
        }
        command.envs(self.encrypts.then_some(("SMOOTH_AGENT_MASTER_KEY", MASTER_KEY)));
        command.envs(variables.iter().copied());
        Process::spawn(title, command)
    }
}

/// One nats-server with streams, a gateway, and the product over both.
pub struct Stage {
    pub nats: NatsServer,
    pub gateway: FakeGateway,
    pub product: Product,
}

impl Stage {
    pub async fn start() -> Self {
        let (nats, gateway) = tokio::join!(NatsServer::start(), FakeGateway::start());
        let product = Product { nats_url: nats.url(), gateway_url: gateway.base_url(), encrypts: false };
        product.apply_streams(&[]).await;
        Self { nats, gateway, product }
    }

    pub async fn edge(&self) -> Edge {
        self.product.edge().await
    }

    pub async fn worker(&self) -> Process {
        self.product.worker(&[]).await
    }
}
