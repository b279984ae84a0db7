//! What each role may do on NATS: the users of `ops/nats`, their form for a server's configuration, and whether a server has them.
//!
//! `ops/nats/permissions.json` is the one place where permissions are written; it is built into the program. It is written for
//! the region `local`, like the definitions under `streams/`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_nats::{Client, HeaderMap};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::log::bus::Bus;

const PERMISSIONS: &str = include_str!("../ops/nats/permissions.json");
/// How long a server's complaints are waited for, after everything that it was asked.
const COMPLAINTS_MS: u64 = 2_000;
/// Tries between two looks at the complaints: the client library drops what it is not asked for in time.
const TRIES_AT_ONCE: usize = 24;
/// A sequence that no stream has: a message that expects it is never stored.
const NEVER: &str = "9007199254740991";

/// What a role may do.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Role {
    /// What the role is for.
    pub what: String,
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
    /// May answer requests, wherever the answer goes.
    #[serde(default)]
    pub answers: bool,
}

/// The roles of a region, by name.
pub fn roles(region: &str) -> BTreeMap<String, Role> {
    let text = PERMISSIONS.replace("_local", &format!("_{region}")).replace(".local.", &format!(".{region}."));
    serde_json::from_str(&text).expect("the file holds roles; a test reads it")
}

/// The users as a part of a server's configuration. Passwords come from the server's environment.
pub fn server_config(region: &str) -> String {
    let users: Vec<String> = roles(region)
        .iter()
        .map(|(name, role)| {
            let permissions = serde_json::json!({
                "publish": { "allow": role.publish }, "subscribe": { "allow": role.subscribe },
                "allow_responses": role.answers,
            });
            let password = format!("$TURNSTREAM_{}_PASSWORD", name.to_uppercase());
            format!("      # {}\n      {{ user: {name}, password: {password}, permissions: {permissions} }}", role.what)
        })
        .collect();
    format!(
        "# The users of Turnstream, one a role; written by `turnstream nats config`. Include it in the server's configuration,\n\
         # with JetStream on, and give the server the passwords in its environment.\n\
         accounts {{\n  TURNSTREAM {{\n    jetstream: enabled\n    users: [\n{}\n    ]\n  }}\n}}\n",
        users.join("\n")
    )
}

/// Whether a connection has just the permissions of a role. Each line is something that differs; none = it has.
pub async fn check(bus: &Bus, name: &str, region: &str) -> anyhow::Result<Vec<String>> {
    let roles = roles(region);
    let role = roles.get(name).ok_or_else(|| anyhow::anyhow!("there is no role `{name}`"))?;
    let mut differences = Vec::new();
    let actual = match permissions_of(&bus.client).await {
        Ok(actual) => actual,
        // A user of another role does not even get replies.
        Err(error) => return Err(bus.refusals().pop().map_or(error, anyhow::Error::msg)),
    };
    for (verb, wanted) in [("publish", &role.publish), ("subscribe", &role.subscribe)] {
        // No list means that everything is allowed.
        let allowed: Option<Vec<&str>> =
            actual[verb]["allow"].as_array().map(|list| list.iter().filter_map(Value::as_str).collect());
        let Some(allowed) = allowed else {
            differences.push(format!("may {verb} on every subject"));
            continue;
        };
        let missing = wanted.iter().filter(|subject| !allowed.contains(&subject.as_str()));
        differences.extend(missing.map(|subject| format!("may not {verb} on {subject}, which it needs")));
        let more = allowed.iter().filter(|subject| !wanted.iter().any(|wanted| wanted == *subject));
        differences.extend(more.map(|subject| format!("may {verb} on {subject}, which it does not need")));
    }
    differences.extend(refused(bus, role, &roles).await?);
    Ok(differences)
}

/// What the server says of the connection's user.
async fn permissions_of(client: &Client) -> anyhow::Result<Value> {
    let reply = client.request(crate::subjects::USER_INFO, "".into()).await?;
    let reply: Value = serde_json::from_slice(&reply.payload)?;
    Ok(reply["data"]["permissions"].clone())
}

/// Tries what other roles may do and this one may not. Nothing comes of it where the server does not refuse it: a message
/// that would be stored expects what never is.
async fn refused(bus: &Bus, role: &Role, roles: &BTreeMap<String, Role>) -> anyhow::Result<Vec<String>> {
    let of_others = |pick: fn(&Role) -> &Vec<String>| {
        let all: Vec<String> = roles.values().flat_map(pick).map(|subject| example(subject)).collect();
        let mut foreign: Vec<String> =
            all.into_iter().filter(|subject| !pick(role).iter().any(|own| covers(own, subject))).collect();
        foreign.sort();
        foreign.dedup();
        foreign
    };
    let published = of_others(|role| &role.publish).into_iter().map(|subject| (Try::Publish, subject));
    let subscribed = of_others(|role| &role.subscribe).into_iter().map(|subject| (Try::Subscribe, subject));
    let tries: Vec<(Try, String)> = published.chain(subscribed).collect();
    let mut open = Vec::new();
    for some in tries.chunks(TRIES_AT_ONCE) {
        open.extend(not_refused(bus, some).await?);
    }
    Ok(open)
}

/// Something that a role may not do.
#[derive(Clone, Copy)]
enum Try {
    Publish,
    Subscribe,
}

/// Makes some tries; returns those that the server lets pass.
async fn not_refused(bus: &Bus, tries: &[(Try, String)]) -> anyhow::Result<Vec<String>> {
    let mut subscriptions = Vec::new();
    for (what, subject) in tries {
        match what {
            Try::Publish => {
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Expected-Last-Sequence", NEVER);
                bus.client.publish_with_headers(subject.clone(), headers, "".into()).await?;
            }
            Try::Subscribe => subscriptions.push(bus.client.subscribe(subject.clone()).await?),
        }
    }
    bus.client.flush().await?;
    let words = |(what, subject): &(Try, String)| match what {
        Try::Publish => format!("publish to \"{}\"", subject.to_lowercase()),
        Try::Subscribe => format!("subscription to \"{}\"", subject.to_lowercase()),
    };
    let mut open: Vec<String> = tries.iter().map(words).collect();
    let begun = Instant::now();
    while !open.is_empty() && begun.elapsed() < Duration::from_millis(COMPLAINTS_MS) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let refusals: Vec<String> = bus.refusals().iter().map(|refusal| refusal.to_lowercase()).collect();
        open.retain(|refusal| !refusals.iter().any(|said| said.contains(refusal)));
    }
    Ok(open.into_iter().map(|what| format!("{what} is not refused")).collect())
}

/// A subject that a pattern covers.
fn example(pattern: &str) -> String {
    pattern.split('.').map(|token| if ["*", ">"].contains(&token) { "x" } else { token }).collect::<Vec<_>>().join(".")
}

/// Whether a pattern covers a subject.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_reply_inbox_and_belongs_to_its_region() {
        for (name, role) in roles("eu") {
            assert!(
                role.subscribe.iter().any(|subject| subject.starts_with(&crate::subjects::inbox_prefix(""))),
                "{name}"
            );
            let text = serde_json::to_string(&role).unwrap();
            assert!(!text.contains("local"), "{name}: {text}");
        }
    }

    #[test]
    fn the_committed_configuration_is_that_of_the_roles() {
        let committed = include_str!("../ops/nats/users.conf");
        assert!(committed == server_config("local"), "run `turnstream nats config > ops/nats/users.conf`");
    }

    #[test]
    fn patterns_cover_what_they_say() {
        for (pattern, subject, expected) in [
            ("a.*.c", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} {subject}");
            assert!(covers(pattern, &example(pattern)));
        }
    }
}
