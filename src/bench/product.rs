//! The product under test as a child process: `turnstream dev` on a free port, with a store of its own.
//!
//! Contract: the product uses the fake gateway as its model and is ready when `start` returns; its processes and files are gone
//! when `stop` returns.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::procs::{self, WatchedProcess};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const PROBE_PAUSE: Duration = Duration::from_millis(50);

pub struct Product {
    child: Child,
    pid: u32,
    port: u16,
    store: PathBuf,
    /// The secret that signs users' tokens.
    pub secret: String,
}

impl Product {
    /// Starts this executable as the product and waits until it is ready.
    pub async fn start(gateway: SocketAddr) -> anyhow::Result<Product> {
        let program = std::env::current_exe().context("the path of this executable is unknown")?;
        let port = free_port().await.context("no free port")?;
        let store = std::env::temp_dir().join(format!("turnstream-bench-{}", Uuid::new_v4()));
        let secret = Uuid::new_v4().to_string();
        let mut command = Command::new(&program);
        command
            .arg("dev")
            .args(["--port", &port.to_string()])
            .arg("--store")
            .arg(&store)
            .env("SMOOAI_GATEWAY_URL", format!("http://{gateway}/v1"))
            .env("SMOOAI_GATEWAY_KEY", "bench")
            // With tokens on, strangers can't reach an owner's conversations.
            .env("AUTH_JWT_HS256_SECRET", &secret)
            // The bench exceeds the limits of any visitor.
            .env("SMOOTH_AGENT_LIMIT_CONNECTION_MESSAGES", "0")
            .env("SMOOTH_AGENT_LIMIT_CONNECTION_WRITES", "0")
            .env("SMOOTH_AGENT_LIMIT_ADDRESS_WRITES", "0")
            // A crowd streams more than one worker drives by default.
            .env("SMOOTH_AGENT_WORKER_TURNS", "10000")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A last resort; `stop` is the ordinary end.
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let pid = child.id().context("the product ended at once")?;
        let mut product = Product { child, pid, port, store, secret };
        match product.wait_until_ready().await {
            Ok(()) => Ok(product),
            Err(error) => {
                product.stop().await;
                Err(error)
            }
        }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// Returns the product (edge and worker in one process) and its child, the NATS server.
    pub fn watched(&self) -> Vec<WatchedProcess> {
        let mut all = vec![WatchedProcess::new("turnstream", self.pid)];
        all.extend(procs::children(self.pid));
        all
    }

    /// Stops the product with SIGTERM, or by force after a timeout.
    pub async fn stop(mut self) {
        // A process that has ended must not be signalled: its id may be reused.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.terminate().await;
        }
        if let Err(error) = tokio::fs::remove_dir_all(&self.store).await {
            tracing::debug!(%error, "the product's store was not removed");
        }
    }

    async fn terminate(&mut self) {
        // The `kill` program, because the standard library only has SIGKILL.
        let asked = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await;
        if let Err(error) = asked {
            tracing::warn!(%error, "cannot ask the product to end");
        }
        if timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            tracing::warn!("the product did not end in time and is killed");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(%error, "cannot kill the product");
            }
        }
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let give_up = Instant::now() + START_TIMEOUT;
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait()? {
                bail!("the product ended while starting: {status}");
            }
            if let Ok(Ok(true)) = timeout(PROBE_TIMEOUT, is_ready(self.port)).await {
                return Ok(());
            }
            sleep(PROBE_PAUSE).await;
        }
        bail!("the product was not ready after {} s", START_TIMEOUT.as_secs())
    }
}

async fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?.port())
}

async fn is_ready(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
