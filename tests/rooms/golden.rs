//! A recorded conversation, replayed to every prefix, gives the same bytes on every machine.
//!
//! `tests/data/replay/log.ndjson` is the log of a real conversation as the server stored it: reasoning, a preamble, tools, approvals,
//! a form, a password, failures, a cancel, a hand-over. Beside it are the state and the frames at its end, and their digests for every
//! prefix. Only a deliberate change of the fold or of a frame's form changes them: then `TURNSTREAM_GOLDEN=write cargo test --test
//! rooms golden` writes them anew. The log itself never changes, since an earlier version wrote it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use turnstream::{
    domain::{Conversation, RecordedEvent},
    evidence::verify::LogVerifier,
    history::formats::canonical,
    nats::jetstream::RawMessage,
    playback::frames::{FrameReconstructor, MomentKind},
    wire::stored,
};

/// A line of the log; the payload is text, since the digests are over its bytes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    seq: u64,
    stored_at: DateTime<Utc>,
    subject: String,
    headers: BTreeMap<String, String>,
    payload: String,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/replay").join(name)
}

fn messages() -> Vec<RawMessage> {
    let text = fs::read_to_string(path("log.ndjson")).unwrap();
    let message = |line: &str| {
        let Line { seq, stored_at, subject, headers, payload } = serde_json::from_str(line).unwrap();
        RawMessage { subject, seq, stored_at, headers: headers.into_iter().collect(), payload: payload.into() }
    };
    text.lines().map(message).collect()
}

fn recorded(message: &RawMessage) -> RecordedEvent {
    let header = |name: &str| message.headers.get(name).map(String::as_str);
    let (envelope, event) = stored::decode(header, &message.payload).unwrap();
    let digest = stored::digest(&message.subject, header, &message.payload);
    RecordedEvent { seq: message.seq, time: envelope.time, stored_at: message.stored_at, digest, event }
}

/// Returns the state and the frames of the events, as a replay writes them.
fn replayed(events: &[RecordedEvent]) -> (String, Vec<u8>) {
    let (mut state, mut watcher, mut moments) = (Conversation::default(), FrameReconstructor::new(None), Vec::new());
    for event in events {
        state.evolve(event);
        moments.extend(watcher.take(event));
    }
    moments.extend(watcher.rest());
    let frames = moments.into_iter().filter_map(|moment| match moment.what {
        MomentKind::Frame(frame) => Some([&frame[..], b"\n"].concat()),
        MomentKind::Asked { .. } | MomentKind::Decided(_) => None,
    });
    (canonical(&state).unwrap() + "\n", frames.flatten().collect())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn assert_golden(name: &str, bytes: &[u8]) {
    if std::env::var("TURNSTREAM_GOLDEN").as_deref() == Ok("write") {
        fs::write(path(name), bytes).unwrap();
    }
    let golden = Bytes::from(fs::read(path(name)).unwrap());
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    let (is, was) = (lines(bytes), lines(&golden));
    let differs = is.iter().zip(&was).find(|(is, was)| is != was);
    assert!(golden == bytes, "{name}: {} lines, were {}; the first that differs: {differs:#?}", is.len(), was.len());
}

#[test]
fn every_prefix_of_a_recorded_conversation_is_replayed_to_the_same_bytes() {
    let messages = messages();
    let events: Vec<RecordedEvent> = messages.iter().map(recorded).collect();
    let mut prefixes = String::from("seq state frames\n");
    for end in 1..=events.len() {
        let (state, frames) = replayed(&events[..end]);
        let seq = events[end - 1].seq;
        prefixes += &format!("{seq} {} {}\n", sha256(state.as_bytes()), sha256(&frames));
    }
    let (state, frames) = replayed(&events);
    assert_golden("state.json", state.as_bytes());
    assert_golden("frames.ndjson", &frames);
    assert_golden("prefixes.txt", prefixes.as_bytes());
}

#[test]
fn the_recorded_log_is_reproduced_exactly() {
    let mut verifier = LogVerifier::default();
    messages().iter().for_each(|message| verifier.take(message));
    assert_eq!((verifier.report.broken, verifier.report.without_digest), (0, 0), "{}", verifier.report);
    assert!(verifier.report.events > 50);
}

#[test]
fn frames_cost_the_log_few_bytes() {
    let events: Vec<RecordedEvent> = messages().iter().map(recorded).collect();
    let bytes: usize =
        events.iter().filter_map(|recorded| recorded.event.shown()).map(|shown| shown.frames.len()).sum();
    let frames = String::from_utf8(replayed(&events).1).unwrap();
    let of_model = ["stream_token", "stream_reasoning", "stream_preamble"].map(|kind| format!(r#""type":"{kind}""#));
    let shown = frames.lines().filter(|frame| of_model.iter().any(|kind| frame.contains(kind))).count();
    println!("{bytes} bytes for {shown} frames");
    assert!(shown > 50 && bytes <= 5 * shown, "{bytes} bytes for {shown} frames");
}
