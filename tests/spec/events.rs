//! Golden samples of stored events: every sample ever written still decodes, and is encoded as before.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use turnstream::{
    domain::{
        Conversation, Digest, Event, RecordedEvent,
        event::{TurnRequested, TurnStarted},
    },
    ids,
    subjects::ConversationKey,
    wire::stored::{self, DecodeError, EventEnvelope, SessionRecord},
};

use crate::{assert_valid, definition, json_file, json_files};

const SAMPLES: &str = "spec/samples/events";

#[derive(Clone)]
pub struct Sample {
    pub subject: String,
    pub headers: BTreeMap<String, String>,
    pub payload: Value,
}

impl Sample {
    pub fn of(value: &Value) -> Self {
        let headers = value["headers"].as_object().unwrap().iter();
        Self {
            subject: value["subject"].as_str().unwrap().to_owned(),
            headers: headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
            payload: value["payload"].clone(),
        }
    }

    pub fn decode(&self) -> Result<(EventEnvelope, Event), DecodeError> {
        let header = |name: &str| self.headers.get(name).map(String::as_str);
        stored::decode(header, self.payload.to_string().as_bytes())
    }
}

/// Returns the sample of an event.
pub fn sample(kind: &str) -> Sample {
    Sample::of(&json_file(&format!("{SAMPLES}/{kind}.json")))
}

fn samples() -> BTreeMap<String, Sample> {
    json_files(SAMPLES).iter().map(|(name, value)| (name.clone(), Sample::of(value))).collect()
}

/// Returns the stored names, read from the source.
pub fn kinds() -> Vec<&'static str> {
    let source = include_str!("../../src/domain/event.rs");
    let (_, names) = source.split_once("pub mod kind {").unwrap();
    let (names, _) = names.split_once("\n}").unwrap();
    names.lines().filter_map(|line| line.split('"').nth(1)).collect()
}

#[test]
fn every_event_has_a_schema_and_a_sample() {
    let (schema, samples) = (json_file("spec/events.schema.json"), samples());
    assert!(!kinds().is_empty());
    for kind in kinds() {
        assert!(schema["$defs"].get(kind).is_some(), "{kind} has no schema");
        assert!(samples.values().any(|s| s.headers["ce-type"] == format!("turnstream.{kind}")), "{kind} has no sample");
    }
}

#[test]
fn every_sample_round_trips() {
    let schema = json_file("spec/events.schema.json");
    for (name, sample) in samples() {
        let (envelope, event) = sample.decode().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_valid(&definition(&schema, event.kind()), &sample.payload, &name);
        let (headers, payload) = stored::encode(&envelope, &event);
        let headers: BTreeMap<_, _> = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(headers, sample.headers, "{name}");
        assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), sample.payload, "{name}");

        let key = ConversationKey::parse_event(&sample.subject).unwrap();
        assert_eq!(key.conversation, envelope.conversation, "{name}");
        let subject = match event.pool() {
            Some(pool) => key.work_item(event.kind(), pool),
            None => key.event(event.kind()),
        };
        assert_eq!(subject, sample.subject, "{name}");
    }
}

#[test]
fn a_reader_ignores_unknown_fields() {
    let schema = json_file("spec/events.schema.json");
    for (name, mut sample) in samples() {
        let (_, known) = sample.decode().unwrap();
        add_a_field_everywhere(&mut sample.payload);
        assert_valid(&definition(&schema, known.kind()), &sample.payload, &name);
        match (sample.decode().unwrap_or_else(|error| panic!("{name}: {error}")).1, known) {
            // The values of a form are the client's own, too: the added field is part of them.
            (Event::TurnResumed(event), Event::TurnResumed(known)) => assert_eq!(event.park, known.park),
            (Event::TurnParked(event), Event::TurnParked(known)) => assert_eq!(event.prompt, known.prompt),
            (Event::TurnToolReturned(event), Event::TurnToolReturned(known)) => assert_eq!(event.otp, known.otp),
            // Metadata is the client's own: the added field is part of it.
            (Event::SessionOpened(event), Event::SessionOpened(known)) => assert_eq!(event.session, known.session),
            (event, known) => assert_eq!(event, known, "{name}"),
        }
    }
}

fn add_a_field_everywhere(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(add_a_field_everywhere);
            map.insert("ofTheFuture".into(), json!({ "a": [1] }));
        }
        Value::Array(items) => items.iter_mut().for_each(add_a_field_everywhere),
        _ => {}
    }
}

#[test]
fn the_schema_requires_exactly_the_fields_of_the_reader() {
    let schema = json_file("spec/events.schema.json");
    for (name, sample) in samples() {
        let validator = definition(&schema, sample.decode().unwrap().1.kind());
        for place in fields(&sample.payload, String::new()) {
            let (parent, field) = place.rsplit_once('/').unwrap();
            let mut without = sample.clone();
            without.payload.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
            let read = without.decode();
            assert_eq!(validator.is_valid(&without.payload), read.is_ok(), "{name} without `{place}`: {read:?}");
        }
    }
}

/// Returns the JSON pointers of all fields in a value.
fn fields(value: &Value, place: String) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let each = map.iter().map(|(name, value)| (format!("{place}/{name}"), value));
            each.flat_map(|(place, value)| [vec![place.clone()], fields(value, place)].concat()).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(n, value)| fields(value, format!("{place}/{n}"))).collect()
        }
        _ => vec![],
    }
}

#[test]
fn a_reader_refuses_newer_and_malformed_events() {
    let changed = |name: &str, value: Option<&str>| {
        let mut sample = sample("turn.started");
        match value {
            Some(value) => sample.headers.insert(name.into(), value.into()),
            None => sample.headers.remove(name),
        };
        sample.decode().unwrap_err()
    };
    assert!(matches!(changed("ce-schemaversion", Some("2")), DecodeError::Version(_)));
    assert!(matches!(changed("ce-type", Some("turnstream.turn.imagined")), DecodeError::Type(_)));
    assert!(matches!(changed("ce-type", Some("other.turn.started")), DecodeError::Type(_)));
    for name in ["ce-id", "ce-type", "ce-source", "ce-time", "ce-subject", "ce-schemaversion", "ce-prev"] {
        assert!(matches!(changed(name, None), DecodeError::Header(_)), "{name}");
    }
}

#[test]
fn a_requested_turn_has_the_id_of_its_request() {
    let (envelope, Event::TurnRequested(requested)) = sample("turn.requested").decode().unwrap() else { panic!() };
    // The oldest sample is from a version that hashed the id without the message.
    let earlier = ids::turn_id_without_message(envelope.conversation, requested.session, &requested.request_id);
    assert_eq!(requested.turn, earlier);
    assert_eq!(envelope.id, requested.turn.simple().to_string());
    let (envelope, Event::TurnRequested(requested)) = sample("turn.requested.with_its_message").decode().unwrap()
    else {
        panic!()
    };
    let TurnRequested { session, request_id, message, .. } = &requested;
    assert_eq!(requested.turn, ids::turn_id(envelope.conversation, *session, request_id, message, &[]));
    assert_eq!(envelope.id, requested.turn.simple().to_string());
}

/// Up to the end of their first turn the samples are one conversation, other forms of an event apart.
///
/// The second `turn.started` is missing in the samples, so the test makes it.
#[test]
fn the_samples_fold_to_a_conversation() {
    let conversation = sample("session.opened").decode().unwrap().0.conversation;
    let main = samples().into_iter().filter(|(name, _)| kinds().contains(&name.as_str()));
    let mut chain: Vec<(EventEnvelope, Event)> = main.map(|(_, sample)| sample.decode().unwrap()).collect();
    chain.retain(|(envelope, _)| envelope.conversation == conversation);
    chain.sort_by_key(|(envelope, _)| envelope.prev);
    let (envelope, Event::TurnStarted(first)) = sample("turn.started").decode().unwrap() else { panic!() };
    let resumed = chain.iter().position(|(_, event)| matches!(event, Event::TurnResumed(_))).unwrap();
    let item = chain[resumed].0.prev + 1;
    let second = Event::TurnStarted(TurnStarted { item, ..first });
    chain.insert(resumed + 1, (EventEnvelope { prev: item, ..envelope }, second));
    let mut state = Conversation::default();
    for (envelope, event) in chain {
        let seq = if envelope.prev == 0 { 101 } else { envelope.prev + 1 };
        let recorded =
            RecordedEvent { seq, time: envelope.time, stored_at: envelope.time, digest: Digest::default(), event };
        state.evolve(&recorded);
        if let Event::TurnParked(_) = recorded.event {
            assert!(state.turn.as_ref().unwrap().park.is_some());
        }
    }
    let texts: Vec<String> = state.messages.iter().map(|message| message.text()).collect();
    assert_eq!(texts, ["Please refund ORD-1234.", "Order ORD-1234 is refunded."]);
    assert!(state.turn.is_none());
    assert_eq!(state.finished.len(), 1);
}

#[test]
fn the_session_record_round_trips() {
    let schema = definition(&json_file("spec/events.schema.json"), "session");
    for name in ["session", "session.proved"] {
        let sample = Sample::of(&json_file(&format!("spec/samples/{name}.json")));
        assert_valid(&schema, &sample.payload, name);
        let record: SessionRecord = serde_json::from_value(sample.payload.clone()).unwrap();
        assert_eq!(serde_json::to_value(&record).unwrap(), sample.payload, "{name}");
        assert_eq!(turnstream::subjects::session("local", record.session), sample.subject, "{name}");
    }
}
