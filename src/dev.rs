//! `turnstream dev`: the whole product in one process.
//!
//! Without `NATS_URL` the process starts a nats-server of its own; without a gateway key, the demo model. At the end it stops
//! the servers that it started, and no others.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app,
    config::{self, Config, GatewayConfig},
    demo,
    signing::SigningKey,
};

/// Time for a nats-server to start, and to stop.
const SERVER_START_MS: u64 = 20_000;
const SERVER_STOP_MS: u64 = 10_000;

/// Runs everything until ctrl-c or SIGTERM.
pub async fn run(mut config: Config, store: PathBuf) -> anyhow::Result<()> {
    let server = match config.nats.url {
        Some(_) => None,
        None => Some(NatsServer::start(&store).await?),
    };
    if let Some(server) = &server {
        config.nats.url = Some(server.url.clone());
        config.call_key = Some(call_key(config.call_key, &store)?);
    }
    let result = run_on(config).await;
    if let Some(server) = server {
        server.stop().await;
    }
    result
}

/// Returns the key that signs calls: the configured one, else one beside the server's files.
fn call_key(configured: Option<PathBuf>, store: &Path) -> anyhow::Result<PathBuf> {
    if let Some(path) = configured {
        return Ok(path);
    }
    let (private, public) = (store.join("call-key.pem"), store.join("call-key.pub.pem"));
    if !private.exists() {
        SigningKey::generate(&private, &public)?;
    }
    println!("calls of tools are signed; public key {}", public.display());
    Ok(private)
}

async fn run_on(mut config: Config) -> anyhow::Result<()> {
    let (stop_demo, demo) = (CancellationToken::new(), TaskTracker::new());
    if config.gateway.as_ref().is_none_or(|gateway| gateway.key.is_none()) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        config.gateway =
            Some(GatewayConfig { url: format!("http://{}/v1", listener.local_addr()?), key: Some("demo".into()) });
        demo.spawn(demo::gateway::serve(listener, stop_demo.clone().cancelled_owned()));
        println!("model: built-in demo (set SMOOAI_GATEWAY_URL and SMOOAI_GATEWAY_KEY for a real one)");
    }
    demo.close();
    let nats = app::connect(&config, "dev").await?;
    app::apply_streams(&config, &nats, &app::ApplyOptions::default()).await?;
    let worker = app::start_worker(&config, &nats).await?;
    let edge = app::start_edge(&config, &nats).await?;
    let stop = app::StopSignal::new()?;
    println!("nats {}", config::each_without_secrets(config.nats.url.as_deref().unwrap_or_default()));
    println!("listening on http://{}", edge.address);
    stop.wait().await;
    // The worker continues the turns that the edge's clients wait for.
    edge.stop().await;
    worker.stop().await;
    stop_demo.cancel();
    demo.wait().await;
    Ok(())
}

/// A nats-server started and ended by this process.
pub struct NatsServer {
    child: Child,
    pub url: String,
}

impl NatsServer {
    /// Starts a nats-server with its files in this folder.
    pub async fn start(store: &Path) -> anyhow::Result<Self> {
        let binary = find().await?;
        // An absolute path, since the server resolves relative ones in its own way.
        tokio::fs::create_dir_all(store).await.with_context(|| format!("can't create {}", store.display()))?;
        let store = tokio::fs::canonicalize(store).await?;
        let mut command = Command::new(&binary);
        command.args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"]).arg(&store);
        command.arg("--ports_file_dir").arg(&store).arg("--log").arg(store.join("nats-server.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // With a process group of its own, a ctrl-c in the terminal reaches only this process, which then stops everything in
        // order.
        command.process_group(0).kill_on_drop(true);
        end_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("can't start {}", binary.display()))?;
        let pid = child.id().unwrap_or_default();
        match timeout(Duration::from_millis(SERVER_START_MS), wait_for_ports(&store, &binary, pid, &mut child)).await {
            Ok(Ok(url)) => Ok(Self { child, url }),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("nats-server did not start in time; see {}", store.join("nats-server.log").display()),
        }
    }

    /// Terminates the server and waits for its end.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            // tokio can only kill; on SIGTERM the server closes its files in order.
            let asked = Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await;
            let stopped = timeout(Duration::from_millis(SERVER_STOP_MS), self.child.wait()).await;
            if !matches!((&asked, &stopped), (Ok(_), Ok(Ok(_)))) {
                tracing::warn!("nats-server did not stop when asked; it is killed");
            }
        }
        // Dropping the child kills a server that still runs.
    }
}

/// Makes the kernel end the child when this process is killed: an orphaned server would hold the store.
#[cfg(target_os = "linux")]
fn end_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches only the child between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}

/// Waits for the file of ports, which the server writes when it is ready, and returns the URL.
async fn wait_for_ports(store: &Path, binary: &Path, pid: u32, child: &mut Child) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = store.join(format!("{name}_{pid}.ports"));
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("nats-server ended with {status}; see {}", store.join("nats-server.log").display());
        }
        let ports = tokio::fs::read(&file).await.ok().and_then(|text| serde_json::from_slice::<Ports>(&text).ok());
        if let Some(url) = ports.and_then(|ports| ports.nats.into_iter().next()) {
            return Ok(url);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Finds a nats-server: `NATS_SERVER`, or the one on the path. The version is checked after connecting.
async fn find() -> anyhow::Result<PathBuf> {
    let binary = std::env::var_os("NATS_SERVER").map_or_else(|| PathBuf::from("nats-server"), PathBuf::from);
    let found = Command::new(&binary).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    match found {
        Ok(status) if status.success() => Ok(binary),
        _ => bail!(
            "no nats-server at `{}`: install nats-server 2.12 or newer, name one with NATS_SERVER, name a running one \
             with NATS_URL, or start through ops/dev, which fetches one",
            binary.display()
        ),
    }
}
