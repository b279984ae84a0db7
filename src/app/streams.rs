//! The streams of a region: created, updated, compared.

use std::io::{IsTerminal, Write, stdin, stdout};

use anyhow::{bail, ensure};
use chrono::{TimeDelta, Utc};

use crate::{
    config::Config,
    nats::{
        connection::NatsConnection,
        lost, marks,
        streams::{self, StreamDefinition, StreamDrift},
    },
};

/// Longest outage of all workers before their consumer is recreated: turns overdue by this much are still ended.
const OUTAGE_MAX: TimeDelta = TimeDelta::days(1);

/// The options of applying definitions.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// Replicas of every file-based stream; `None` = an existing stream keeps its own.
    pub replicas: Option<u32>,
    /// Streams that are known to be lost, by their short names: they are created empty.
    pub lost: Vec<String>,
    /// Take replicas away without asking.
    pub yes: bool,
}

/// Creates or updates a region's streams. Returns one line for each definition.
///
/// Refuses to create a stream empty that the deployment had before, and asks before it takes replicas away.
pub async fn apply_streams(
    config: &Config,
    nats: &NatsConnection,
    options: &ApplyOptions,
) -> anyhow::Result<Vec<String>> {
    let turns_since = Utc::now() - TimeDelta::seconds(config.turn_limit_secs.into()) - OUTAGE_MAX;
    let region = &config.regions.home;
    let definitions = streams::definitions(region, options.replicas);
    refuse_lost(nats, region, &definitions, &options.lost).await?;
    let fewer = fewer_replicas(nats, &definitions).await?;
    ensure!(fewer.is_empty() || options.yes || agrees(&fewer)?, "nothing was changed");
    let mut lines = Vec::new();
    for definition in &definitions {
        let differences = definition.apply(&nats.client, turns_since).await?;
        let done = match differences.first() {
            None => "unchanged",
            Some(StreamDrift::Missing) => "created",
            Some(StreamDrift::Field { .. }) => "updated",
        };
        lines.push(format!("{} {done}", definition.title()));
    }
    for definition in &definitions {
        definition.mark(&nats.client).await?;
    }
    Ok(lines)
}

/// Returns one line for each change that applying would make.
pub async fn plan_streams(
    config: &Config,
    nats: &NatsConnection,
    options: &ApplyOptions,
) -> anyhow::Result<Vec<String>> {
    let region = &config.regions.home;
    let definitions = streams::definitions(region, options.replicas);
    refuse_lost(nats, region, &definitions, &options.lost).await?;
    let mut lines = Vec::new();
    for definition in definitions {
        let planned = definition.planned(&nats.client).await?;
        lines.extend(planned.into_iter().map(|change| match change {
            StreamDrift::Missing => format!("{} would be created", definition.title()),
            StreamDrift::Field { name, defined, actual } => {
                format!("{}: {name} would change from {actual} to {defined}", definition.title())
            }
        }));
    }
    Ok(lines)
}

async fn refuse_lost(
    nats: &NatsConnection,
    region: &str,
    definitions: &[StreamDefinition],
    known: &[String],
) -> anyhow::Result<()> {
    let mut lost = lost::lost_streams(&nats.client, region, definitions).await?;
    lost.retain(|stream| !known.iter().any(|name| name == stream || name == marks::short_name(stream)));
    let Some(first) = lost.first() else { return Ok(()) };
    let (names, flag) = (lost.join(", "), marks::short_name(first));
    bail!(
        "this deployment had {names}, and the server has it no more: created anew it would be empty, and its content stays lost. \
         Look whether this is the right server, and restore a backup. If the loss is known and accepted: \
         `turnstream streams apply --lost {flag}`"
    )
}

/// Returns a line for each stream that would have fewer replicas.
async fn fewer_replicas(nats: &NatsConnection, definitions: &[StreamDefinition]) -> anyhow::Result<Vec<String>> {
    let mut fewer = Vec::new();
    for definition in definitions.iter().filter(|definition| definition.names_replicas) {
        for change in definition.planned(&nats.client).await? {
            if let StreamDrift::Field { name, defined, actual } = change
                && name == "num_replicas"
                && actual.as_u64() > defined.as_u64()
            {
                fewer.push(format!("{}: {actual} replicas become {defined}", definition.title()));
            }
        }
    }
    Ok(fewer)
}

/// Asks at the terminal; without one, the answer is no.
fn agrees(fewer: &[String]) -> anyhow::Result<bool> {
    fewer.iter().for_each(|line| eprintln!("{line}"));
    if !stdin().is_terminal() {
        eprintln!("replicas are taken away with `--yes` alone");
        return Ok(false);
    }
    print!("Take them away? [y/N] ");
    stdout().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Prints the differences between a region's streams and their definitions; fails if there are any.
pub async fn diff_streams(nats: &NatsConnection, region: &str, replicas: Option<u32>) -> anyhow::Result<()> {
    let mut differ = false;
    for definition in streams::definitions(region, replicas) {
        for difference in definition.differences(&nats.client).await? {
            differ = true;
            match difference {
                streams::StreamDrift::Missing => println!("{}: missing", definition.title()),
                streams::StreamDrift::Field { name, defined, actual } => {
                    println!("{}: {name} is {actual}, defined as {defined}", definition.title());
                }
            }
        }
    }
    if differ {
        bail!("the streams differ from their definitions");
    }
    println!("no differences");
    Ok(())
}
