//! Every call of the NATS library that waits has a time limit.

use crate::support::source::{Source, expect_none, sources};

/// Calls of the NATS library that wait: for room in its queue, which has no time limit of its own, or for an answer.
const WAITING_CALLS: &[&str] = &[
    "client.subscribe(",
    "client.queue_subscribe(",
    "client.publish(",
    "client.publish_with_reply(",
    "client.publish_with_headers(",
    "client.publish_with_reply_and_headers(",
    "client.request(",
    "client.send_request(",
    "client.flush(",
    "client.drain(",
    "client.force_reconnect(",
    ".get_consumer_from_stream(",
    "jetstream::new(self.client.clone()).",
    "batch().max_messages(",
    "message.ack_with(",
];
/// The wrappers that bound such calls in time.
const BOUNDS: &[&str] = &["soon(", "within(", "within_append(", "timeout("];
/// Rooms for measurements and demos, which serve no client.
const UNBOUNDED: &[&str] = &["src/knowledge/bench/", "src/tools/demo.rs"];

/// Returns the calls in a text that have no bound in time.
fn unbounded_calls(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in WAITING_CALLS {
        for (at, _) in text.match_indices(call) {
            let begins = text[..at].rfind([';', '{', '}']).map_or(0, |at| at + 1);
            if !BOUNDS.iter().any(|bound| text[begins..at].contains(bound)) {
                found.push(text[begins..at + call.len()].split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }
    found
}

#[test]
fn every_nats_call_has_a_time_limit() {
    let is_serving =
        |source: &&Source| !source.is_test() && !UNBOUNDED.iter().any(|path| source.path.starts_with(path));
    let mut offenders = Vec::new();
    for source in sources(&["src"]).iter().filter(is_serving) {
        let calls = unbounded_calls(&source.product());
        offenders.extend(calls.iter().map(|call| format!("{}: {call}", source.path)));
    }
    expect_none(offenders, "every call of NATS has a time limit: wrap it in `soon` or `within`");
}

#[test]
fn calls_without_a_time_limit_are_found() {
    let bare = "let a = self.client.publish(x).await;\nif let Err(e) = message\n    .ack_with(x) {}";
    assert_eq!(unbounded_calls(&bare.replace("message\n    .ack", "message.ack")).len(), 2);
    assert!(unbounded_calls("match soon(\n  self.client.publish(x, y),\n).await {}").is_empty());
}
