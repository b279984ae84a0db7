//! The NATS permissions of each role: the users of `ops/nats`, their form for a server's configuration, and a check of a
//! running server.
//!
//! `ops/nats/permissions.json` is the single source of the permissions; it is built into the program. It is written for the
//! region `local`, like the definitions under `streams/`.
//!
//! - [`accounts`]: users separated by accounts.
//! - [`reach`]: the subjects and data in a role's reach beyond the subjects that it may name.

pub mod accounts;
pub mod reach;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    nats::{
        connection::{NatsConnection, soon},
        core::{self, Client},
        streams,
    },
    subjects,
};

const PERMISSIONS: &str = include_str!("../../ops/nats/permissions.json");
/// Time for a server's refusals to arrive, after the last try.
const COMPLAINTS_MS: u64 = 2_000;
/// Tries between two reads of the refusals: the client library drops events that are not read in time.
const TRIES_AT_ONCE: usize = 24;
/// A sequence that no stream has: a message that expects it is never stored.
const NEVER: &str = "9007199254740991";

/// The permissions of a role.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct NatsRole {
    /// The purpose of the role.
    pub what: String,
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
    /// The role may answer requests, on any reply subject.
    #[serde(default)]
    pub answers: bool,
    /// The role's reach beyond its subjects ([`reach`]), each with the reason for it.
    #[serde(default)]
    pub accepts: BTreeMap<String, String>,
}

/// Roles by name.
pub type NatsRoles = BTreeMap<String, NatsRole>;

/// Roles that can have one user per organisation.
const OF_ORGS: [&str; 3] = ["tool_provider", "otp_provider", "retrieve_provider"];

/// Returns the roles of a region.
pub fn roles(region: &str) -> NatsRoles {
    let text = PERMISSIONS.replace("_local", &format!("_{region}")).replace(".local.", &format!(".{region}."));
    serde_json::from_str(&text).expect("the file holds roles; a test reads it")
}

/// Returns the roles of a region; given organisations, each has its own providers, which serve it alone.
pub fn roles_of(region: &str, orgs: &[String]) -> NatsRoles {
    let mut all = roles(region);
    for name in OF_ORGS.iter().filter(|_| !orgs.is_empty()) {
        let Some(role) = all.remove(*name) else { continue };
        for org in orgs {
            let subscribe = role.subscribe.iter().map(|subject| subjects::of_one_org(subject, org)).collect();
            let what = format!("{} Of the organisation {org}.", role.what);
            all.insert(format!("{name}-{}", subjects::encode_token(org)), NatsRole { what, subscribe, ..role.clone() });
        }
    }
    all
}

/// Returns the users as a part of a server's configuration. Passwords come from the server's environment.
pub fn server_config(region: &str, orgs: &[String]) -> String {
    let users: Vec<String> = roles_of(region, orgs).iter().map(|(name, role)| user(name, role)).collect();
    format!(
        "# The users of Turnstream, one a role; written by `turnstream nats config`. Include it in the server's configuration,\n\
         # with JetStream on, and give the server the passwords in its environment.\n\
         accounts {{\n  TURNSTREAM {{\n    jetstream: enabled\n    users: [\n{}\n    ]\n  }}\n}}\n",
        users.join("\n")
    )
}

fn user(name: &str, role: &NatsRole) -> String {
    let permissions = serde_json::json!({
        "publish": { "allow": role.publish }, "subscribe": { "allow": role.subscribe },
        "allow_responses": role.answers,
    });
    let variable = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let password = format!("$TURNSTREAM_{}_PASSWORD", name.chars().map(variable).collect::<String>());
    format!(
        "      # {}\n      {{ user: {name:?}, password: {password}, permissions: {permissions} }}",
        one_line(&role.what)
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The findings of a check.
#[derive(Debug, Default)]
pub struct PermissionReport {
    /// Differences from the role, and reach that is not accepted; empty = the role is as defined.
    pub wrong: Vec<String>,
    /// Accepted reach of the role, with the reasons.
    pub accepted: Vec<String>,
}

/// Checks that a connection has exactly the permissions of a role, and computes its reach with them.
pub async fn check(
    nats: &NatsConnection,
    name: &str,
    region: &str,
    orgs: &[String],
) -> anyhow::Result<PermissionReport> {
    let roles = roles_of(region, orgs);
    let role = roles.get(name).ok_or_else(|| anyhow::anyhow!("there is no role `{name}`"))?;
    let mut checked = PermissionReport::default();
    // A role without the right to query the server is checked by trying.
    if !role.publish.iter().any(|subject| subject == subjects::USER_INFO) {
        let own = tries(&role.publish, &role.subscribe);
        let refused = not_passed(nats, &own).await?;
        checked.wrong.extend(refused.into_iter().map(|what| format!("the {what}, which the role needs, is refused")));
    } else {
        let actual = match permissions_of(&nats.client).await {
            Ok(actual) => actual,
            // A user of another role does not even get replies.
            Err(error) => return Err(nats.refusals().pop().map_or(error, anyhow::Error::msg)),
        };
        let actual = compare(&actual, role, &mut checked.wrong);
        let reached = reach::of(&actual, &roles, &streams::definitions(region, None));
        for reach::ReachableSubject { id, why } in reached {
            match role.accepts.get(&id) {
                Some(reason) => checked.accepted.push(format!("reaches `{id}` ({why}). Accepted: {reason}")),
                None => checked.wrong.push(format!("reaches `{id}`: {why}")),
            }
        }
    }
    checked.wrong.extend(refused(nats, role, &roles).await?);
    Ok(checked)
}

/// Returns the server's permissions of a user as a role, and reports differences from the wanted ones.
fn compare(actual: &Value, role: &NatsRole, wrong: &mut Vec<String>) -> NatsRole {
    let mut found = NatsRole { publish: vec![], subscribe: vec![], ..role.clone() };
    let lists = [("publish", &role.publish, &mut found.publish), ("subscribe", &role.subscribe, &mut found.subscribe)];
    for (verb, wanted, found) in lists {
        // A missing list allows everything.
        let Some(allowed) = actual[verb]["allow"].as_array() else {
            wrong.push(format!("may {verb} on every subject"));
            found.push(subjects::EVERYTHING.into());
            continue;
        };
        found.extend(allowed.iter().filter_map(Value::as_str).map(String::from));
        let missing = wanted.iter().filter(|subject| !found.contains(subject));
        wrong.extend(missing.map(|subject| format!("may not {verb} on {subject}, which the role needs")));
        let more = found.iter().filter(|subject| !wanted.contains(subject));
        wrong.extend(more.map(|subject| format!("may {verb} on {subject}, which the role does not need")));
    }
    found
}

/// Returns the server's information on the connection's user.
async fn permissions_of(client: &Client) -> anyhow::Result<Value> {
    let reply = soon(client.request(subjects::USER_INFO, "".into())).await.map_err(anyhow::Error::msg)?;
    let reply: Value = serde_json::from_slice(&reply.payload)?;
    Ok(reply["data"]["permissions"].clone())
}

/// Tries the permissions of other roles that this role lacks.
///
/// A try has no effect even if the server allows it: a message that would be stored expects a sequence that never exists.
async fn refused(nats: &NatsConnection, role: &NatsRole, roles: &NatsRoles) -> anyhow::Result<Vec<String>> {
    let of_others = |pick: fn(&NatsRole) -> &Vec<String>| {
        let all: Vec<String> = roles.values().flat_map(pick).map(|subject| example(subject)).collect();
        let mut foreign: Vec<String> =
            all.into_iter().filter(|subject| !pick(role).iter().any(|own| covers(own, subject))).collect();
        foreign.sort();
        foreign.dedup();
        foreign
    };
    let tries = tries(&of_others(|role| &role.publish), &of_others(|role| &role.subscribe));
    let mut open = Vec::new();
    for some in tries.chunks(TRIES_AT_ONCE) {
        open.extend(not_refused(nats, some).await?);
    }
    Ok(open.into_iter().map(|what| format!("{what} is not refused")).collect())
}

/// Returns the tries that the server refuses.
async fn not_passed(nats: &NatsConnection, tries: &[(Attempt, String)]) -> anyhow::Result<Vec<String>> {
    let mut refused = Vec::new();
    for some in tries.chunks(TRIES_AT_ONCE) {
        let passed = not_refused(nats, some).await?;
        refused.extend(some.iter().map(words).filter(|what| !passed.contains(what)));
    }
    Ok(refused)
}

/// Returns a try of each subject.
fn tries(publish: &[String], subscribe: &[String]) -> Vec<(Attempt, String)> {
    let published = publish.iter().map(|subject| (Attempt::Publish, example(subject)));
    let subscribed = subscribe.iter().map(|subject| (Attempt::Subscribe, subject.clone()));
    published.chain(subscribed).collect()
}

/// The kind of a try.
#[derive(Clone, Copy)]
enum Attempt {
    Publish,
    Subscribe,
}

/// Makes some tries; returns those that the server allows.
async fn not_refused(nats: &NatsConnection, tries: &[(Attempt, String)]) -> anyhow::Result<Vec<String>> {
    let mut subscriptions = Vec::new();
    for (what, subject) in tries {
        match what {
            Attempt::Publish => {
                let headers = core::headers([("Nats-Expected-Last-Sequence", NEVER)]);
                let sent = soon(nats.client.publish_with_headers(subject.clone(), headers, "".into())).await;
                sent.map_err(anyhow::Error::msg)?;
            }
            Attempt::Subscribe => {
                let subscribed = soon(nats.client.subscribe(subject.clone())).await;
                subscriptions.push(subscribed.map_err(anyhow::Error::msg)?);
            }
        }
    }
    soon(nats.client.flush()).await.map_err(anyhow::Error::msg)?;
    let mut open: Vec<String> = tries.iter().map(words).collect();
    let begun = Instant::now();
    while !open.is_empty() && begun.elapsed() < Duration::from_millis(COMPLAINTS_MS) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let refusals: Vec<String> = nats.refusals().iter().map(|refusal| refusal.to_lowercase()).collect();
        open.retain(|refusal| !refusals.iter().any(|said| said.contains(refusal)));
    }
    Ok(open)
}

/// Returns a try in the words of the server's refusal.
fn words((what, subject): &(Attempt, String)) -> String {
    match what {
        Attempt::Publish => format!("publish to \"{}\"", subject.to_lowercase()),
        Attempt::Subscribe => format!("subscription to \"{}\"", subject.to_lowercase()),
    }
}

/// Returns a subject that a pattern covers.
fn example(pattern: &str) -> String {
    pattern.split('.').map(|token| if ["*", ">"].contains(&token) { "x" } else { token }).collect::<Vec<_>>().join(".")
}

/// Returns whether a pattern covers a subject.
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

/// Returns whether a subject exists that both patterns cover.
fn overlaps(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            (a, b) => return a.is_none() && b.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_reply_inbox_and_belongs_to_its_region() {
        for (name, role) in roles("eu") {
            assert!(role.subscribe.iter().any(|subject| subject.starts_with(&subjects::inbox_prefix(""))), "{name}");
            let text = serde_json::to_string(&role).unwrap();
            assert!(!text.contains("local"), "{name}: {text}");
        }
    }

    #[test]
    fn the_committed_configuration_matches_the_roles() {
        let committed = include_str!("../../ops/nats/users.conf");
        assert!(committed == server_config("local", &[]), "run `turnstream nats config > ops/nats/users.conf`");
    }

    #[test]
    fn providers_get_no_messages_of_another_organisation() {
        let roles = roles_of("local", &["acme inc".into()]);
        assert!(!roles.contains_key("tool_provider"));
        let subscribe = |name: &str| roles[name].subscribe[0].clone();
        assert_eq!(subscribe("tool_provider-acme=20inc"), subjects::tools_of_org("acme inc"));
        assert_eq!(subscribe("otp_provider-acme=20inc"), subjects::otp("acme inc", "*"));
        assert_eq!(subscribe("retrieve_provider-acme=20inc"), subjects::retrieve("acme inc"));
        assert!(server_config("local", &["acme inc".into()]).contains("$TURNSTREAM_TOOL_PROVIDER_ACME_20INC_PASSWORD"));
    }

    #[test]
    fn patterns_overlap_when_one_subject_matches_both() {
        for (a, b, expected) in [
            ("a.*", "*.b", true),
            ("a.>", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
            ("a.b", "a.c", false),
            ("a", "a", true),
        ] {
            assert_eq!((overlaps(a, b), overlaps(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn patterns_cover_their_subjects() {
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
