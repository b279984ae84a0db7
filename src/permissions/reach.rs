//! The reach of a role on NATS, which is more than the subjects that it may name.
//!
//! A server checks the subject of a message and none of its content: a push consumer delivers to any subject, every answer
//! of JetStream goes to any reply subject, a header rolls a stream up, a name in an API subject can be another role's
//! consumer. Each such way is derived here from a role's lists and the stream definitions. Reach that a role needs stands
//! in `accepts` of `permissions.json`, with its reason.
//! `accepts` of `permissions.json`, with its reason.

use serde_json::Value;

use super::{NatsRole, NatsRoles, overlaps};
use crate::{nats::streams::StreamDefinition, subjects};

/// One item of a role's reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReachableSubject {
    /// The item's key in `accepts`: `consumer on CHAT_local`.
    pub id: String,
    pub why: &'static str,
}

/// The JetStream requests on a stream, with their names and consequences.
const OF_STREAMS: [(&str, &str, &str); 7] = [
    (
        "CREATE",
        "create",
        "a definition says which subjects the stream takes, and may have its messages published on others",
    ),
    (
        "UPDATE",
        "update",
        "a definition says which subjects the stream takes, and may have its messages published on others",
    ),
    ("DELETE", "delete", "the stream and everything in it"),
    ("PURGE", "purge", "everything in the stream"),
    ("MSG.DELETE", "delete from", "any message of the stream"),
    ("RESTORE", "restore", "the stream gets any content"),
    ("SNAPSHOT", "copy", "everything in the stream, delivered to any subject"),
];
const CONSUMER: &str =
    "a push consumer delivers the stream's messages to any literal subject, without a check of permissions";
const TAKE: &str = "this role can pull the consumer's messages, which are meant for another process";
const DELETE: &str = "the consumer and its undelivered messages";
const ROLL_UP: &str = "a rollup header of a publish deletes all other messages of the stream";
const REPLIES: &str = "answers of streams and of JetStream go to any reply subject, with stored messages in them, their headers \
    too: a tool's, a password service's (both see that no signature is there), a stream's, JetStream's own API";
const ANSWERS: &str = "the role may answer on any reply subject of a request";
const EVERYTHING: &str = "all of JetStream's administration";

/// Returns the reach of a role beside the subjects that it may name, ordered by id.
pub fn of(role: &NatsRole, roles: &NatsRoles, streams: &[StreamDefinition]) -> Vec<ReachableSubject> {
    let may = |subject: &str| role.publish.iter().any(|allowed| overlaps(allowed, subject));
    if role.publish.iter().any(|allowed| allowed == subjects::STREAMS_ALL) {
        return vec![reach("everything".into(), EVERYTHING)];
    }
    let mut found = Vec::new();
    for definition in streams {
        let stream = &definition.stream;
        match &definition.consumer {
            Some(consumer) => {
                let of = |verb| may(&format!("{}.{consumer}", subjects::consumer_api(verb, stream)));
                found.extend(of("MSG.NEXT").then(|| reach(format!("take {stream} > {consumer}"), TAKE)));
                found.extend(of("DELETE").then(|| reach(format!("delete consumer {stream} > {consumer}"), DELETE)));
            }
            None => {
                for (verb, name, why) in OF_STREAMS {
                    found.extend(
                        may(&subjects::stream_api(verb, stream)).then(|| reach(format!("{name} {stream}"), why)),
                    );
                }
                let creates = ["CREATE", "DURABLE.CREATE"].into_iter().any(|verb| {
                    let api = subjects::consumer_api(verb, stream);
                    may(&api) || may(&format!("{api}.>"))
                });
                found.extend(creates.then(|| reach(format!("consumer on {stream}"), CONSUMER)));
                let rolls_up = definition.config.get("allow_rollup_hdrs") == Some(&Value::Bool(true));
                let rolls_up = rolls_up && taken(definition).any(&may);
                found.extend(rolls_up.then(|| reach(format!("roll up {stream}"), ROLL_UP)));
            }
        }
    }
    let is_answered = may(subjects::STREAMS_ALL) || streams.iter().flat_map(taken).any(may);
    found.extend(is_answered.then(|| reach("replies".into(), REPLIES)));
    let answering =
        roles.iter().filter(|(_, other)| other.answers && other.subscribe.iter().any(|subject| may(subject)));
    // Every role may discover micro services; they answer at its own inbox.
    let answering = answering.filter(|(_, other)| *other != role);
    found.extend(answering.map(|(name, _)| reach(format!("answers of {name}"), ANSWERS)));
    found.sort();
    found.dedup();
    found
}

/// Returns the reach of a role that is not accepted.
pub fn open(role: &NatsRole, roles: &NatsRoles, streams: &[StreamDefinition]) -> Vec<ReachableSubject> {
    of(role, roles, streams).into_iter().filter(|reach| !role.accepts.contains_key(&reach.id)).collect()
}

fn reach(id: String, why: &'static str) -> ReachableSubject {
    ReachableSubject { id, why }
}

/// Returns the subjects of a stream.
fn taken(definition: &StreamDefinition) -> impl Iterator<Item = &str> {
    definition.config.get("subjects").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nats::streams, permissions};

    /// The permissions before reach was checked.
    const BEFORE: &str = include_str!("../../tests/data/permissions.before.json");

    fn ids(found: Vec<ReachableSubject>) -> Vec<String> {
        found.into_iter().map(|reach| reach.id).collect()
    }

    #[test]
    fn no_role_reaches_more_than_it_accepts() {
        let (roles, streams) = (permissions::roles("local"), streams::definitions("local", None));
        for (name, role) in &roles {
            assert_eq!(ids(open(role, &roles, &streams)), Vec::<String>::new(), "{name}");
            let reached = ids(of(role, &roles, &streams));
            let unused: Vec<_> = role.accepts.keys().filter(|id| !reached.contains(id)).collect();
            assert_eq!(unused, Vec::<&String>::new(), "{name} accepts something that it does not reach");
        }
        for provider in ["tool_provider", "otp_provider", "retrieve_provider"] {
            assert_eq!(ids(of(&roles[provider], &roles, &streams)), Vec::<String>::new(), "{provider}");
        }
    }

    #[test]
    fn known_open_paths_are_found() {
        let roles: NatsRoles = serde_json::from_str(BEFORE).unwrap();
        let mut streams = streams::definitions("local", None);
        for definition in &mut streams {
            if definition.stream.starts_with("KV_") || definition.stream.starts_with("OBJ_") {
                definition.config.insert("allow_rollup_hdrs".into(), true.into());
            }
        }
        for (role, wanted) in [
            (
                "auditor",
                vec!["consumer on CHAT_local", "delete consumer CHAT_local > default", "take CHAT_local > default"],
            ),
            ("provider", vec!["roll up OBJ_ATTACHMENTS", "consumer on OBJ_ATTACHMENTS", "replies"]),
            ("edge", vec!["consumer on KV_WORKERS", "purge OBJ_ATTACHMENTS", "roll up KV_SETTINGS", "replies"]),
            ("worker", vec!["answers of provider", "purge KNOWLEDGE"]),
            ("eraser", vec!["roll up KV_INDEX", "replies"]),
            ("ingester", vec!["create LIVE_local", "replies"]),
        ] {
            let open = ids(open(&roles[role], &roles, &streams));
            let missed: Vec<_> = wanted.iter().filter(|id| !open.contains(&id.to_string())).collect();
            assert!(missed.is_empty(), "{role}: {missed:?} not in {open:?}");
        }
    }
}
