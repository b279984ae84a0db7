//! The command line: parse and dispatch.

mod agent;
mod audit;
mod checkpoint;
mod export;
#[cfg(feature = "bench")]
mod knowledge;
mod logging;
mod nats;
mod privacy;
mod replay;
mod report;
mod retain;
mod telemetry;
mod turn;
mod verify;
mod widget;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, sync::OnceLock};

use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "bench")]
use crate::bench;
#[cfg(feature = "dev")]
use crate::dev;
use crate::{
    agents::AuthLevel,
    app,
    config::{AgentAddress, Config, OperationsAddress},
    ingest::IngestArgs,
    tools,
};

/// A server for AI-agent conversations, event-sourced over NATS JetStream.
#[derive(Parser)]
#[command(name = "turnstream", version = env!("TURNSTREAM_VERSION"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where a process that keeps running answers /metrics, /health and /ready: ADDRESS:PORT, or a port [default:
    /// SMOOTH_AGENT_OPERATIONS, or nowhere].
    #[arg(long, global = true, value_name = "ADDRESS")]
    operations: Option<OperationsAddress>,
}

/// The flag `--operations`, which every command has.
static OPERATIONS: OnceLock<OperationsAddress> = OnceLock::new();

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process: nats-server (unless NATS_URL is set), edge, worker, demo model (without a key).
    #[cfg(feature = "dev")]
    Dev {
        #[command(flatten)]
        listen: Listen,
        /// Folder for the files of the nats-server that is started.
        #[arg(long, default_value = ".turnstream/store")]
        store: PathBuf,
    },
    /// Not in this build, which is without the feature `dev`.
    #[cfg(not(feature = "dev"))]
    Dev(Absent),
    /// Run an edge, which serves clients.
    Edge {
        #[command(flatten)]
        listen: Listen,
    },
    /// Run a worker, which answers turns.
    Worker {
        /// Port for /health and /ready [default: SMOOTH_AGENT_HEALTH_PORT, or none].
        #[arg(long)]
        health_port: Option<u16>,
        /// The program that answers in the model's place: exec:COMMAND, one process for each step, or an http URL [default:
        /// SMOOTH_AGENT_HOSTED_AGENT, or the model].
        #[arg(long, value_name = "ADDRESS")]
        agent: Option<AgentAddress>,
    },
    /// Compare or create the streams, consumers and buckets.
    Streams {
        #[command(subcommand)]
        command: Streams,
    },
    Ingest(IngestArgs),
    /// Configure agents; a change applies from the next message on, without a restart.
    Agent {
        #[command(subcommand)]
        command: agent::Agent,
    },
    /// Show the tools that NATS services and MCP servers offer.
    Tools {
        #[command(subcommand)]
        command: Tools,
    },
    /// Show the configuration.
    Config {
        #[command(subcommand)]
        command: Configuration,
    },
    /// Measure the cost of the knowledge index.
    #[cfg(feature = "bench")]
    Knowledge {
        #[command(subcommand)]
        command: knowledge::Knowledge,
    },
    /// Not in this build, which is without the feature `bench`.
    #[cfg(not(feature = "bench"))]
    Knowledge(Absent),
    Replay(replay::Replay),
    Telemetry(telemetry::TelemetryArgs),
    Audit {
        #[command(subcommand)]
        command: audit::Audit,
    },
    Erase(privacy::Erase),
    Hold {
        #[command(subcommand)]
        command: privacy::Hold,
    },
    Retain(retain::Retain),
    EndTurn(turn::EndTurn),
    /// Put an agent on a page of another host.
    Widget {
        #[command(subcommand)]
        command: widget::Widget,
    },
    /// Show the permissions of each role on NATS.
    Nats {
        #[command(subcommand)]
        command: nats::NatsCommand,
    },
    /// Measure throughput and latency: a load generator with a built-in fake gateway.
    #[cfg(feature = "bench")]
    Bench(bench::BenchArgs),
    /// Not in this build, which is without the feature `bench`.
    #[cfg(not(feature = "bench"))]
    Bench(Absent),
    /// Until 0.1 this wrote the schemas of `spec/`.
    #[command(hide = true)]
    Spec(Absent),
}

/// A command that this build does not have, with any arguments.
#[derive(Args)]
struct Absent {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<String>,
}

#[derive(Args)]
struct Listen {
    /// Address to listen on [default: SMOOTH_AGENT_BIND, or 127.0.0.1].
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Port to listen on, 0 = any free one [default: SMOOTH_AGENT_PORT, or 8787].
    #[arg(long)]
    port: Option<u16>,
}

#[derive(Subcommand)]
enum Streams {
    /// Create missing definitions and update different ones.
    ///
    /// An operator's choices stay: replicas, limits, placement. A stream that the deployment had and has no more is not made anew.
    Apply(ApplyArgs),
    /// Show the differences; exit code 1 if there are any.
    Diff(Replicas),
}

#[derive(Args)]
struct ApplyArgs {
    #[command(flatten)]
    replicas: Replicas,
    /// Only print the changes.
    #[arg(long)]
    dry_run: bool,
    /// A lost stream that is to be created empty: CHAT, AUDIT, KEYS, AGENTS or SETTINGS; repeatable.
    #[arg(long, value_name = "NAME")]
    lost: Vec<String>,
    /// Take replicas away without asking.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
struct Replicas {
    /// Replicas of each file-based stream and bucket: 1, or 3 in a cluster of three or more servers.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5))]
    replicas: Option<u32>,
}

#[derive(Subcommand)]
enum Tools {
    /// List the tools offered now, the refused ones, and those not offered as declared.
    List,
}

#[derive(Subcommand)]
enum Configuration {
    /// Print the effective values, without secrets; exit code 1 if any is invalid.
    Check,
}

/// Runs the command of the process's arguments.
///
/// A future is compiled where it is polled: here, and not once more in the program.
#[tokio::main]
pub async fn main() -> ExitCode {
    logging::start();
    // Fails only when a provider is installed already, which is then as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turnstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    cli.operations.map(|address| OPERATIONS.set(address));
    match cli.command {
        #[cfg(feature = "bench")]
        Command::Knowledge { command } => knowledge::measure(command).await,
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(args).await,
        #[cfg(not(feature = "bench"))]
        Command::Knowledge(_) | Command::Bench(_) => absent("bench"),
        #[cfg(not(feature = "dev"))]
        Command::Dev(_) => absent("dev"),
        Command::Spec(_) => anyhow::bail!("the schemas of spec/ are written by `UPDATE_SPEC=1 ops/test spec`"),
        Command::Config { command: Configuration::Check } => check_config(),
        #[cfg(feature = "dev")]
        Command::Dev { listen, store } => {
            let mut config = with_listen(load()?, listen);
            dev_defaults(&mut config);
            dev::run(config, store).await
        }
        Command::Edge { listen } => run_edge(&with_listen(load()?, listen)).await,
        Command::Worker { health_port, agent } => {
            let mut config = load()?;
            config.health_port = health_port.or(config.health_port);
            config.hosted_agent = agent.or(config.hosted_agent);
            run_worker(&config).await
        }
        Command::Ingest(args) if args.serve => app::serve_ingest(&load()?, args).await,
        Command::Ingest(args) => match app::ingest(&load()?, args).await? {
            true => Ok(()),
            false => anyhow::bail!("some documents were not ingested"),
        },
        Command::Agent { command } => agent::run(command, &load()?).await,
        Command::Replay(args) => replay::replay(args, &load()?).await,
        Command::Telemetry(args) => telemetry::telemetry(args, &load()?).await,
        Command::Audit { command } => audit::audit(command).await,
        Command::Erase(args) => privacy::erase(args, &load()?).await,
        Command::Hold { command } => privacy::hold(command, &load()?).await,
        Command::Retain(args) => retain::retain(args, &load()?).await,
        Command::EndTurn(args) => turn::end_turn(args, &load()?).await,
        Command::Widget { command } => widget::run(command),
        Command::Nats { command } => nats::run(command).await,
        Command::Streams { command } => streams(command).await,
        Command::Tools { command: Tools::List } => list_tools().await,
    }
}

fn check_config() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    println!("{config}");
    config.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    let unknown = Config::unknown_names();
    for (name, meant) in &unknown {
        let meant = meant.map(|meant| format!("; {meant} is one")).unwrap_or_default();
        eprintln!("{name}: no setting has this name{meant}");
    }
    anyhow::ensure!(unknown.is_empty(), "some names have no effect");
    Ok(())
}

async fn run_edge(config: &Config) -> anyhow::Result<()> {
    let nats = app::connect(config, "edge").await?;
    let edge = app::start_edge(config, &nats).await?;
    let stop = app::StopSignal::new()?;
    println!("listening on http://{}", edge.address);
    stop.wait().await;
    edge.stop().await;
    Ok(())
}

async fn run_worker(config: &Config) -> anyhow::Result<()> {
    let nats = app::connect(config, "worker").await?;
    let worker = app::start_worker(config, &nats).await?;
    let stop = app::StopSignal::new()?;
    println!("working for pool {}", config.pool);
    stop.wait().await;
    worker.stop().await;
    Ok(())
}

#[cfg(not(all(feature = "bench", feature = "dev")))]
fn absent(feature: &str) -> anyhow::Result<()> {
    anyhow::bail!("this build has no such command: it is without the feature `{feature}` (see ops/README.md)")
}

/// Loads the configuration, and warns about names that look like typing errors.
fn load() -> anyhow::Result<Config> {
    for (name, meant) in Config::unknown_names() {
        tracing::warn!(name, meant, "this environment variable is unknown and has no effect");
    }
    let mut config = Config::from_env()?;
    config.operations.address = OPERATIONS.get().copied().or(config.operations.address);
    Ok(config)
}

fn with_listen(config: Config, listen: Listen) -> Config {
    Config { bind: listen.bind.unwrap_or(config.bind), port: listen.port.unwrap_or(config.port), ..config }
}

/// Turns on the demo documents and an approval for `dev`, unless the environment says otherwise.
#[cfg(feature = "dev")]
fn dev_defaults(config: &mut Config) {
    if std::env::var_os("SMOOTH_AGENT_SEED_KB").is_none() {
        config.seed_kb = true;
    }
    if std::env::var_os("SMOOTH_AGENT_CONFIRM_TOOLS").is_none() {
        config.confirm_tools = vec!["issue_refund".into()];
    }
}

async fn streams(command: Streams) -> anyhow::Result<()> {
    let config = load()?;
    let nats = app::connect(&config, "streams").await?;
    let region = &config.regions.home;
    match command {
        Streams::Apply(ApplyArgs { replicas: Replicas { replicas }, dry_run, lost, yes }) => {
            let options = app::ApplyOptions { replicas, lost, yes };
            let lines = match dry_run {
                true => app::plan_streams(&config, &nats, &options).await?,
                false => app::apply_streams(&config, &nats, &options).await?,
            };
            if lines.is_empty() {
                println!("nothing would change");
            }
            lines.iter().for_each(|line| println!("{line}"));
            Ok(())
        }
        Streams::Diff(Replicas { replicas }) => app::diff_streams(&nats, region, replicas).await,
    }
}

async fn list_tools() -> anyhow::Result<()> {
    let config = load()?;
    let nats = app::connect(&config, "tools").await?;
    let mut discovery = tools::discovery::ToolDiscovery::new(nats.client).await.map_err(anyhow::Error::msg)?;
    let (mcp, stop) = (tools::McpTools::new(&config.mcp.servers), CancellationToken::new());
    let running = tokio::spawn(mcp.clone().run(stop.clone()));
    let (found, ()) = tokio::join!(discovery.first(), mcp.first());
    let tools::discovery::DiscoveryReport { tools: mut found, refused, mut warnings } = found;
    found.retain(|tool| !tool.contested);
    found.extend(mcp.offered());
    warnings.extend(mcp.warnings());
    stop.cancel();
    running.await?;
    if found.is_empty() {
        println!("no NATS service and no MCP server offers a tool");
    }
    for tool in found {
        let mut notes = vec![format!("timeout {} s", tool.timeout.as_secs_f32())];
        notes.extend(tool.org.map(|org| format!("only for {org}")));
        notes.extend(tool.confirm.then(|| "waits for approval".to_string()));
        notes.extend(tool.idempotent.then(|| "idempotent".to_string()));
        notes.extend(match tool.level {
            AuthLevel::None => None,
            AuthLevel::EndUser => Some("for visitors with a proved identity".to_string()),
            AuthLevel::Admin => Some("for administrators".to_string()),
        });
        if let tools::ToolBackend::Endpoint { subject } = &tool.backend {
            notes.push(format!("at {subject}"));
        }
        println!("{}\n    {}\n    {}", tool.name, tool.description, notes.join(", "));
    }
    for tools::claims::RefusedDeclaration { service, tool, why } in refused {
        println!("refused: {tool} of the service {service}: {why}");
    }
    for tools::claims::RefusedDeclaration { service, tool, why } in warnings {
        println!("warning: {tool} of {service}: {why}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
