//! Stream, consumer and bucket definitions: applying them, and detecting drift.
//!
//! The definitions are the JSON files under `streams/`, in the `nats` CLI's form, built into the program. File
//! streams are created only by `streams apply` and `dev`; edges and workers compare at start and refuse differences that
//! could lose or hide events. They recreate memory streams that a server has forgotten.

use async_nats::Client;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use super::CHAT;
use super::{backoff::Backoff, clock::Clock, connection::soon, gauges, jetstream::ApiError, marks};
use crate::{domain::event::kind, limits, subjects};

/// The definition of a stream or consumer in one region.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamDefinition {
    pub stream: String,
    /// The consumer's name, if this defines a consumer.
    pub consumer: Option<String>,
    pub config: Map<String, Value>,
    /// The number of replicas was asked for; otherwise an existing stream keeps its own.
    pub names_replicas: bool,
}

/// A difference between a definition and the server.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamDrift {
    Missing,
    Field { name: String, defined: Value, actual: Value },
}

/// The reason why the server could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    #[error("{what}: the server does not answer: {cause}")]
    Unavailable { what: String, cause: String },
    #[error("{what}: {description}")]
    Refused { what: String, description: String },
    #[error("the streams differ from their definitions: {0}; run `turnstream streams apply`")]
    Drift(String),
}

const STREAMS: [&str; 21] = [
    include_str!("../../streams/CHAT.json"),
    include_str!("../../streams/AUDIT.json"),
    include_str!("../../streams/LIVE.json"),
    include_str!("../../streams/SCHED.json"),
    include_str!("../../streams/DEAD.json"),
    include_str!("../../streams/KNOWLEDGE.json"),
    include_str!("../../streams/KNOWLEDGE_RUNS.json"),
    include_str!("../../streams/KV_AGENTS.json"),
    include_str!("../../streams/KV_CONVERSATIONS.json"),
    include_str!("../../streams/KV_INDEX.json"),
    include_str!("../../streams/KV_KEYS.json"),
    include_str!("../../streams/KV_WORKERS.json"),
    include_str!("../../streams/OBJ_ATTACHMENTS.json"),
    include_str!("../../streams/KV_EDGES.json"),
    include_str!("../../streams/KV_SETTINGS.json"),
    include_str!("../../streams/KV_ONCE.json"),
    include_str!("../../streams/KV_TURNS.json"),
    include_str!("../../streams/KV_VISITORS.json"),
    include_str!("../../streams/KV_RESTORE.json"),
    include_str!("../../streams/COUNTERS.json"),
    include_str!("../../streams/INGEST.json"),
];
const CONSUMERS: [(&str, &str); 4] = [
    ("CHAT_local", include_str!("../../streams/CHAT.worker.json")),
    ("CHAT_local", include_str!("../../streams/CHAT.index.json")),
    ("INGEST", include_str!("../../streams/INGEST.serve.json")),
    ("SCHED_local", include_str!("../../streams/SCHED.due.json")),
];

/// Number of clock measurements: a slow answer is imprecise, so the fastest counts.
const CLOCK_QUESTIONS: usize = 3;

/// Subject lists to which a newer version may have added: this version accepts the additions.
const GROWING: [&str; 2] = ["subjects", "filter_subjects"];

/// Start position of a consumer: chosen at its creation, and never changed afterwards.
const BEGINNING: [&str; 2] = ["deliver_policy", "opt_start_time"];

/// Fields that an operator may change: they affect cost or durability, not correctness.
const OPERATORS_CHOICE: [&str; 9] = [
    "description",
    // Only SCHED needs rollups, which its schedules force; streams of older versions allow them.
    "allow_rollup_hdrs",
    "num_replicas",
    "max_bytes",
    "max_msg_size",
    "duplicate_window",
    "max_waiting",
    "max_ack_pending",
    "max_consumers",
];

/// Fields of a stream that an operator chose: applying the definitions leaves them as they are.
const KEPT: [&str; 7] =
    ["description", "num_replicas", "max_bytes", "max_msg_size", "duplicate_window", "max_waiting", "max_consumers"];

/// Returns the definitions of a region; `replicas` replaces the replica count of file streams.
pub fn definitions(region: &str, replicas: Option<u32>) -> Vec<StreamDefinition> {
    let parse = |text: &str| -> Map<String, Value> {
        let text = text.replace("_local", &format!("_{region}")).replace(".local.", &format!(".{region}."));
        serde_json::from_str(&text).expect("the files under streams/ hold JSON objects; a test reads them all")
    };
    let name = |config: &Map<String, Value>| config["name"].as_str().unwrap_or_default().to_string();
    let streams = STREAMS.map(|text| {
        let mut config = parse(text);
        let replicas = replicas.filter(|_| config["storage"] == "file");
        if let Some(replicas) = replicas {
            config.insert("num_replicas".into(), replicas.into());
        }
        StreamDefinition { stream: name(&config), consumer: None, config, names_replicas: replicas.is_some() }
    });
    let consumers = CONSUMERS.map(|(stream, text)| {
        let config = parse(text);
        StreamDefinition {
            stream: stream.replace("_local", &format!("_{region}")),
            consumer: Some(name(&config)),
            config,
            names_replicas: false,
        }
    });
    streams.into_iter().chain(consumers).collect()
}

/// Returns whether a region has a worker pool of this name.
pub async fn has_pool(client: &Client, region: &str, pool: &str) -> Result<bool, StreamsError> {
    let stream = subjects::stream_name(CHAT, region);
    let title = format!("{stream} > {pool}");
    Ok(ask(client, &title, subjects::consumer_info(&stream, pool), "").await?.is_some())
}

/// Measures the clock offset of the conversations' server, by the fastest of some answers.
pub async fn measure(client: &Client, region: &str, clock: &Clock) -> Result<(), StreamsError> {
    #[derive(Deserialize)]
    struct Answer {
        ts: DateTime<Utc>,
    }
    let title = subjects::stream_name(CHAT, region);
    let unavailable = |cause: String| StreamsError::Unavailable { what: title.clone(), cause };
    let mut fastest = None;
    for _ in 0..CLOCK_QUESTIONS {
        let asked = Utc::now();
        let reply = soon(client.request(subjects::stream_api("INFO", &title), "".into())).await;
        let arrived = Utc::now();
        let answer: Answer =
            serde_json::from_slice(&reply.map_err(unavailable)?.payload).map_err(|e| unavailable(e.to_string()))?;
        if fastest.is_none_or(|(asked_then, _, arrived_then)| arrived - asked < arrived_then - asked_then) {
            fastest = Some((asked, answer.ts, arrived));
        }
    }
    if let Some((asked, server, arrived)) = fastest {
        clock.take(asked, server, arrived);
    }
    Ok(())
}

impl StreamDefinition {
    /// Returns the definition's display name: `CHAT_local` or `CHAT_local > default`.
    pub fn title(&self) -> String {
        match &self.consumer {
            Some(consumer) => format!("{} > {consumer}", self.stream),
            None => self.stream.clone(),
        }
    }

    /// Returns the differences between this definition and the server.
    pub async fn differences(&self, client: &Client) -> Result<Vec<StreamDrift>, StreamsError> {
        Ok(self.compare(self.actual(client).await?.as_ref()))
    }

    fn compare(&self, actual: Option<&Map<String, Value>>) -> Vec<StreamDrift> {
        let Some(actual) = actual else { return vec![StreamDrift::Missing] };
        // How many copies there are is the operator's choice, unless a command names a number.
        let is_chosen =
            |drift: &StreamDrift| matches!(drift, StreamDrift::Field { name, .. } if name == "num_replicas");
        let found = differences(&self.config, actual).into_iter();
        found.filter(|drift| self.names_replicas || !is_chosen(drift)).collect()
    }

    /// Returns the server's configuration, if the stream or consumer exists.
    async fn actual(&self, client: &Client) -> Result<Option<Map<String, Value>>, StreamsError> {
        let subject = match &self.consumer {
            Some(consumer) => subjects::consumer_info(&self.stream, consumer),
            None => subjects::stream_api("INFO", &self.stream),
        };
        ask(client, &self.title(), subject, "").await
    }

    /// Creates the stream or consumer, or updates its differing fields; returns the differences found.
    ///
    /// A new consumer of work items begins at `since`: older turns are over, and inspecting each of them would take hours
    /// on a large stream.
    pub async fn apply(&self, client: &Client, since: DateTime<Utc>) -> Result<Vec<StreamDrift>, StreamsError> {
        let actual = self.actual(client).await?;
        let differences = self.changes(actual.as_ref());
        if differences.is_empty() {
            return Ok(differences);
        }
        let mut config = self.config.clone();
        match &actual {
            Some(actual) => {
                let is_kept = |name: &str| BEGINNING.contains(&name) || self.keeps(name);
                // Fields that are defined nowhere are the operator's: placement, tags, limits.
                let kept = actual.iter().filter(|(name, _)| is_kept(name) || !self.config.contains_key(*name));
                config.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
                // Additions of a newer version or an operator are kept.
                for name in GROWING {
                    let (Some(Value::Array(defined)), Some(Value::Array(found))) =
                        (config.get_mut(name), actual.get(name))
                    else {
                        continue;
                    };
                    let more: Vec<Value> = found.iter().filter(|subject| !defined.contains(subject)).cloned().collect();
                    defined.extend(more);
                }
            }
            None if self.is_of_work_items() => {
                config.insert("deliver_policy".into(), "by_start_time".into());
                config.insert("opt_start_time".into(), since.to_rfc3339().into());
            }
            None => {}
        }
        marks::strip(&mut config);
        let config = Value::Object(config);
        let (subject, payload) = match &self.consumer {
            Some(consumer) => {
                let request = serde_json::json!({ "stream_name": self.stream, "config": config, "action": "" });
                (subjects::consumer_create(&self.stream, consumer), request)
            }
            None if differences.contains(&StreamDrift::Missing) => {
                (subjects::stream_api("CREATE", &self.stream), config)
            }
            None => (subjects::stream_api("UPDATE", &self.stream), config),
        };
        ask(client, &self.title(), subject, &payload.to_string()).await?;
        Ok(differences)
    }

    /// Returns the changes that [`StreamDefinition::apply`] would make: an operator's choice is no difference.
    pub async fn planned(&self, client: &Client) -> Result<Vec<StreamDrift>, StreamsError> {
        Ok(self.changes(self.actual(client).await?.as_ref()))
    }

    fn changes(&self, actual: Option<&Map<String, Value>>) -> Vec<StreamDrift> {
        let is_kept = |drift: &StreamDrift| matches!(drift, StreamDrift::Field { name, .. } if self.keeps(name));
        self.compare(actual).into_iter().filter(|drift| !is_kept(drift)).collect()
    }

    /// Returns whether a field of an existing stream stays as it is. Replicas that a command names are not kept.
    fn keeps(&self, field: &str) -> bool {
        self.consumer.is_none() && KEPT.contains(&field) && !(self.names_replicas && field == "num_replicas")
    }

    /// Marks a stream that can't be rebuilt, once all of them are there.
    pub async fn mark(&self, client: &Client) -> Result<(), StreamsError> {
        let is_precious = self.consumer.is_none() && marks::is_precious(&self.stream);
        let actual = if is_precious { self.actual(client).await? } else { None };
        let Some(config) = actual.and_then(marks::marked) else { return Ok(()) };
        let subject = subjects::stream_api("UPDATE", &self.stream);
        ask(client, &self.title(), subject, &Value::Object(config).to_string()).await.map(drop)
    }

    fn is_in_memory(&self) -> bool {
        self.config.get("storage").is_some_and(|kept| kept == "memory")
    }

    /// Returns whether this is a worker pool's consumer: other consumers begin with the first event.
    fn is_of_work_items(&self) -> bool {
        let resumed = format!(".{}.", kind::TURN_RESUMED);
        let filters = self.config.get("filter_subjects").and_then(Value::as_array);
        filters.into_iter().flatten().any(|filter| filter.as_str().is_some_and(|filter| filter.contains(&resumed)))
    }
}

/// Like [`check`], for a process that neither uses memory streams nor may create them.
pub async fn check_kept(client: &Client, region: &str) -> Result<(), StreamsError> {
    for definition in definitions(region, None).iter().filter(|definition| !definition.is_in_memory()) {
        refuse_dangerous(definition, &definition.differences(client).await?)?;
    }
    Ok(())
}

/// Refuses to continue if a definition is missing or differs in a way that could lose or hide events.
///
/// If all file streams exist, missing memory streams are created again: a single server forgets those, definition and all,
/// when it restarts. Nothing is lost that the restart had not lost already. In a cluster a memory stream is away together
/// with its one server: the rest works without it, so that is no reason to refuse.
pub async fn check(client: &Client, region: &str) -> Result<(), StreamsError> {
    check_kept(client, region).await?;
    for definition in definitions(region, None).iter().filter(|definition| definition.is_in_memory()) {
        let mut differences = match definition.differences(client).await {
            Ok(differences) => differences,
            Err(error) => {
                tracing::warn!(%error, "a memory stream can't be checked; going on without it");
                continue;
            }
        };
        if differences.contains(&StreamDrift::Missing) {
            tracing::warn!(stream = definition.title(), "a memory stream is missing; creating it again");
            definition.apply(client, Utc::now()).await?;
            differences = definition.differences(client).await?;
        }
        refuse_dangerous(definition, &differences)?;
    }
    Ok(())
}

fn refuse_dangerous(definition: &StreamDefinition, differences: &[StreamDrift]) -> Result<(), StreamsError> {
    for difference in differences {
        match difference {
            StreamDrift::Field { name, .. } if OPERATORS_CHOICE.contains(&name.as_str()) => {}
            StreamDrift::Field { name, defined, actual } => {
                let drift = format!("{}: {name} is {actual}, not {defined}", definition.title());
                return Err(StreamsError::Drift(drift));
            }
            StreamDrift::Missing => return Err(StreamsError::Drift(format!("{} is missing", definition.title()))),
        }
    }
    Ok(())
}

/// Returns whether a list of subjects holds all defined ones and more.
fn is_superset(name: &str, found: &Value, defined: &Value) -> bool {
    let (Some(found), Some(defined)) = (found.as_array(), defined.as_array()) else { return false };
    GROWING.contains(&name) && defined.iter().all(|subject| found.contains(subject))
}

fn differences(defined: &Map<String, Value>, actual: &Map<String, Value>) -> Vec<StreamDrift> {
    // The server omits fields that are false, 0 or empty.
    let unset =
        |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == &Value::from(0) || value == "";
    let differ = |(name, value): (&String, &Value)| {
        let found = actual.get(name).cloned().unwrap_or(Value::Null);
        let same = found == *value || (unset(&found) && unset(value)) || is_superset(name, &found, value);
        (!same).then(|| StreamDrift::Field { name: name.clone(), defined: value.clone(), actual: found })
    };
    defined.iter().filter(|(name, _)| !BEGINNING.contains(&name.as_str())).filter_map(differ).collect()
}

/// Calls the JetStream API. Returns the configuration; `None` = the stream or consumer does not exist.
async fn ask(
    client: &Client,
    what: &str,
    subject: String,
    payload: &str,
) -> Result<Option<Map<String, Value>>, StreamsError> {
    #[derive(Deserialize)]
    struct Answer {
        config: Option<Map<String, Value>>,
        error: Option<ApiError>,
    }
    let unavailable = |cause: String| StreamsError::Unavailable { what: what.to_string(), cause };
    let mut backoff = Backoff::new(limits::READ_DEADLINE_MS);
    loop {
        let reply = match soon(client.request(subject.clone(), payload.to_string().into())).await {
            Ok(reply) => reply,
            Err(_) if backoff.pause().await => continue,
            Err(error) => return Err(unavailable(error)),
        };
        gauges::take(&reply.payload);
        let answer: Answer = serde_json::from_slice(&reply.payload).map_err(|e| unavailable(e.to_string()))?;
        return match answer.error {
            None => Ok(Some(answer.config.unwrap_or_default())),
            Some(error) if error.code == 404 => Ok(None),
            // A cluster that has just started or lost its leader.
            Some(error) if error.code == 503 && backoff.pause().await => continue,
            Some(error) => Err(StreamsError::Refused { what: what.to_string(), description: error.description }),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_belongs_to_its_region() {
        for definition in definitions("eu", Some(3)) {
            let text = Value::Object(definition.config.clone()).to_string();
            assert!(!text.contains("local"), "{}: {text}", definition.title());
            if definition.consumer.is_none() && definition.config["storage"] == "file" {
                assert_eq!(definition.config["num_replicas"], 3, "{}", definition.title());
            }
        }
    }

    #[test]
    fn additional_subjects_are_no_difference() {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        for name in GROWING {
            let defined = map(serde_json::json!({ name: ["a.*", "b.>"] }));
            let found = |subjects: &[&str]| differences(&defined, &map(serde_json::json!({ name: subjects })));
            assert_eq!([found(&["a.*", "b.>"]), found(&["c", "b.>", "a.*"])], [vec![], vec![]]);
            assert_eq!([found(&["a.*"]).len(), found(&[]).len(), found(&["a.>", "b.>"]).len()], [1, 1, 1]);
        }
        let ordered = map(serde_json::json!({ "sources": [1] }));
        assert_eq!(differences(&ordered, &map(serde_json::json!({ "sources": [1, 2] }))).len(), 1);
    }

    #[test]
    fn the_number_of_copies_is_the_operators_unless_a_command_names_one() {
        let three = definitions("local", Some(3)).into_iter().find(|stream| stream.stream == "CHAT_local").unwrap();
        let plain = definitions("local", None).into_iter().find(|stream| stream.stream == "CHAT_local").unwrap();
        assert_eq!(plain.compare(Some(&three.config)), vec![]);
        assert_eq!(three.compare(Some(&plain.config)).len(), 1);
    }

    #[test]
    fn an_omitted_field_equals_an_unset_one() {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        let defined = map(serde_json::json!({ "deny_delete": true, "max_age": 0, "no_ack": false }));
        assert_eq!(differences(&defined, &map(serde_json::json!({ "deny_delete": true }))), vec![]);
        assert_eq!(differences(&defined, &map(serde_json::json!({ "max_age": 5 }))).len(), 2);
    }
}
