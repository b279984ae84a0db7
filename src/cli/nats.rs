//! `turnstream nats`: permissions on NATS, and the key that signs calls of services.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use crate::{
    app,
    nats::streams,
    permissions::{self, NatsRoles, reach},
    signing::SigningKey,
};

#[derive(Subcommand)]
pub enum NatsCommand {
    /// Print a server configuration with the users of every role, each with the least permissions.
    Config {
        /// Split the providers' users into one for each of these organisations, which then serves that organisation alone;
        /// repeatable.
        #[arg(long)]
        org: Vec<String>,
        /// Separate the users by accounts, which isolate where permissions can't.
        #[arg(long)]
        accounts: bool,
    },
    /// Compare the configured user's permissions with its role, try forbidden operations, and list its reach beyond its
    /// subjects; exit code 1 if anything differs.
    Check {
        /// A role of `ops/nats`: edge, worker, ingester, tool_caller, otp_caller, retrieve_caller, tool_provider, otp_provider,
        /// retrieve_provider, auditor, eraser or administrator.
        role: String,
        /// The organisations that the users were made for.
        #[arg(long)]
        org: Vec<String>,
    },
    /// List the reach of each role beyond its subjects, without a server; exit code 1 if a role does not accept its own.
    Reach {
        /// A file of roles [default: the built-in roles].
        file: Option<PathBuf>,
    },
    /// Make a key that signs calls of services.
    Key {
        /// File of the private key; the public one goes to the same name with `.pub`.
        #[arg(default_value = "call-key.pem")]
        file: PathBuf,
    },
}

/// Runs a command of `turnstream nats`.
pub async fn run(command: NatsCommand) -> anyhow::Result<()> {
    match command {
        NatsCommand::Config { org, accounts } => {
            let region = super::load()?.regions.home;
            print!(
                "{}",
                match accounts {
                    true => permissions::accounts::server_config(&region, &org),
                    false => permissions::server_config(&region, &org),
                }
            );
            Ok(())
        }
        NatsCommand::Check { role, org } => check(&role, &org).await,
        NatsCommand::Reach { file } => tell_reach(file.as_deref()),
        NatsCommand::Key { file } => {
            let mut public = file.clone().into_os_string();
            public.push(".pub");
            let public = PathBuf::from(public);
            let key = SigningKey::generate(&file, &public)?;
            println!("{}: private key, for the calling processes", file.display());
            println!("{}: public key, for the called services; key id {}", public.display(), key.id());
            Ok(())
        }
    }
}

async fn check(role: &str, orgs: &[String]) -> anyhow::Result<()> {
    let config = super::load()?;
    // Users of one organisation share the inbox of their role.
    let inbox = role.split('-').next().unwrap_or(role);
    let nats = app::connect(&config, inbox).await?;
    let checked = permissions::check(&nats, role, &config.regions.home, orgs).await?;
    for accepted in &checked.accepted {
        println!("{role}: {accepted}");
    }
    for wrong in &checked.wrong {
        println!("{wrong}");
    }
    if !checked.wrong.is_empty() {
        anyhow::bail!("the user's permissions differ from the role `{role}`");
    }
    println!("{role}: has exactly the permissions it needs");
    Ok(())
}

fn tell_reach(file: Option<&Path>) -> anyhow::Result<()> {
    let region = super::load()?.regions.home;
    let roles: NatsRoles = match file {
        None => permissions::roles(&region),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            serde_json::from_str(&text).with_context(|| path.display().to_string())?
        }
    };
    let streams = streams::definitions(&region, None);
    let mut open = 0;
    for (name, role) in &roles {
        for reach::ReachableSubject { id, why } in reach::of(role, &roles, &streams) {
            match role.accepts.get(&id) {
                Some(reason) => println!("{name}: reaches `{id}` ({why}). Accepted: {reason}"),
                None => {
                    open += 1;
                    println!("{name}: OPEN: reaches `{id}`: {why}");
                }
            }
        }
    }
    if open > 0 {
        anyhow::bail!("{open} reachable resources are not accepted by their roles");
    }
    println!("no role reaches more than it accepts");
    Ok(())
}
