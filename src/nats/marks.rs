//! Streams that can't be rebuilt from others, and the mark that says that a deployment has them.

use serde_json::{Map, Value, json};

use super::CHAT;

/// Streams that can't be rebuilt from others: conversations, evidence, keys, configurations, settings.
const PRECIOUS: [&str; 5] = [CHAT, "AUDIT", "KV_KEYS", "KV_AGENTS", "KV_SETTINGS"];
/// The entry of a stream's metadata.
pub(super) const MARK: &str = "turnstream.beside";
const METADATA: &str = "metadata";

/// Returns the name under which an operator calls a stream: without region, and without the prefix of a bucket.
pub fn short_name(stream: &str) -> &str {
    let known = PRECIOUS.iter().find(|base| is_of(stream, base));
    known.map_or(stream, |base| base.strip_prefix("KV_").unwrap_or(base))
}

/// Returns whether a stream is one that can't be rebuilt.
pub(super) fn is_precious(stream: &str) -> bool {
    PRECIOUS.iter().any(|base| is_of(stream, base))
}

pub(super) fn is_of(stream: &str, base: &str) -> bool {
    stream.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('_') && !base.starts_with("KV_"))
}

/// Takes the server's own entries out of a stream's metadata, which only the server may write.
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
