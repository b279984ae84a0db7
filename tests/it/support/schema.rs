//! Frames and stored events against the published schemas of `spec/`.

use std::{collections::BTreeMap, sync::OnceLock};

use async_nats::jetstream;
use jsonschema::Validator;
use serde_json::{Value, json};

use turnstream::{evidence::verify::LogVerifier, nats::jetstream::RawMessage};

use super::{encrypted, nats::NatsServer};

const FRAMES: &str = include_str!("../../../spec/frames.schema.json");
const EVENTS: &str = include_str!("../../../spec/events.schema.json");
const ASYNCAPI: &str = include_str!("../../../spec/asyncapi.json");

/// The schema of frames, and the schemas of answers' `data` by action.
struct Frames {
    frame: Validator,
    data: BTreeMap<&'static str, Validator>,
}

/// Checks a frame of a connection without the resume extension, and `data` of an answer by the answer's message.
pub fn frame(frame: &Value) -> Result<(), String> {
    static FRAMES_ONCE: OnceLock<Frames> = OnceLock::new();
    let schemas = FRAMES_ONCE.get_or_init(|| {
        let document = parse(FRAMES);
        let data = [
            ("Session created", "create_conversation_session"),
            ("Session", "get_session"),
            ("ConversationMessages", "get_conversation_messages"),
            ("Conversations", "list_conversations"),
            ("Conversation renamed", "rename_conversation"),
            ("Tool action approved", "confirm_tool_action"),
            ("Tool action rejected", "confirm_tool_action"),
            ("Session resumed", "resume_session"),
        ];
        let data = data.map(|(message, action)| (message, definition(&document, &format!("{action}.data"))));
        Frames { frame: validator(&document), data: data.into() }
    });
    valid(&schemas.frame, frame)?;
    match frame["message"].as_str().and_then(|message| schemas.data.get(message)) {
        Some(data) => valid(data, &frame["data"]),
        None => Ok(()),
    }
}

/// Checks headers and payloads of everything in the log, and that events of a conversation are a chain.
pub async fn log(nats: &NatsServer) {
    let (events, asyncapi) = (parse(EVENTS), parse(ASYNCAPI));
    let mut headers_schema = asyncapi["components"]["schemas"]["eventHeaders"].clone();
    headers_schema["components"] = asyncapi["components"].clone();
    let headers_schema = validator(&headers_schema);
    let mut last_of: BTreeMap<String, u64> = BTreeMap::new();
    let mut verifier = LogVerifier::default();

    let client = nats.client().await;
    let (log, stream) =
        (encrypted::log(client.clone()), jetstream::new(client).get_stream("CHAT_local").await.unwrap());
    let state = &stream.cached_info().state;
    assert!(state.messages > 0, "the log holds something");
    for seq in state.first_sequence..=state.last_sequence {
        let message = stream.direct_get(seq).await.unwrap();
        let clear = encrypted::open(&log, &message.subject, message.payload.clone()).await;
        let payload: Value = serde_json::from_slice(&clear).unwrap();
        if message.subject.starts_with("session.") {
            expect(&definition(&events, "session"), &payload, seq);
            continue;
        }
        let header = |name: &str| message.headers.get(name).map_or("", |value| value.as_str());
        let headers: BTreeMap<String, &str> =
            message.headers.iter().map(|(name, _)| (name.to_string(), header(name.as_ref()))).collect();
        expect(&headers_schema, &json!(headers), seq);
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        let (subject, payload_bytes) = (message.subject.to_string(), message.payload.clone());
        verifier.take(&RawMessage { subject, seq, stored_at: chrono::Utc::now(), headers, payload: payload_bytes });
        assert_eq!(header("Nats-Msg-Id"), header("ce-id"), "event {seq}");
        let name = header("ce-type").strip_prefix("turnstream.").unwrap();
        expect(&definition(&events, name), &payload, seq);
        let tokens: Vec<&str> = message.subject.split('.').collect();
        assert_eq!((tokens[3], tokens[4..6].join(".").as_str()), (header("ce-subject"), name), "event {seq}");
        let last = last_of.insert(header("ce-subject").to_owned(), seq).unwrap_or(0);
        assert_eq!(header("ce-prev"), last.to_string(), "event {seq}");
    }
    let report = verifier.report;
    assert!(report.broken == 0 && report.without_digest == 0, "{report}");
}

fn expect(validator: &Validator, value: &Value, seq: u64) {
    if let Err(problem) = valid(validator, value) {
        panic!("event {seq}: {problem}, in {value:#}");
    }
}

fn valid(validator: &Validator, value: &Value) -> Result<(), String> {
    validator.validate(value).map_err(|error| format!("by the schema, {}: {error}", error.instance_path()))
}

fn parse(document: &str) -> Value {
    serde_json::from_str(document).unwrap()
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options().should_validate_formats(true).build(schema).expect("the schema is one")
}

/// Returns the validator of one definition of a document.
fn definition(document: &Value, name: &str) -> Validator {
    let mut schema = document.clone();
    schema.as_object_mut().unwrap().remove("oneOf");
    schema["$ref"] = json!(format!("#/$defs/{name}"));
    validator(&schema)
}
