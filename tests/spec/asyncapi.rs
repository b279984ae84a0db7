//! The AsyncAPI document: its references resolve, and it covers every subject of the program and of its streams.

use jsonschema::Validator;
use serde_json::{Value, json};
use turnstream::{
    evidence::{
        checkpoint::{CheckpointChain, HeadChanges},
        merkle_tree::ConversationHead,
    },
    signing::SigningKey,
    subjects::{self, ConversationKey, OwnerScope, PrivacySubject, PushTo, QuotaSubject},
    wire::{
        live::{FrameMark, HEADER, LiveKind},
        presence::{BUCKET, PushReceipt, WorkerAdvertisement},
    },
};
use uuid::Uuid;

use crate::{
    assert_valid, definition,
    events::{self, Sample},
    json_file, json_files, validator,
};

fn document() -> Value {
    json_file("spec/asyncapi.json")
}

/// Returns the ids and addresses of the channels that have one.
fn addresses(document: &Value) -> Vec<(&str, &str)> {
    let channels = document["channels"].as_object().unwrap();
    channels.iter().filter_map(|(id, channel)| Some((id.as_str(), channel["address"].as_str()?))).collect()
}

/// Returns true if some subject matches both; `{…}` and `*` match one token, a last `>` one and more.
fn fits(address: &str, pattern: &str) -> bool {
    let free = |token: &str| token == "*" || token.starts_with('{');
    let (mut address, mut pattern) = (address.split('.'), pattern.split('.'));
    loop {
        match (address.next(), pattern.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(p)) if a == p || free(a) || free(p) => {}
            _ => return false,
        }
    }
}

/// Returns all `$ref`s of a value.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => vec![],
    }
}

/// Returns the value that a reference of the document points to.
fn resolve<'a>(document: &'a Value, reference: &str) -> Option<std::borrow::Cow<'a, Value>> {
    match reference.split_once('#')? {
        ("", pointer) => document.pointer(pointer).map(std::borrow::Cow::Borrowed),
        (file, pointer) => json_file(&format!("spec/{file}")).pointer(pointer).cloned().map(std::borrow::Cow::Owned),
    }
}

/// Returns the validator of a part of the document that has no references outside of it.
fn part(document: &Value, pointer: &str) -> Validator {
    let mut schema = document.pointer(pointer).unwrap_or_else(|| panic!("there is no {pointer}")).clone();
    schema["components"] = json!({ "schemas": document["components"]["schemas"] });
    validator(&schema)
}

#[test]
fn every_reference_resolves() {
    let document = document();
    let references = references(&document);
    assert!(references.len() > 50);
    for reference in references {
        assert!(resolve(&document, reference).is_some(), "{reference}");
    }
}

#[test]
fn every_operation_and_message_has_a_channel() {
    let document = document();
    let all = |name: &str| document.pointer(name).unwrap().as_object().unwrap().clone();
    let used: Vec<String> = all("/operations")
        .values()
        .flat_map(|operation| [&operation["channel"]["$ref"], &operation["reply"]["channel"]["$ref"]])
        .filter_map(|reference| reference.as_str().map(str::to_owned))
        .collect();
    for (id, channel) in all("/channels") {
        assert!(used.contains(&format!("#/channels/{id}")), "the channel {id} has no user");
        assert!(channel["messages"].as_object().is_some_and(|messages| !messages.is_empty()), "{id}");
        let parameters = channel["address"].as_str().unwrap_or_default().split('.').filter(|t| t.starts_with('{'));
        for name in parameters.map(|token| token.trim_matches(['{', '}'])) {
            assert!(channel["parameters"].get(name).is_some(), "{id} does not explain {name}");
        }
    }
}

#[test]
fn every_event_has_its_channel_with_its_payload() {
    let document = document();
    for kind in events::kinds() {
        let sample = events::sample(kind);
        let ids: Vec<&str> =
            addresses(&document).into_iter().filter(|(_, a)| fits(a, &sample.subject)).map(|(id, _)| id).collect();
        assert_eq!(ids, ["conversation.events", kind]);
        assert_eq!(
            document["channels"][kind]["messages"],
            json!({ kind: { "$ref": format!("#/components/messages/{kind}") } })
        );
        let message = &document["components"]["messages"][kind];
        assert_eq!(message["payload"]["$ref"], format!("events.schema.json#/$defs/{kind}"));
        let headers = part(&document, &format!("/components/messages/{kind}/headers"));
        assert_valid(&headers, &json!(sample.headers), kind);
        let mut other = json!(sample.headers);
        other["ce-type"] = json!("turnstream.turn.imagined");
        assert!(!headers.is_valid(&other));
    }
}

/// Checks that subjects fit the address of their channel.
fn expect_covered(subjects: &[(String, &str)]) {
    let document = document();
    for (subject, channel) in subjects {
        let address = document["channels"][channel]["address"].as_str().unwrap();
        assert!(fits(address, subject), "{subject} is not {address}");
    }
}

#[test]
fn every_subject_of_the_program_is_covered() {
    let key = ConversationKey { region: "eu".into(), org: "an org.".into(), conversation: Uuid::new_v4() };
    let (region, id) = ("eu", Uuid::new_v4());
    let day = chrono::NaiveDate::from_ymd_opt(2026, 3, 2).unwrap();
    let subjects = [
        (key.all_events(), "conversation.events"),
        (subjects::events_of_org(region, "an org."), "conversation.events"),
        (subjects::session(region, id), "session"),
        (subjects::live(region, key.conversation, id), "live"),
        (subjects::live_all(region, key.conversation), "live"),
        (subjects::stop(region, key.conversation), "stop"),
        (subjects::stop_all(region), "stop"),
        (subjects::push(region, PushTo::User, "an org.", "ada"), "push"),
        (subjects::push_all(region), "push"),
        (subjects::ingest_item("an org.", id), "ingest"),
        (subjects::ingest_runs("an org."), "knowledge.runs"),
        (
            subjects::kv("TURNS", &subjects::connections_key(QuotaSubject::Org("an org."), Some(id))),
            "kv.turns.connections",
        ),
        (
            subjects::kv("TURNS", &subjects::connections_key(QuotaSubject::Address([127, 0, 0, 1].into()), None)),
            "kv.turns.connections",
        ),
        (subjects::count_messages("an org.", 30_000_000), "count"),
        (subjects::count_tokens("an org.", day), "count"),
        (subjects::count_sessions([127, 0, 0, 1].into(), 30_000_000), "count"),
        (subjects::kv("TURNS", &subjects::turn_note_key("an org.", Some(id))), "kv.turns"),
        (subjects::count_codes(subjects::OtpCounter::Contact("a@b.c"), 3_000_000), "count"),
        (subjects::kv("VISITORS", &subjects::visitor_key("an org.", "support", "f-1")), "kv.visitors"),
        (subjects::count_codes(subjects::OtpCounter::Tries(id), 0), "count"),
        (subjects::kv("RESTORE", &subjects::restore_key(id)), "kv.restore"),
        (subjects::kv("RESTORE", &subjects::challenge_key(id)), "kv.challenge"),
        (subjects::kv("ONCE", &subjects::once_key("0a1b")), "kv.once"),
        (subjects::kv("EDGES", &subjects::edge_key(region, id)), "kv.edges"),
        (subjects::kv("SETTINGS", &subjects::connector_key("an org.", Some(id))), "kv.settings"),
        (subjects::schedule(region, key.conversation, id), "sched"),
        (subjects::due(region, key.conversation, id), "due"),
        (subjects::dead(region, key.conversation), "dead"),
        (subjects::audit_checkpoint(region), "audit.checkpoint"),
        (subjects::audit_privacy(region, PrivacySubject::HoldLifted), "audit.privacy"),
        (subjects::audit_privacy_all(region), "audit.privacy"),
        (subjects::kv("CONVERSATIONS", &subjects::fold_key(&key)), "kv.conversations"),
        (subjects::kv("INDEX", &subjects::index_key("an org.", Some("a@b.c"), day, id)), "kv.index"),
        (subjects::kv("INDEX", &subjects::index_filter("an org.", OwnerScope::Everybody, None)), "kv.index"),
        (subjects::kv("INDEX", &subjects::index_everywhere("an org.", id)), "kv.index"),
        (subjects::kv(BUCKET, &subjects::worker_key(region, "default", id)), "kv.workers"),
    ];
    expect_covered(&subjects);
}

#[test]
fn every_subject_of_documents_and_of_servers_is_covered() {
    let id = Uuid::new_v4();
    let subjects = [
        (subjects::knowledge("an org.", &subjects::knowledge_document("a.md"), Some(3)), "knowledge"),
        (subjects::knowledge_heads("an org."), "knowledge"),
        (subjects::knowledge_all_of("an org.", &subjects::knowledge_document("a.md")), "knowledge"),
        (subjects::KNOWLEDGE_ALL.to_owned(), "knowledge"),
        (subjects::retrieve("an org."), "retrieve"),
        (subjects::object_info("ATTACHMENTS", "an org./0"), "objects.info"),
        (subjects::object_chunks("ATTACHMENTS", id), "objects.chunks"),
        (subjects::file(id, Some(id)), "file"),
        (subjects::file(id, None), "file"),
        (subjects::otp("an org.", "send"), "otp.send"),
        (subjects::otp("an org.", "verify"), "otp.verify"),
        (subjects::kv("AGENTS", &subjects::agent_key("an org.", "an agent")), "kv.agents"),
        (subjects::AGENTS_ALL.to_owned(), "kv.agents"),
        (subjects::SERVICES_INFO.to_owned(), "services.info"),
        (subjects::DEMO_REFUND.to_owned(), "tool.demo"),
        (subjects::direct_get("CHAT_eu"), "jetstream.direct_get"),
        (subjects::leader_get("CHAT_eu"), "jetstream.leader_get"),
        (subjects::stream_api("INFO", "CHAT_eu"), "jetstream.stream"),
        (subjects::consumer_create("CHAT_eu", "default"), "jetstream.consumer_create"),
        (subjects::consumer_info("CHAT_eu", "default"), "jetstream.consumer_info"),
    ];
    expect_covered(&subjects);
}

#[test]
fn every_subject_of_a_stream_or_consumer_is_covered() {
    let document = document();
    let addresses = addresses(&document);
    for (name, definition) in json_files("streams") {
        let lists = ["subjects", "filter_subjects"].into_iter().filter_map(|list| definition[list].as_array());
        let patterns: Vec<&str> =
            lists.flatten().chain(definition.get("filter_subject")).map(|pattern| pattern.as_str().unwrap()).collect();
        assert!(!patterns.is_empty(), "{name}");
        for pattern in patterns {
            assert!(addresses.iter().any(|(_, address)| fits(address, pattern)), "{name}: {pattern}");
        }
    }
}

#[test]
fn headers_and_payloads_match_the_document() {
    let document = document();
    let headers = part(&document, "/components/schemas/frameHeaders");
    for kind in [
        LiveKind::Token,
        LiveKind::Reasoning,
        LiveKind::Preamble,
        LiveKind::Chunk,
        LiveKind::Notice,
        LiveKind::Prompt,
        LiveKind::Restart,
        LiveKind::Owner,
        LiveKind::Terminal,
    ] {
        let mark =
            FrameMark { turn: Uuid::new_v4(), epoch: u64::MAX, n: 3, kind, call: 1, offset: 512, length: 9, chunks: 2 };
        assert_valid(&headers, &json!({ HEADER: mark.to_string() }), "the frame mark");
    }
    assert!(!headers.is_valid(&json!({ HEADER: "some other text" })));

    let advertisement = WorkerAdvertisement { version: "0.1.0".into(), orgs: vec!["*".into()] };
    assert_valid(&part(&document, "/components/schemas/advertisement"), &json!(advertisement), "an advertisement");
    let pushed = PushReceipt { edge: Uuid::new_v4(), delivered: 3 };
    assert_valid(&part(&document, "/components/schemas/pushed"), &json!(pushed), "an answer to a host's event");

    let folder = tempfile::tempdir().unwrap();
    let (private, public) = (folder.path().join("key"), folder.path().join("key.pub"));
    SigningKey::generate(&private, &public).unwrap();
    let head = ConversationHead { conversation: Uuid::new_v4(), seq: 7, digest: Default::default(), events: 3 };
    let changes = HeadChanges { region: "eu", covers: 9, time: chrono::Utc::now(), heads: vec![head] };
    let messages = CheckpointChain::default().next(changes, &SigningKey::read(&private).unwrap());
    for (message, name) in messages.iter().zip(["heads", "checkpoint"]) {
        let payload: Value = serde_json::from_slice(message).unwrap();
        assert_valid(&part(&document, &format!("/components/schemas/{name}")), &payload, "a checkpoint");
    }

    let session = Sample::of(&json_file("spec/samples/session.json"));
    assert_valid(&part(&document, "/components/messages/session/headers"), &json!(session.headers), "a session record");
    assert_valid(&definition(&json_file("spec/events.schema.json"), "session"), &session.payload, "a session record");
}
