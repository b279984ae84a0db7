//! Streams that a deployment had and has no more: they are not made anew, empty, by a command that was to mend something.
//!
//! Applying the definitions leaves a mark in the metadata of the streams that can't be rebuilt from others, once all are there:
//! the names of all of them. A later apply finds by the mark of any that another one is lost. A deployment of before has no mark; its
//! conversations are known by the messages of other streams.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    connection::soon,
    core::Client,
    streams::{CHAT, StreamDefinition, StreamsError},
};
use crate::subjects;

/// Streams whose content no other stream has: conversations, evidence, keys, configurations, settings.
const PRECIOUS: [&str; 5] = [CHAT, "AUDIT", "KV_KEYS", "KV_AGENTS", "KV_SETTINGS"];
/// The entry of a stream's metadata.
const MARK: &str = "turnstream.beside";
const METADATA: &str = "metadata";

/// A stream as it is on the server.
#[derive(Deserialize)]
struct Found {
    config: Config,
    state: State,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    metadata: Map<String, Value>,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    messages: u64,
}

/// Returns the name under which an operator calls a stream: without region, and without the prefix of a bucket.
pub fn short_name(stream: &str) -> &str {
    let known = PRECIOUS.iter().find(|base| is_of(stream, base));
    known.map_or(stream, |base| base.strip_prefix("KV_").unwrap_or(base))
}

/// Returns whether a stream is one that can't be rebuilt.
pub(super) fn is_precious(stream: &str) -> bool {
    PRECIOUS.iter().any(|base| is_of(stream, base))
}

fn is_of(stream: &str, base: &str) -> bool {
    stream.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('_') && !base.starts_with("KV_"))
}

/// Takes the server's own entries out of a stream's metadata, which it writes and takes from nobody.
pub(super) fn strip(config: &mut Map<String, Value>) {
    if let Some(Value::Object(metadata)) = config.get_mut(METADATA) {
        metadata.retain(|name, _| !name.starts_with("_nats."));
    }
}

/// Returns the configuration with the mark; `None` = it has the mark.
pub(super) fn marked(mut config: Map<String, Value>) -> Option<Map<String, Value>> {
    let mark = json!(PRECIOUS.join(","));
    if config.get(METADATA).and_then(|metadata| metadata.get(MARK)) == Some(&mark) {
        return None;
    }
    strip(&mut config);
    match config.get_mut(METADATA) {
        Some(Value::Object(metadata)) => drop(metadata.insert(MARK.into(), mark)),
        _ => drop(config.insert(METADATA.into(), json!({ MARK: mark }))),
    }
    Some(config)
}

/// Returns the precious streams that a region's deployment had and has no more.
pub async fn lost_streams(
    client: &Client,
    region: &str,
    definitions: &[StreamDefinition],
) -> Result<Vec<String>, StreamsError> {
    let (mut missing, mut named, mut has_content) = (Vec::new(), Vec::new(), false);
    for definition in definitions.iter().filter(|definition| definition.consumer.is_none()) {
        match found(client, &definition.stream).await? {
            None if is_precious(&definition.stream) => missing.push(definition.stream.clone()),
            None => {}
            Some(found) => {
                has_content |= found.state.messages > 0;
                let mark = found.config.metadata.get(MARK).and_then(Value::as_str).unwrap_or_default();
                named.extend(mark.split(',').map(str::to_string));
            }
        }
    }
    let is_known = |stream: &String| {
        let is_named = named.iter().any(|base| is_of(stream, base));
        is_named || (has_content && *stream == subjects::stream_name(CHAT, region))
    };
    missing.retain(is_known);
    Ok(missing)
}

async fn found(client: &Client, stream: &str) -> Result<Option<Found>, StreamsError> {
    let unavailable = |cause: String| StreamsError::Unavailable { what: stream.to_string(), cause };
    let reply = soon(client.request(subjects::stream_api("INFO", stream), "".into())).await.map_err(unavailable)?;
    // An error answer lacks these fields: the stream does not exist.
    Ok(serde_json::from_slice(&reply.payload).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precious_stream_has_a_short_name() {
        for (stream, precious, name) in [
            ("CHAT_eu", true, "CHAT"),
            ("KV_KEYS", true, "KEYS"),
            ("AUDIT_eu_west", true, "AUDIT"),
            ("KV_KEYSTONE", false, "KV_KEYSTONE"),
            ("CHATTER_eu", false, "CHATTER_eu"),
            ("LIVE_eu", false, "LIVE_eu"),
        ] {
            assert_eq!((is_precious(stream), short_name(stream)), (precious, name), "{stream}");
        }
    }
}
