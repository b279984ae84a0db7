//! `turnstream agent`: configurations of agents.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::{
    agents::{AgentConfig, AgentStore, store::AgentEntry},
    app,
    auth::REFERENCE_ORG,
    config::Config,
    log::jetstream_log::NatsLog,
    nats::streams,
};

/// Configure agents. A change applies to the next message to the agent, on every edge within a second, without a restart.
#[derive(Subcommand)]
pub enum Agent {
    /// Write a new version of an agent's configuration.
    Put {
        #[command(flatten)]
        of: AgentSelector,
        /// A JSON file, or - for standard input.
        file: PathBuf,
    },
    /// Print an agent's configuration.
    Get {
        #[command(flatten)]
        of: AgentSelector,
    },
    /// List the configured agents.
    List {
        /// Only agents of this organisation.
        #[arg(long)]
        org: Option<String>,
    },
    /// Delete an agent's configuration; running turns keep theirs.
    Delete {
        #[command(flatten)]
        of: AgentSelector,
    },
    /// Check a configuration without writing it; exit code 1 if it is invalid.
    Check {
        /// A JSON file, or - for standard input.
        file: PathBuf,
    },
}

/// The agent and its organisation.
#[derive(Args)]
pub struct AgentSelector {
    /// The agent's id; the configuration of `default` applies to agents of the organisation that have none.
    agent: String,
    /// The organisation.
    #[arg(long, default_value = REFERENCE_ORG)]
    org: String,
}

/// Runs a command of `turnstream agent`.
pub async fn run(command: Agent, config: &Config) -> anyhow::Result<()> {
    if let Agent::Check { file } = &command {
        read(file)?;
        println!("{}: valid", file.display());
        return Ok(());
    }
    let nats = app::connect(config, "agent").await?;
    let store = AgentStore::new(NatsLog::new(nats.client.clone()));
    match command {
        Agent::Put { of: AgentSelector { agent, org }, file } => {
            let configured = read(&file)?;
            if agent.trim().is_empty() || org.trim().is_empty() {
                bail!("the names of the agent and the organisation must not be blank");
            }
            if let Some(pool) = &configured.pool
                && !streams::has_pool(&nats.client, &config.regions.home, pool).await?
            {
                bail!("there is no worker pool `{pool}`: define its consumer first (see streams/README.md)");
            }
            if configured.widget.is_some() {
                let has_policy =
                    |entry: &AgentEntry| entry.config.as_ref().is_some_and(|config| config.widget.is_some());
                let others = store.list().await?;
                if let Some(other) = others.iter().find(|e| e.agent == agent && e.org != org && has_policy(e)) {
                    bail!("`{}` has an agent `{agent}` with a widget; visitors name the agent alone", other.org);
                }
            }
            let revision = store.put(&org, &agent, &configured).await?;
            println!("{org}/{agent} revision {revision}");
        }
        Agent::Get { of: AgentSelector { agent, org } } => {
            let entry = store.get(&org, &agent).await?;
            let Some((revision, found)) = entry.and_then(|entry| Some((entry.revision, entry.config?))) else {
                bail!("{org}/{agent} is not configured");
            };
            eprintln!("{org}/{agent} revision {revision}");
            println!("{}", serde_json::to_string_pretty(&*found)?);
        }
        Agent::List { org } => {
            let entries = store.list().await?;
            for entry in entries.iter().filter(|entry| org.as_ref().is_none_or(|org| *org == entry.org)) {
                let name = entry.config.as_ref().and_then(|config| config.name.as_deref()).unwrap_or_default();
                println!("{}/{}\trevision {}\t{name}", entry.org, entry.agent, entry.revision);
            }
        }
        Agent::Delete { of: AgentSelector { agent, org } } => {
            if store.get(&org, &agent).await?.and_then(|entry| entry.config).is_none() {
                bail!("{org}/{agent} is not configured");
            }
            store.delete(&org, &agent).await?;
            println!("{org}/{agent} is no longer configured");
        }
        Agent::Check { .. } => {}
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<AgentConfig> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).context("standard input")?;
    } else {
        text = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    }
    AgentConfig::parse(&text).map_err(|problems| {
        let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        anyhow::anyhow!("{} is not a valid configuration:{lines}", file.display())
    })
}
