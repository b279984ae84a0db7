//! Streams that a deployment had and has no more: they are not made anew, empty, by a command that was to mend something.
//!
//! Applying the definitions leaves a mark in the metadata of the streams that can't be rebuilt from others, once all are there:
//! the names of all of them. A later apply finds by the mark of any that another one is lost. A deployment of before has no mark; its
//! conversations are known by the messages of other streams.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    CHAT,
    connection::soon,
    core::Client,
    marks::{MARK, is_of, is_precious},
    streams::{StreamDefinition, StreamsError},
};
use crate::subjects;

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
