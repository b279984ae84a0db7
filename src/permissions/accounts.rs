//! NATS accounts of the users: a separation by the server, where permissions are not enough.
//!
//! Within one account, any answer of the server goes to any reply subject, so a user that may send requests to JetStream
//! can have stored messages delivered to a tool service as if they were calls. Services and their callers therefore have
//! accounts without streams: no message of the streams' account arrives there. The only passage is the discovery of tool
//! services by workers.

use std::collections::BTreeMap;

use super::{roles_of, user};
use crate::subjects;

/// The accounts of the streams, and of tools.
const CORE: &str = "TURNSTREAM";
const TOOLS: &str = "TURNSTREAM_TOOLS";

/// Returns the account of a role.
fn account(role: &str) -> &'static str {
    match role.split('-').next().unwrap_or(role) {
        "tool_caller" | "tool_provider" => TOOLS,
        "otp_caller" | "otp_provider" => "TURNSTREAM_PASSWORDS",
        "retrieve_caller" | "retrieve_provider" => "TURNSTREAM_RETRIEVAL",
        _ => CORE,
    }
}

/// Returns the users as a part of a server's configuration, each group in its own account.
pub fn server_config(region: &str, orgs: &[String]) -> String {
    let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, role) in &roles_of(region, orgs) {
        users.entry(account(name)).or_default().push(user(name, role));
    }
    let accounts = users.into_iter().map(|(account, users)| {
        let shared = match account {
            CORE => format!(
                "    jetstream: enabled\n{}",
                discovery("imports", |subject| {
                    format!("{{ service: {{ account: {TOOLS}, subject: {subject:?} }} }}")
                })
            ),
            TOOLS => discovery("exports", |subject| {
                format!("{{ service: {subject:?}, response_type: stream, accounts: [{CORE}] }}")
            }),
            _ => String::new(),
        };
        format!("  {account} {{\n{shared}    users: [\n{}\n    ]\n  }}\n", users.join("\n"))
    });
    format!(
        "# The users of Turnstream, parted by accounts; written by `turnstream nats config --accounts`. Include it in the server's\n\
         # configuration, with JetStream on, and give the server the passwords in its environment.\n\
         accounts {{\n{}}}\n",
        accounts.collect::<String>()
    )
}

/// Returns the import or export lines for the discovery of services.
fn discovery(what: &str, line: impl Fn(&str) -> String) -> String {
    let ping = subjects::service_ping("*", "*");
    let lines = [subjects::SERVICES_INFO, ping.as_str()].map(|subject| format!("      {}\n", line(subject)));
    format!("    {what}: [\n{}    ]\n", lines.concat())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_configuration_matches_the_roles() {
        let committed = include_str!("../../ops/nats/accounts.conf");
        let is_same = committed == super::server_config("local", &[]);
        assert!(is_same, "run `turnstream nats config --accounts > ops/nats/accounts.conf`");
    }
}
